//! How large things may be that come from elsewhere.

use std::io::{self, Read};

/// A manifest, an index, a configuration.
pub(super) const DOCUMENT: u64 = 4 << 20;
/// A module.
pub(super) const MODULE: u64 = 512 << 20;
/// All that is unpacked from one archive or one layer.
pub(super) const UNPACKED: u64 = 8 << 30;
/// Files in one archive or layer.
pub(super) const FILES: usize = 200_000;
/// Indexes within indexes.
pub(super) const DEPTH: usize = 4;

/// A reader that fails, rather than ends, when there is more than it may give: what is small
/// when compressed is not always small.
pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R> Bounded<R> {
    pub(super) fn new(inner: R, limit: u64) -> Self {
        Self { inner, left: limit }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than what is unpacked here")
        })?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_an_error_and_not_an_end() {
        let read = |limit| io::copy(&mut Bounded::new(&b"12345"[..], limit), &mut io::sink()).ok();
        assert_eq!((read(4), read(5), read(6)), (None, Some(5), Some(5)));
    }
}
