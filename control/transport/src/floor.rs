//! The time floor, kept in a file: one line, the newest proven time in seconds since 1970. Written at
//! most about once a day, because flash wears, and by rename, so that it is never half there.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use parking_lot::Mutex;

use crate::clock::{BUILT, Clock, Skew, Testimony, Witnesses};
use crate::error::TransportError;

/// The floor in the file may stay behind by this much.
const WRITE_EVERY: Duration = Duration::from_secs(86_400);
/// Nothing after the year 9999 is taken for a time.
const LAST: u64 = 253_402_300_799;

/// The system's clock with a floor that survives restarts.
pub struct FloorFile {
    path: PathBuf,
    system: Box<dyn Fn() -> SystemTime + Send + Sync>,
    state: Mutex<State>,
    /// What is in the file; held while it is written.
    written: Mutex<SystemTime>,
}

struct State {
    /// Proven at `at`; time has gone on since.
    proven: SystemTime,
    at: Instant,
    witnesses: Witnesses,
}

impl State {
    fn floor(&self) -> SystemTime {
        self.proven.checked_add(self.at.elapsed()).unwrap_or(self.proven)
    }
}

impl FloorFile {
    /// Opens the floor kept at `path`; a file that is not there yet is written when there is something
    /// to write. One that does not make sense is reported and written anew.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, TransportError> {
        Self::with_system(path, SystemTime::now)
    }

    /// As [`FloorFile::open`], with another system clock.
    ///
    /// # Errors
    /// As [`FloorFile::open`].
    pub fn with_system(
        path: impl Into<PathBuf>,
        system: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Result<Self, TransportError> {
        let path = path.into();
        let written = read(&path)
            .map_err(|source| TransportError::Floor { path: path.display().to_string(), source })?
            .unwrap_or(UNIX_EPOCH);
        let state = State {
            proven: written.max(UNIX_EPOCH + BUILT),
            at: Instant::now(),
            witnesses: Witnesses::default(),
        };
        // A first write is due a day after the build, not for the build's own date.
        let written = written.max(UNIX_EPOCH + BUILT);
        Ok(Self { path, system: Box::new(system), state: Mutex::new(state), written: Mutex::new(written) })
    }
}

impl Clock for FloorFile {
    fn now(&self) -> SystemTime {
        (self.system)()
    }

    fn floor(&self) -> SystemTime {
        self.state.lock().floor()
    }

    fn observe(&self, testimony: &Testimony) {
        let now = self.now();
        {
            let mut state = self.state.lock();
            let at = Instant::now();
            let proven = state.witnesses.hear(testimony, now, at);
            if proven > state.floor() {
                (state.proven, state.at) = (proven, at);
            }
        }
        self.persist();
    }

    fn likely(&self) -> SystemTime {
        let now = self.now();
        let state = self.state.lock();
        state.witnesses.likely(now, Instant::now()).max(state.floor())
    }

    fn clock_skew(&self) -> Option<Skew> {
        let now = self.now();
        self.state.lock().witnesses.skew(now, Instant::now())
    }

    fn persist(&self) {
        let mut written = self.written.lock();
        let floor = self.floor();
        if floor.duration_since(*written).is_ok_and(|ahead| ahead >= WRITE_EVERY) {
            match write(&self.path, floor) {
                Ok(()) => *written = floor,
                Err(error) => tracing::warn!(
                    path = %self.path.display(),
                    error = &error as &dyn std::error::Error,
                    "the time floor cannot be written"
                ),
            }
        }
    }
}

fn read(path: &Path) -> io::Result<Option<SystemTime>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let seconds = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse::<u64>().ok());
    match seconds.filter(|seconds| *seconds <= LAST) {
        Some(seconds) => Ok(Some(UNIX_EPOCH + Duration::from_secs(seconds))),
        None => {
            tracing::warn!(path = %path.display(), "the time floor is not a time; it starts anew");
            Ok(None)
        }
    }
}

fn write(path: &Path, floor: SystemTime) -> io::Result<()> {
    let seconds = floor.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = fs::File::create(&beside)?;
    writeln!(file, "{seconds}")?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{KeyId, Role};

    const DAY: Duration = Duration::from_secs(86_400);

    fn built() -> SystemTime {
        UNIX_EPOCH + BUILT
    }

    fn server(time: SystemTime) -> Testimony {
        Testimony { key: KeyId([1; 32]), role: Role::Server, time }
    }

    /// A clock in `dir` whose system says `now`.
    fn clock(dir: &Path, now: SystemTime) -> FloorFile {
        FloorFile::with_system(dir.join("floor"), move || now).unwrap()
    }

    #[test]
    fn the_floor_survives_and_never_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let future = built() + 400 * DAY;
        let first = clock(dir.path(), future);
        assert!(first.floor() >= built() && first.floor() < built() + DAY);
        first.observe(&server(future));
        assert!(first.floor() >= future);
        first.observe(&server(built()));
        assert!(first.floor() >= future);
        drop(first);
        // The battery is empty now.
        let second = clock(dir.path(), UNIX_EPOCH);
        assert!(second.floor() >= future && second.best() >= future);
        second.observe(&server(UNIX_EPOCH));
        assert!(second.floor() >= future);
    }

    #[test]
    fn it_is_written_only_when_a_day_has_been_proven() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("floor");
        let clock = clock(dir.path(), built() + 1000 * DAY);
        clock.observe(&server(built() + DAY / 2));
        assert!(!path.exists());
        clock.observe(&server(built() + 2 * DAY));
        let text = fs::read_to_string(&path).unwrap();
        clock.observe(&server(built() + 2 * DAY + DAY / 2));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        clock.observe(&server(built() + 4 * DAY));
        assert_ne!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn a_damaged_floor_starts_anew_and_an_unreadable_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "yesterday", "-5", "99999999999999999", "\u{fffd}"] {
            fs::write(dir.path().join("floor"), text).unwrap();
            assert!(clock(dir.path(), UNIX_EPOCH).floor() < built() + DAY, "{text}");
        }
        let error = FloorFile::open(dir.path()).err().unwrap().to_string();
        assert!(error.starts_with("cannot read the time floor"), "{error}");
    }

    #[test]
    fn skew_is_told_until_the_clock_is_put_right() {
        let dir = tempfile::tempdir().unwrap();
        let now = std::sync::Arc::new(Mutex::new(UNIX_EPOCH));
        let system = std::sync::Arc::clone(&now);
        let clock = FloorFile::with_system(dir.path().join("floor"), move || *system.lock()).unwrap();
        assert_eq!(clock.clock_skew(), None);
        clock.observe(&server(built()));
        assert!(matches!(clock.clock_skew(), Some(Skew::Behind(by)) if by >= BUILT));
        *now.lock() = built();
        assert_eq!(clock.clock_skew(), None);
    }
}
