//! The images that this program brings along.

use std::sync::LazyLock;

use crate::artifact::{Digest, Flavor, ImageConfig, ModuleBytes, ModuleSource};

/// An image in the program.
pub(crate) struct Embedded {
    /// Its name in full.
    pub name: &'static str,
    /// Its module; the module's digest is the image's identity.
    pub module: ModuleSource,
    /// The module's size.
    pub size: u64,
    /// What it says about how it is run.
    pub config: ImageConfig,
}

macro_rules! module {
    ($file:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../modules/dist/", $file))
    };
}

/// Name, program and module.
static MODULES: [(&str, &str, Flavor, &[u8]); 2] = [
    ("docker.io/sampan/hello:latest", "hello", Flavor::CommandP2, module!("hello.wasm")),
    ("docker.io/sampan/hello-http:latest", "hello-http", Flavor::HttpP2, module!("hello-http.wasm")),
];

static IMAGES: LazyLock<Vec<Embedded>> = LazyLock::new(|| {
    let image = |(name, program, flavor, bytes): &(&'static str, &str, Flavor, &'static [u8])| Embedded {
        name,
        module: ModuleSource {
            digest: Digest::of(bytes),
            flavor: *flavor,
            bytes: ModuleBytes::Embedded(bytes),
        },
        size: bytes.len() as u64,
        config: ImageConfig { entrypoint: vec![(*program).to_owned()], ..ImageConfig::default() },
    };
    MODULES.iter().map(image).collect()
});

/// All of them.
pub(crate) fn all() -> &'static [Embedded] {
    &IMAGES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::detect;
    use crate::images::Reference;

    #[test]
    fn embedded_modules_are_what_they_are_said_to_be() {
        for image in all() {
            assert_eq!(
                detect(&image.module.bytes.read().unwrap()),
                Ok(image.module.flavor),
                "{}",
                image.name
            );
            assert_eq!(image.name.parse::<Reference>().unwrap().to_string(), image.name);
        }
    }
}
