//! What a guest's store holds: its WASI context and its place in container and pod.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::memory::StoreMemory;
use crate::net::PodNet;
use crate::outgoing::Outgoing;

/// How many host resources (streams, sockets, descriptors, requests) an instance may hold.
const MAX_RESOURCES: usize = 65_536;

/// The state of a component's store.
pub(crate) struct Guest {
    wasi: WasiCtx,
    table: ResourceTable,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    memory: StoreMemory,
    net: Arc<PodNet>,
    stop: CancellationToken,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Guest {
    /// A guest of a pod; `stop` is its container's stop request, `slot` its place in the pool.
    #[must_use]
    pub(crate) fn new(
        wasi: WasiCtx,
        memory: StoreMemory,
        net: Arc<PodNet>,
        stop: CancellationToken,
        slot: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        let outgoing = Outgoing::new(net.clone());
        Self { wasi, table, http: WasiHttpCtx::new(), outgoing, memory, net, stop, _slot: slot }
    }

    /// The container's stop request.
    #[must_use]
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// The guest's resources.
    pub(crate) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    /// The pod's network.
    #[must_use]
    pub(crate) fn net(&self) -> &Arc<PodNet> {
        &self.net
    }

    /// The limiter of the guest's memories and tables.
    pub(crate) fn memory_limiter(&mut self) -> &mut dyn wasmtime::ResourceLimiter {
        &mut self.memory
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outgoing, table: &mut self.table, ctx: &mut self.http }
    }
}

/// The state of a core module's store.
pub(crate) struct CoreGuest {
    /// Preview 1.
    pub wasi: WasiP1Ctx,
    /// The limiter of the guest's memories and tables.
    pub memory: StoreMemory,
}
