//! Burdens: CPU, memory, stack.

use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::Outcome;

const PAGE: usize = 4096;

/// Computes without end and without a call to the host.
pub fn spin_forever() -> Outcome {
    let mut count: u64 = 0;
    loop {
        count = black_box(count.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

/// Computes for a while, looking at the clock rarely; prints how many rounds it made.
pub fn spin(milliseconds: u64) -> Outcome {
    let (start, limit) = (Instant::now(), Duration::from_millis(milliseconds));
    let mut rounds: u64 = 0;
    while start.elapsed() < limit {
        for _ in 0..100_000 {
            rounds = black_box(rounds + 1);
        }
    }
    println!("{rounds} rounds");
    Ok(())
}

/// Calls the host all the time.
pub fn ask_the_clock(milliseconds: u64) -> Outcome {
    let (start, limit) = (Instant::now(), Duration::from_millis(milliseconds));
    let mut calls: u64 = 0;
    while start.elapsed() < limit {
        calls += 1;
    }
    println!("{calls} calls");
    Ok(())
}

/// Takes memory, touches every page of it, says so and keeps it to the end.
pub fn allocate(mebibytes: usize) -> Outcome {
    let mut memory: Vec<u8> = Vec::new();
    memory.try_reserve_exact(mebibytes << 20)?;
    memory.resize(mebibytes << 20, 0);
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    black_box(&memory);
    println!("{mebibytes} MiB");
    std::io::stdout().flush()?;
    std::mem::forget(memory);
    Ok(())
}

/// Calls itself until there is no stack left.
pub fn overflow() -> Outcome {
    println!("{}", dive(black_box(1)));
    Ok(())
}

/// Keeps nothing in memory, so that it is the engine's stack that ends.
#[inline(never)]
fn dive(depth: u64) -> u64 {
    if depth == 0 {
        return 1;
    }
    dive(depth.wrapping_add(2)).rotate_left(7) ^ depth
}
