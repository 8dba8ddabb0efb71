//! Images linked with the host's functions: ready to be instantiated, shared by all containers
//! of the image.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use wasmtime::component;
use wasmtime_wasi::{I32Exit, p1};
use wasmtime_wasi_http::handler::ProxyPre;

use crate::artifact::{Artifact, ArtifactKind, Flavor, ImageConfig};
use crate::engine::{EngineClass, Engines};
use crate::guest::{CoreGuest, Guest};
use crate::{lifecycle, net};

/// A linked command.
pub(crate) enum CommandPre {
    /// A core module for preview 1.
    Core(wasmtime::InstancePre<CoreGuest>),
    /// A component of WASI 0.2.
    P2(wasmtime_wasi::p2::bindings::CommandPre<Guest>),
    /// A component of WASI 0.3.
    P3(wasmtime_wasi::p3::bindings::CommandPre<Guest>),
}

/// How a program runs.
pub(crate) enum Run {
    /// As a task.
    Command(CommandPre),
    /// As an instance for each request.
    Handler(ProxyPre<Guest>),
}

/// A linked image.
pub(crate) struct Program {
    /// How it runs.
    pub run: Run,
    /// What the image says about itself.
    pub config: ImageConfig,
    /// Whether it can notice the stop request by the lifecycle interface.
    pub hears_stop: bool,
}

/// Links images, each once at a time.
pub(crate) struct Programs {
    core: wasmtime::Linker<CoreGuest>,
    command: component::Linker<Guest>,
    handler: component::Linker<Guest>,
    linked: Mutex<HashMap<String, Weak<Program>>>,
}

impl Programs {
    /// Linkers for both engines.
    ///
    /// # Errors
    /// When the host's functions do not fit together (a fault of this program).
    pub(crate) fn new(engines: &Engines) -> wasmtime::Result<Self> {
        Ok(Self {
            core: core_linker(engines.get(EngineClass::Command))?,
            command: component_linker(engines.get(EngineClass::Command))?,
            handler: component_linker(engines.get(EngineClass::Handler))?,
            linked: Mutex::default(),
        })
    }

    /// The linked image if any container holds it.
    #[must_use]
    pub(crate) fn linked(&self, image_id: &str) -> Option<Arc<Program>> {
        self.linked.lock().get(image_id).and_then(Weak::upgrade)
    }

    /// Links an image, or gives the one that is linked.
    ///
    /// # Errors
    /// When the image imports what the host does not have: the text names it.
    pub(crate) fn link(&self, image_id: &str, artifact: &Artifact) -> wasmtime::Result<Arc<Program>> {
        if let Some(program) = self.linked(image_id) {
            return Ok(program);
        }
        let program = Arc::new(self.make(artifact)?);
        let mut linked = self.linked.lock();
        linked.retain(|_, program| program.strong_count() > 0);
        linked.insert(image_id.to_owned(), Arc::downgrade(&program));
        Ok(program)
    }

    fn make(&self, artifact: &Artifact) -> wasmtime::Result<Program> {
        let config = artifact.config.clone();
        let component = match &artifact.kind {
            ArtifactKind::CoreCommand(module) => {
                let run = Run::Command(CommandPre::Core(self.core.instantiate_pre(module)?));
                return Ok(Program { run, config, hears_stop: false });
            }
            ArtifactKind::Component(component) => component,
        };
        let hears_stop = component
            .component_type()
            .imports(component.engine())
            .any(|(name, _)| name == lifecycle::INTERFACE);
        let run = match artifact.flavor {
            Flavor::HttpP2 => {
                let pre = self.handler.instantiate_pre(component)?;
                Run::Handler(ProxyPre::P2(wasmtime_wasi_http::p2::bindings::ProxyPre::new(pre)?))
            }
            Flavor::HttpP3 => {
                let pre = self.handler.instantiate_pre(component)?;
                Run::Handler(ProxyPre::P3(wasmtime_wasi_http::p3::bindings::ServicePre::new(pre)?))
            }
            Flavor::CommandP3 => {
                let pre = self.command.instantiate_pre(component)?;
                Run::Command(CommandPre::P3(wasmtime_wasi::p3::bindings::CommandPre::new(pre)?))
            }
            Flavor::CommandP2 | Flavor::CoreP1 => {
                let pre = self.command.instantiate_pre(component)?;
                Run::Command(CommandPre::P2(wasmtime_wasi::p2::bindings::CommandPre::new(pre)?))
            }
        };
        Ok(Program { run, config, hears_stop })
    }
}

fn component_linker(engine: &wasmtime::Engine) -> wasmtime::Result<component::Linker<Guest>> {
    let mut linker = component::Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    net::add_to_linker(&mut linker)?;
    lifecycle::add_to_linker(&mut linker)?;
    Ok(linker)
}

fn core_linker(engine: &wasmtime::Engine) -> wasmtime::Result<wasmtime::Linker<CoreGuest>> {
    let mut linker = wasmtime::Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |guest: &mut CoreGuest| &mut guest.wasi)?;
    // The stock function refuses codes from 126 on.
    linker.allow_shadowing(true);
    linker.func_wrap("wasi_snapshot_preview1", "proc_exit", |code: i32| -> wasmtime::Result<()> {
        Err(I32Exit(code & 0xff).into())
    })?;
    linker.allow_shadowing(false);
    Ok(linker)
}
