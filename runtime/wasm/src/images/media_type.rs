//! Media types of manifests, configurations and layers, sorted by what they mean here. Pure.

/// What a descriptor in an index points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    /// A list of images.
    Index,
    /// An image.
    Manifest,
    /// Something else.
    Other,
}

/// What an image's configuration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Config {
    /// Of a WebAssembly artifact: it says nothing about how the module is run.
    Wasm,
    /// Of a container image: entrypoint, environment, layers.
    Image,
    /// Of a Spin application.
    Spin,
    /// None.
    Empty,
    /// Something else.
    Other,
}

/// What a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    /// A module as it is.
    Module,
    /// Files, compressed or not (that is told from the bytes).
    Files,
    /// Something that a Spin application serves or reads.
    SpinAsset,
    /// Encrypted.
    Encrypted,
    /// Something else.
    Other,
}

/// The media type of an index.
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of a manifest.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an image's configuration.
pub(crate) const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Parameters (`; charset=…`) and case do not matter.
fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Sorts what an index points at.
pub(crate) fn document(media_type: &str) -> Document {
    match essence(media_type).as_str() {
        INDEX | "application/vnd.docker.distribution.manifest.list.v2+json" => Document::Index,
        MANIFEST | "application/vnd.docker.distribution.manifest.v2+json" => Document::Manifest,
        _ => Document::Other,
    }
}

/// Sorts configurations.
pub(crate) fn config(media_type: &str) -> Config {
    match essence(media_type).as_str() {
        "application/vnd.wasm.config.v0+json" | "application/vnd.wasm.config.v1+json" => Config::Wasm,
        IMAGE_CONFIG | "application/vnd.docker.container.image.v1+json" => Config::Image,
        "application/vnd.fermyon.spin.application.v1+config" => Config::Spin,
        "application/vnd.oci.empty.v1+json" => Config::Empty,
        _ => Config::Other,
    }
}

/// Sorts layers.
pub(crate) fn layer(media_type: &str) -> Layer {
    match essence(media_type).as_str() {
        "application/wasm"
        | "application/vnd.wasm.content.layer.v1+wasm"
        | "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm" => Layer::Module,
        "application/vnd.wasm.content.layer.v1+data" | "application/vnd.wasm.content.bundle.v1.tar+gzip" => {
            Layer::SpinAsset
        }
        "application/vnd.docker.image.rootfs.diff.tar"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        | "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd" => Layer::Files,
        other if other.ends_with("+encrypted") => Layer::Encrypted,
        _ => Layer::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_sorted() {
        for (text, expected) in [
            ("application/vnd.oci.image.index.v1+json", Document::Index),
            ("application/vnd.docker.distribution.manifest.list.v2+json", Document::Index),
            ("application/vnd.oci.image.manifest.v1+json", Document::Manifest),
            ("application/vnd.docker.distribution.manifest.v2+json", Document::Manifest),
            ("application/vnd.docker.distribution.manifest.v1+prettyjws", Document::Other),
            ("", Document::Other),
        ] {
            assert_eq!(document(text), expected, "{text}");
        }
        for (text, expected) in [
            ("application/vnd.wasm.config.v0+json", Config::Wasm),
            ("application/vnd.oci.image.config.v1+json", Config::Image),
            ("application/vnd.docker.container.image.v1+json", Config::Image),
            ("application/vnd.fermyon.spin.application.v1+config", Config::Spin),
            ("application/vnd.oci.empty.v1+json", Config::Empty),
            ("application/vnd.cncf.helm.config.v1+json", Config::Other),
        ] {
            assert_eq!(config(text), expected, "{text}");
        }
        for (text, expected) in [
            ("application/wasm", Layer::Module),
            ("Application/Wasm; x=y", Layer::Module),
            ("application/vnd.wasm.content.layer.v1+wasm", Layer::Module),
            ("application/vnd.bytecodealliance.wasm.component.layer.v0+wasm", Layer::Module),
            ("application/vnd.wasm.content.layer.v1+data", Layer::SpinAsset),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Layer::Files),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Layer::Files),
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", Layer::Encrypted),
            ("application/vnd.cncf.helm.chart.content.v1.tar+gzip", Layer::Other),
        ] {
            assert_eq!(layer(text), expected, "{text}");
        }
    }
}
