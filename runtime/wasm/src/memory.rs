//! Memory of a container: one account over all linear memories and tables of all its
//! instances, held against `limits.memory`.
//!
//! Each store owns a [`StoreMemory`], wasmtime's limiter, which draws from the container's
//! [`MemoryAccount`] and gives everything back when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use wasmtime::ResourceLimiter;

/// What one element of a table costs.
const TABLE_ELEMENT_BYTES: u64 = 16;

/// Raised through the guest when it wants more memory than its container may have.
#[derive(Debug, thiserror::Error)]
#[error("memory limit of {limit} bytes exceeded: {wanted} bytes wanted")]
pub(crate) struct OutOfMemory {
    /// The container's limit.
    pub limit: u64,
    /// What all its memories would have come to.
    pub wanted: u64,
}

/// What a container uses, most used, and may use.
#[derive(Debug)]
pub(crate) struct MemoryAccount {
    limit: AtomicU64,
    used: AtomicU64,
    peak: AtomicU64,
    exceeded: AtomicBool,
}

impl MemoryAccount {
    /// An account with a limit in bytes.
    #[must_use]
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit: AtomicU64::new(limit),
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            exceeded: AtomicBool::new(false),
        }
    }

    /// Changes the limit. Memory in use beyond it stays; the next growth is refused.
    pub(crate) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Relaxed);
    }

    /// Bytes in use now.
    #[must_use]
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// The most bytes in use at one time.
    #[must_use]
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }

    /// Whether the limit was crossed.
    #[must_use]
    pub(crate) fn exceeded(&self) -> bool {
        self.exceeded.load(Relaxed)
    }

    fn grow(&self, bytes: u64) -> Result<(), OutOfMemory> {
        let limit = self.limit.load(Relaxed);
        let grown = self
            .used
            .fetch_update(Relaxed, Relaxed, |used| used.checked_add(bytes).filter(|wanted| *wanted <= limit));
        match grown {
            Ok(before) => {
                self.peak.fetch_max(before + bytes, Relaxed);
                Ok(())
            }
            Err(used) => {
                self.exceeded.store(true, Relaxed);
                Err(OutOfMemory { limit, wanted: used.saturating_add(bytes) })
            }
        }
    }

    fn shrink(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

/// One store's part of its container's memory.
#[derive(Debug)]
pub(crate) struct StoreMemory {
    account: Arc<MemoryAccount>,
    held: u64,
    /// The last growth granted, in case wasmtime cannot carry it out.
    pending: u64,
}

impl StoreMemory {
    /// A limiter that draws from `account`.
    #[must_use]
    pub(crate) fn new(account: Arc<MemoryAccount>) -> Self {
        Self { account, held: 0, pending: 0 }
    }

    fn draw(&mut self, bytes: u64) -> wasmtime::Result<bool> {
        self.account.grow(bytes).map_err(wasmtime::Error::from)?;
        self.held += bytes;
        self.pending = bytes;
        Ok(true)
    }

    fn undo(&mut self) {
        let bytes = std::mem::take(&mut self.pending);
        self.held -= bytes;
        self.account.shrink(bytes);
    }
}

impl Drop for StoreMemory {
    fn drop(&mut self) {
        self.account.shrink(self.held);
    }
}

impl ResourceLimiter for StoreMemory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.draw(desired.saturating_sub(current) as u64)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(error = %format!("{error:#}"), "memory growth failed");
        self.undo();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.draw((desired.saturating_sub(current) as u64).saturating_mul(TABLE_ELEMENT_BYTES))
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(error = %format!("{error:#}"), "table growth failed");
        self.undo();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_stores_of_a_container_draw_from_one_limit() {
        let account = Arc::new(MemoryAccount::new(100));
        let mut first = StoreMemory::new(account.clone());
        let mut second = StoreMemory::new(account.clone());
        assert!(first.memory_growing(0, 60, None).unwrap());
        let error = second.memory_growing(0, 50, None).unwrap_err();
        let error = error.downcast_ref::<OutOfMemory>().unwrap();
        assert_eq!((error.limit, error.wanted), (100, 110));
        assert!(account.exceeded());
        assert!(second.memory_growing(0, 40, None).unwrap());
        assert_eq!((account.used(), account.peak()), (100, 100));
    }

    #[test]
    fn a_dropped_store_gives_its_memory_back_and_the_peak_stays() {
        let account = Arc::new(MemoryAccount::new(100));
        let mut store = StoreMemory::new(account.clone());
        store.memory_growing(0, 60, None).unwrap();
        store.memory_growing(60, 70, None).unwrap();
        store.memory_grow_failed(wasmtime::Error::msg("no pages")).unwrap();
        assert_eq!(account.used(), 60);
        drop(store);
        assert_eq!((account.used(), account.peak()), (0, 70));
    }

    #[test]
    fn growth_beyond_the_modules_own_maximum_is_refused_without_ending_it() {
        let account = Arc::new(MemoryAccount::new(100));
        let mut store = StoreMemory::new(account.clone());
        assert!(!store.memory_growing(0, 60, Some(50)).unwrap());
        assert!(!account.exceeded());
    }

    #[test]
    fn a_lowered_limit_holds_from_the_next_growth_on() {
        let account = Arc::new(MemoryAccount::new(100));
        let mut store = StoreMemory::new(account.clone());
        store.memory_growing(0, 60, None).unwrap();
        account.set_limit(50);
        assert_eq!(account.used(), 60);
        assert!(store.memory_growing(60, 61, None).is_err());
    }

    #[test]
    fn tables_count_too() {
        let account = Arc::new(MemoryAccount::new(100));
        let mut store = StoreMemory::new(account.clone());
        assert!(store.table_growing(0, 6, None).unwrap());
        assert_eq!(account.used(), 96);
        assert!(store.table_growing(6, 7, None).is_err());
    }
}
