//! The command line made into settings: defaults filled in, everything checked before anything starts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Taint;

use crate::args::ClusterArgs;
use crate::data_dir;
use crate::error::CommandError;
use crate::node_name;

/// Whether a cluster is for trying things out or for service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// On a laptop, for one user.
    Dev,
    /// In production.
    Server,
}

/// What a cluster is started with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) data_dir: PathBuf,
    pub(crate) bind_address: IpAddr,
    pub(crate) port: u16,
    pub(crate) advertise_address: Option<IpAddr>,
    pub(crate) tls_san: Vec<String>,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) kubeconfig_mode: u32,
    pub(crate) cluster_cidr: Ipv4Net,
    pub(crate) service_cidr: Ipv4Net,
    pub(crate) node_name: String,
    pub(crate) node_ip: Option<IpAddr>,
    pub(crate) node_labels: BTreeMap<String, String>,
    pub(crate) node_taints: Vec<Taint>,
    pub(crate) max_pods: u32,
    pub(crate) agent: bool,
    pub(crate) audit_log: Option<PathBuf>,
    pub(crate) log_level: String,
}

impl Settings {
    /// Fills in the defaults of a mode and checks what was given.
    pub(crate) fn new(mode: Mode, args: ClusterArgs) -> Result<Self, CommandError> {
        let data_dir = data_dir::choose(mode, args.data.data_dir)?;
        let (loopback, level, kubeconfig) = match mode {
            Mode::Dev => (Ipv4Addr::LOCALHOST, "warn", data_dir.join("kubeconfig.yaml")),
            Mode::Server => (Ipv4Addr::UNSPECIFIED, "info", PathBuf::from("/etc/sampan/sampan.yaml")),
        };
        if overlap(&args.cluster_cidr, &args.service_cidr) {
            return Err(CommandError::new(format!(
                "--cluster-cidr {} and --service-cidr {} overlap; choose ranges apart from each other",
                args.cluster_cidr, args.service_cidr
            )));
        }
        Ok(Self {
            mode,
            bind_address: args.bind_address.unwrap_or(loopback.into()),
            port: args.https_listen_port,
            advertise_address: args.advertise_address,
            tls_san: args.tls_san,
            kubeconfig: args.write_kubeconfig.unwrap_or(kubeconfig),
            kubeconfig_mode: args.write_kubeconfig_mode,
            cluster_cidr: args.cluster_cidr.trunc(),
            service_cidr: args.service_cidr.trunc(),
            node_name: node_name::choose(args.node_name.as_deref())?,
            node_ip: args.node_ip,
            node_labels: labels(&args.node_label)?,
            node_taints: taints(&args.node_taint)?,
            max_pods: args.max_pods,
            agent: !args.disable_agent,
            audit_log: args.audit_log_path,
            log_level: args.log_level.unwrap_or_else(|| level.to_owned()),
            data_dir,
        })
    }
}

fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn labels(given: &[String]) -> Result<BTreeMap<String, String>, CommandError> {
    given
        .iter()
        .map(|text| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            let mut mistakes = sampan_api::names::is_qualified_name(key);
            mistakes.extend(sampan_api::names::is_label_value(value));
            match mistakes.first() {
                None => Ok((key.to_owned(), value.to_owned())),
                Some(mistake) => Err(CommandError::new(format!("--node-label {text:?}: {mistake}"))),
            }
        })
        .collect()
}

fn taints(given: &[String]) -> Result<Vec<Taint>, CommandError> {
    given
        .iter()
        .map(|text| {
            let wrong = |what: &str| CommandError::new(format!("--node-taint {text:?}: {what}"));
            let (pair, effect) =
                text.rsplit_once(':').ok_or_else(|| wrong("must be KEY=VALUE:EFFECT or KEY:EFFECT"))?;
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let mut mistakes = sampan_api::names::is_qualified_name(key);
            mistakes.extend(sampan_api::names::is_label_value(value));
            if let Some(mistake) = mistakes.first() {
                return Err(wrong(mistake));
            }
            if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
                return Err(wrong("the effect must be NoSchedule, PreferNoSchedule or NoExecute"));
            }
            Ok(Taint {
                key: key.to_owned(),
                value: (!value.is_empty()).then(|| value.to_owned()),
                effect: effect.to_owned(),
                time_added: None,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_and_labels_are_checked() {
        let one = |text: &str| taints(&[text.to_owned()]);
        assert_eq!(one("a=b:NoSchedule").unwrap()[0].value.as_deref(), Some("b"));
        assert_eq!(one("a:NoExecute").unwrap()[0].value, None);
        for wrong in ["a", "a=b:Sometimes", "a b:NoSchedule", ":NoSchedule"] {
            assert!(one(wrong).is_err(), "{wrong}");
        }
        assert!(labels(&["a/b/c=d".to_owned()]).is_err());
        assert_eq!(labels(&["a=b".to_owned()]).unwrap()["a"], "b");
    }

    #[test]
    fn overlapping_ranges_are_seen() {
        let net = |text: &str| text.parse().unwrap();
        assert!(overlap(&net("10.0.0.0/8"), &net("10.43.0.0/16")));
        assert!(!overlap(&net("10.42.0.0/16"), &net("10.43.0.0/16")));
    }
}
