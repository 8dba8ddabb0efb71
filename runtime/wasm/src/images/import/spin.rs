//! Spin applications: their configuration is a locked application, their layers are the
//! components' modules and assets. An application of one component is a module with an
//! environment; more than that needs Spin.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::error::Fault;
use crate::artifact::ImageConfig;

/// A locked application, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(super) struct Application {
    #[serde(default)]
    components: Vec<Component>,
}

#[derive(Debug, Deserialize)]
struct Component {
    id: String,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    files: Vec<serde_json::Value>,
}

impl Application {
    /// How its component is run.
    pub(super) fn image_config(&self) -> Result<ImageConfig, Fault> {
        let [component] = self.components.as_slice() else {
            let count = self.components.len();
            return Err(Fault::unsupported(format!(
                "it is a Spin application of {count} components; one is supported"
            )));
        };
        if !component.files.is_empty() {
            let id = &component.id;
            return Err(Fault::unsupported(format!(
                "the Spin component {id:?} comes with files; files of images are not supported yet"
            )));
        }
        let env = component.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Ok(ImageConfig { entrypoint: vec![component.id.clone()], env, ..ImageConfig::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_of_one_component_without_files_is_run() {
        for (components, expected) in [
            (r#"[{"id": "a", "env": {"K": "v"}, "source": {}}]"#, Ok("a K=v")),
            ("[]", Err("0 components")),
            (r#"[{"id": "a"}, {"id": "b"}]"#, Err("2 components")),
            (r#"[{"id": "a", "files": [{"path": "/x"}]}]"#, Err("\"a\" comes with files")),
        ] {
            let text = format!(r#"{{"spin_lock_version": 1, "components": {components}}}"#);
            let config = serde_json::from_str::<Application>(&text).unwrap().image_config();
            match (config, expected) {
                (Ok(config), Ok(expected)) => {
                    assert_eq!(format!("{} {}", config.entrypoint.join(" "), config.env.join(" ")), expected);
                }
                (Err(Fault::Unsupported(why)), Err(part)) => assert!(why.contains(part), "{why}"),
                (other, _) => panic!("{components}: {other:?}"),
            }
        }
    }
}
