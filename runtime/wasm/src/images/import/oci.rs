//! The documents of the OCI image specification (and Docker's, which are nearly the same), as
//! far as they matter here.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::artifact::ImageConfig;

/// Points at a blob.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    pub platform: Option<Platform>,
    #[serde(default, deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
}

/// What an image runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
}

/// A list of images.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ImageIndex {
    #[serde(default, deserialize_with = "nullable")]
    pub manifests: Vec<Descriptor>,
}

/// An image.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub schema_version: u32,
    pub config: Descriptor,
    #[serde(default, deserialize_with = "nullable")]
    pub layers: Vec<Descriptor>,
}

/// A container image's configuration.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    pub config: Execution,
    #[serde(default, deserialize_with = "nullable")]
    pub rootfs: RootFs,
}

/// How a container image is run.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Execution {
    #[serde(default, deserialize_with = "nullable")]
    entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    cmd: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    env: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    working_dir: String,
}

/// The layers' digests when unpacked.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct RootFs {
    #[serde(default, deserialize_with = "nullable")]
    pub diff_ids: Vec<String>,
}

/// Go writes empty lists as `null`.
fn nullable<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Platform {
    /// Whether it is WebAssembly, as one of the several ways to say so puts it.
    pub(super) fn is_wasm(&self) -> bool {
        matches!(self.architecture.as_str(), "wasm" | "wasm32") || self.os.starts_with("wasi")
    }

    /// Whether nothing is said.
    pub(super) fn is_unknown(&self) -> bool {
        let unknown = |part: &str| part.is_empty() || part == "unknown";
        unknown(&self.os) && unknown(&self.architecture)
    }

    /// The later interface first.
    pub(super) fn rank(&self) -> u8 {
        match self.os.as_str() {
            "wasip3" => 0,
            "wasip2" => 1,
            "wasip1" => 2,
            _ => 3,
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

impl Config {
    /// What it runs on.
    pub(super) fn platform(&self) -> Platform {
        Platform { os: self.os.clone(), architecture: self.architecture.clone() }
    }

    /// How it is run.
    pub(super) fn image_config(&self) -> ImageConfig {
        let Execution { entrypoint, cmd, env, working_dir } = self.config.clone();
        let working_dir = Some(working_dir).filter(|directory| !directory.is_empty());
        ImageConfig { entrypoint, cmd, env, working_dir }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_in_several_ways() {
        for text in ["{}", r#"{"config": null, "rootfs": null}"#, r#"{"config": {"Env": null, "Cmd": []}}"#] {
            let config: Config = serde_json::from_str(text).unwrap();
            assert_eq!(config.image_config(), ImageConfig::default(), "{text}");
        }
    }

    #[test]
    fn webassembly_is_said_in_several_ways() {
        for (os, architecture, wasm) in [
            ("wasi", "wasm", true),
            ("wasip2", "wasm", true),
            ("wasip1", "", true),
            ("wasi", "wasm32", true),
            ("linux", "wasm", true),
            ("linux", "amd64", false),
            ("unknown", "unknown", false),
        ] {
            let platform = Platform { os: os.into(), architecture: architecture.into() };
            assert_eq!(platform.is_wasm(), wasm, "{platform}");
        }
    }
}
