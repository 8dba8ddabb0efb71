//! What a compiled image is: the code, how it is run, and what the image says about itself.

use wasmtime::Module;
use wasmtime::component::Component;

use crate::engine::EngineClass;

/// How a module is run, told from its exports: an HTTP handler before a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Flavor {
    /// A component that exports `wasi:http/incoming-handler@0.2`.
    HttpP2,
    /// A component that exports `wasi:http/handler@0.3`.
    HttpP3,
    /// A component that exports `wasi:cli/run@0.2`.
    CommandP2,
    /// A component that exports `wasi:cli/run@0.3`.
    CommandP3,
    /// A core module for preview 1 that exports `_start`.
    CoreP1,
}

impl Flavor {
    /// The engine that runs it.
    #[must_use]
    pub fn engine_class(self) -> EngineClass {
        match self {
            Self::HttpP2 | Self::HttpP3 => EngineClass::Handler,
            Self::CommandP2 | Self::CommandP3 | Self::CoreP1 => EngineClass::Command,
        }
    }
}

/// Compiled code, loaded into the engine of its class.
#[derive(Clone)]
pub enum ArtifactKind {
    /// A core module.
    CoreCommand(Module),
    /// A component.
    Component(Component),
}

/// What the image's configuration says about how it is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImageConfig {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments where the pod gives none.
    pub cmd: Vec<String>,
    /// Environment, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub working_dir: Option<String>,
}

/// An image that is ready to run.
#[derive(Clone)]
pub struct Artifact {
    /// The code.
    pub kind: ArtifactKind,
    /// How it is run.
    pub flavor: Flavor,
    /// What the image says.
    pub config: ImageConfig,
}
