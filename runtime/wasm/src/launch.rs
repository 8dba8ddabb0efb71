//! What a container's instances are started with: computed at the first instance, then shared.

use std::sync::Arc;

use sampan_cri::ContainerConfig;
use tokio_util::sync::CancellationToken;
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use crate::artifact::ImageConfig;
use crate::command_line::{ImageDefaults, arguments, environment, working_directory};
use crate::fs::Materialised;
use crate::logs::{Log, Source};
use crate::net::PodNet;
use crate::stdin::Stdin;

/// Arguments, environment and files of a container.
pub(crate) struct Launch {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    working_dir: String,
    /// The container's files on disk.
    pub files: Materialised,
}

/// The image's side of arguments and environment.
#[must_use]
pub(crate) fn defaults(image: &ImageConfig) -> ImageDefaults<'_> {
    ImageDefaults {
        entrypoint: &image.entrypoint,
        cmd: &image.cmd,
        env: &image.env,
        working_dir: image.working_dir.as_deref(),
    }
}

impl Launch {
    /// Puts together what `config` and `image` say.
    #[must_use]
    pub(crate) fn new(
        config: &ContainerConfig,
        image: &ImageConfig,
        hostname: &str,
        files: Materialised,
    ) -> Self {
        let image = defaults(image);
        let working_dir = working_directory(config, image);
        let mut environment = environment(config, image, hostname);
        // Preview 1 has no working directory; what guests know of it is this variable.
        if working_dir != "/" && !environment.iter().any(|(name, _)| name == "PWD") {
            environment.push(("PWD".to_owned(), working_dir.clone()));
        }
        Self { arguments: arguments(config, image), environment, working_dir, files }
    }

    /// A fresh WASI context.
    ///
    /// # Errors
    /// When a directory cannot be opened.
    pub(crate) fn wasi(
        &self,
        net: &Arc<PodNet>,
        log: &Log,
        stdin: Stdin,
    ) -> wasmtime::Result<WasiCtxBuilder> {
        let mut builder = WasiCtxBuilder::new();
        builder
            .args(&self.arguments)
            .envs(&self.environment)
            .initial_cwd(&self.working_dir)
            .stdin(stdin)
            .stdout(log.stream(Source::Stdout))
            .stderr(log.stream(Source::Stderr));
        for directory in &self.files.preopens {
            let permissions = if directory.read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
            builder.preopened_dir(&directory.host, &directory.guest, permissions)?;
        }
        net.configure(&mut builder);
        Ok(builder)
    }
}

/// The standard input that a container's configuration asks for.
#[must_use]
pub(crate) fn stdin(config: &ContainerConfig, stop: &CancellationToken) -> Stdin {
    if config.stdin { Stdin::until(stop.clone()) } else { Stdin::closed() }
}
