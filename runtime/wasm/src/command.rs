//! Commands: guests that run once, as a task.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use futures::FutureExt as _;
use wasmtime::Store;
use wasmtime_wasi::I32Exit;

use crate::container::Container;
use crate::cpu::Metered;
use crate::engine::FUEL_YIELD_INTERVAL;
use crate::exit::{Ended, classify};
use crate::guest::{CoreGuest, Guest};
use crate::launch::{Launch, stdin};
use crate::memory::StoreMemory;
use crate::program::CommandPre;
use crate::stdin::Stdin;

type Call<'a> = Pin<Box<dyn Future<Output = wasmtime::Result<()>> + Send + 'a>>;

/// Runs a command to its end.
pub(crate) async fn run(
    container: &Container,
    pre: &CommandPre,
    hears_stop: bool,
    launch: Arc<Launch>,
) -> Ended {
    let stdin = stdin(&container.config, &container.stop);
    let call: Call<'_> = match pre {
        CommandPre::Core(pre) => Box::pin(core(container, pre, &launch, stdin.clone())),
        CommandPre::P2(pre) => Box::pin(p2(container, pre, &launch, stdin.clone())),
        CommandPre::P3(pre) => Box::pin(p3(container, pre, &launch, stdin.clone())),
    };
    // A fault of the host's own must end the container, not leave it running for ever.
    let call = AssertUnwindSafe(call).catch_unwind();
    tokio::select! {
        biased;
        result = Metered::new(call, container.cpu.clone()) => match result {
            Ok(result) => classify(result),
            Err(_) => Ended::Trap(134, "the host panicked while it ran this guest".to_owned()),
        },
        ended = container.must_end(|| hears_stop || stdin.awaited()) => ended,
    }
}

/// Sets a store up to yield.
///
/// # Errors
/// When the engine has no fuel (a fault of this program).
pub(crate) fn fuel<T>(store: &mut Store<T>) -> wasmtime::Result<()> {
    store.set_fuel(u64::MAX)?;
    store.fuel_async_yield_interval(Some(FUEL_YIELD_INTERVAL))
}

async fn core(
    container: &Container,
    pre: &wasmtime::InstancePre<CoreGuest>,
    launch: &Launch,
    stdin: Stdin,
) -> wasmtime::Result<()> {
    let wasi = launch.wasi(&container.net, &container.log, stdin)?.build_p1();
    let memory = StoreMemory::new(container.memory.clone());
    let mut store = Store::new(pre.module().engine(), CoreGuest { wasi, memory });
    store.limiter(|guest| &mut guest.memory);
    fuel(&mut store)?;
    let instance = pre.instantiate_async(&mut store).await?;
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
    start.call_async(&mut store, ()).await
}

fn component_store(
    container: &Container,
    engine: &wasmtime::Engine,
    launch: &Launch,
    stdin: Stdin,
) -> wasmtime::Result<Store<Guest>> {
    let wasi = launch.wasi(&container.net, &container.log, stdin)?.build();
    let memory = StoreMemory::new(container.memory.clone());
    let guest = Guest::new(wasi, memory, container.net.clone(), container.stop.clone(), None);
    let mut store = Store::new(engine, guest);
    store.limiter(Guest::memory_limiter);
    fuel(&mut store)?;
    Ok(store)
}

async fn p2(
    container: &Container,
    pre: &wasmtime_wasi::p2::bindings::CommandPre<Guest>,
    launch: &Launch,
    stdin: Stdin,
) -> wasmtime::Result<()> {
    let mut store = component_store(container, pre.engine(), launch, stdin)?;
    let command = pre.instantiate_async(&mut store).await?;
    command.wasi_cli_run().call_run(&mut store).await?.map_err(|()| I32Exit(1).into())
}

async fn p3(
    container: &Container,
    pre: &wasmtime_wasi::p3::bindings::CommandPre<Guest>,
    launch: &Launch,
    stdin: Stdin,
) -> wasmtime::Result<()> {
    let mut store = component_store(container, pre.engine(), launch, stdin)?;
    let command = pre.instantiate_async(&mut store).await?;
    let result =
        store.run_concurrent(async |accessor| command.wasi_cli_run().call_run(accessor).await).await??;
    result.map_err(|()| I32Exit(1).into())
}
