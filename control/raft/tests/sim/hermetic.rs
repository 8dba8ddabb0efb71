//! Randomness and clocks of a simulation's thread.
//!
//! The test binary defines `getrandom` and `clock_gettime` itself, in the place of the C library's.
//! On a thread that [`enter`]ed a simulation they answer from the seed and from simulated time, so
//! that hash maps, random numbers of any crate, and clocks repeat themselves; on other threads
//! they ask the kernel.

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use rustix::time::ClockId;

/// The monotonic clock when a simulation begins.
const BEGIN: Duration = Duration::from_secs(1_000);
/// The wall clock when a simulation begins: some day in 2026.
const WALL: Duration = Duration::from_secs(1_790_000_000);

thread_local! {
    static RANDOM: RefCell<Option<StdRng>> = const { RefCell::new(None) };
    static ELAPSED: Cell<Option<Duration>> = const { Cell::new(None) };
    static WALL_OFFSET: Cell<i64> = const { Cell::new(0) };
}

/// From now on this thread's randomness comes from `seed`, and its clocks stand still. Threads
/// cannot leave: whatever was made here keeps to simulated time.
pub(crate) fn enter(seed: u64) {
    RANDOM.with_borrow_mut(|random| *random = Some(StdRng::seed_from_u64(seed)));
    ELAPSED.set(Some(Duration::ZERO));
}

/// Whether this thread is one of a simulation.
pub(crate) fn is_simulated() -> bool {
    ELAPSED.try_with(|elapsed| elapsed.get().is_some()).unwrap_or(false)
}

/// Sets the clocks: time since the simulation began, and by how many seconds the wall clock is off.
pub(crate) fn set_clock(elapsed: Duration, wall_offset: i64) {
    ELAPSED.set(Some(elapsed));
    WALL_OFFSET.set(wall_offset);
}

/// The C library's `getrandom`.
///
/// # Safety
/// As for the C function: `buffer` must be valid for writes of `length` bytes.
#[allow(unsafe_code, reason = "takes the C library's place")]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller's promise; the bytes are written before they are read.
    let buffer = unsafe {
        buffer.write_bytes(0, length);
        std::slice::from_raw_parts_mut(buffer, length)
    };
    let simulated = RANDOM.try_with(|random| match random.try_borrow_mut() {
        Ok(mut random) => random.as_mut().map(|random| random.fill_bytes(buffer)).is_some(),
        Err(_) => false,
    });
    if !simulated.unwrap_or(false) {
        let filled = std::fs::File::open("/dev/urandom").and_then(|mut device| device.read_exact(buffer));
        if filled.is_err() {
            return -1;
        }
    }
    length as isize
}

/// The C library's `clock_gettime`.
///
/// # Safety
/// As for the C function: `time` must be valid for a write.
#[allow(unsafe_code, reason = "takes the C library's place")]
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32 {
    let now = match ELAPSED.try_with(Cell::get) {
        Ok(Some(elapsed)) if clock == ClockId::Realtime as i32 => {
            let now = WALL + elapsed;
            [now.as_secs() as i64 + WALL_OFFSET.get(), i64::from(now.subsec_nanos())]
        }
        Ok(Some(elapsed)) => {
            let now = BEGIN + elapsed;
            [now.as_secs() as i64, i64::from(now.subsec_nanos())]
        }
        _ => {
            let id = match clock {
                0 => ClockId::Realtime,
                2 => ClockId::ProcessCPUTime,
                3 => ClockId::ThreadCPUTime,
                7 => ClockId::Boottime,
                _ => ClockId::Monotonic,
            };
            let now = rustix::time::clock_gettime(id);
            [now.tv_sec, now.tv_nsec]
        }
    };
    // SAFETY: the caller's promise.
    unsafe { time.write(now) };
    0
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;
    use std::time::{Instant, SystemTime};

    use super::*;

    fn on_a_thread<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(run).join().unwrap()
    }

    fn sample() -> (u64, u64) {
        let hashed = std::collections::hash_map::RandomState::new().hash_one(1);
        (hashed, rand::rng().next_u64())
    }

    #[test]
    fn a_seed_repeats_all_randomness_and_other_threads_have_their_own() {
        let seeded = |seed| {
            on_a_thread(move || {
                enter(seed);
                sample()
            })
        };
        assert_eq!(seeded(1), seeded(1));
        assert_ne!(seeded(1), seeded(2));
        let free: HashSet<_> = (0..4).map(|_| on_a_thread(sample)).collect();
        assert_eq!(free.len(), 4);
    }

    #[test]
    fn clocks_stand_where_they_are_set() {
        on_a_thread(|| {
            enter(1);
            let (instant, wall) = (Instant::now(), SystemTime::now());
            std::thread::sleep(Duration::from_millis(2));
            assert_eq!(instant, Instant::now());
            set_clock(Duration::from_secs(5), -100);
            assert_eq!(instant.elapsed(), Duration::from_secs(5));
            assert_eq!(wall.duration_since(SystemTime::now()).unwrap(), Duration::from_secs(95));
        });
        let before = Instant::now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(before.elapsed() >= Duration::from_millis(2), "other threads see the real time");
    }
}
