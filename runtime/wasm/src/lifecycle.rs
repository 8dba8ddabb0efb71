//! The optional import `sampan:lifecycle/shutdown@0.1.0`, by which a guest learns that its
//! container is asked to end (`wit/lifecycle.wit`). WASI has no signals.

use tokio_util::sync::CancellationToken;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use crate::guest::Guest;

/// The interface's name in a component's imports.
pub(crate) const INTERFACE: &str = "sampan:lifecycle/shutdown@0.1.0";

/// What the guest's pollable waits for.
struct Requested(CancellationToken);

#[async_trait::async_trait]
impl Pollable for Requested {
    async fn ready(&mut self) {
        self.0.cancelled().await;
    }
}

/// Adds the interface to a linker.
///
/// # Errors
/// When a name is taken.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut shutdown = linker.instance(INTERFACE)?;
    shutdown.func_wrap("requested", |store, (): ()| Ok((store.data().stop().is_cancelled(),)))?;
    shutdown.func_wrap("subscribe", |mut store, (): ()| {
        let requested = Requested(store.data().stop().clone());
        let table = store.data_mut().table();
        let resource = table.push(requested)?;
        let pollable: Resource<DynPollable> = subscribe(table, resource)?;
        Ok((pollable,))
    })?;
    shutdown.func_wrap_concurrent("wait", |accessor, (): ()| {
        Box::pin(async move {
            let stop = accessor.with(|mut access| access.get().stop().clone());
            stop.cancelled().await;
            Ok(())
        })
    })
}
