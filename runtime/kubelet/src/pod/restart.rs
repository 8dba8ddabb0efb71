//! Whether an ended container runs again: the pod's restart policy, the container's own, and
//! the container's rules by exit code.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::spec::{self, Role};

/// When a container is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Whatever its exit code.
    Always,
    /// When it ended with another code than 0.
    OnFailure,
    /// Not at all.
    Never,
}

impl Policy {
    /// From the API's word; an absent one is the default.
    pub fn parse(word: Option<&str>) -> Self {
        match word {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }
}

/// The pod's policy.
pub fn pod_policy(pod: &Pod) -> Policy {
    Policy::parse(spec::spec(pod).and_then(|spec| spec.restart_policy.as_deref()))
}

/// A container's policy. Init containers of an `Always` pod are retried until they succeed.
pub fn container_policy(pod: &Pod, role: Role, container: &Container) -> Policy {
    match role {
        Role::Sidecar => Policy::Always,
        Role::Init => match container.restart_policy.as_deref() {
            Some("Never") => Policy::Never,
            Some(_) => Policy::OnFailure,
            None if pod_policy(pod) == Policy::Never => Policy::Never,
            None => Policy::OnFailure,
        },
        Role::Main => container
            .restart_policy
            .as_deref()
            .map_or_else(|| pod_policy(pod), |own| Policy::parse(Some(own))),
    }
}

/// Whether a container that ended with `code` runs again.
pub fn restarts(pod: &Pod, role: Role, container: &Container, code: i32) -> bool {
    if role != Role::Sidecar && ruled(container, code) {
        return true;
    }
    match container_policy(pod, role, container) {
        Policy::Always => true,
        Policy::OnFailure => code != 0,
        Policy::Never => false,
    }
}

/// Whether one of the container's rules restarts it for this exit code.
fn ruled(container: &Container, code: i32) -> bool {
    container.restart_policy_rules.iter().flatten().any(|rule| {
        rule.action == "Restart"
            && rule.exit_codes.as_ref().is_some_and(|codes| {
                let listed = codes.values.as_ref().is_some_and(|values| values.contains(&code));
                match codes.operator.as_str() {
                    "In" => listed,
                    "NotIn" => !listed,
                    _ => false,
                }
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({ "spec": value })).unwrap()
    }

    #[test]
    fn the_policy_decides_by_exit_code() {
        for (policy, zero, one) in
            [("Always", true, true), ("OnFailure", false, true), ("Never", false, false)]
        {
            let pod = pod(serde_json::json!({
                "restartPolicy": policy, "containers": [{ "name": "a" }],
                "initContainers": [{ "name": "i" }, { "name": "s", "restartPolicy": "Always" }]
            }));
            let (role, main) = spec::container(&pod, "a").unwrap();
            assert_eq!(
                (restarts(&pod, role, main, 0), restarts(&pod, role, main, 1)),
                (zero, one),
                "{policy}"
            );
            let (role, init) = spec::container(&pod, "i").unwrap();
            assert!(!restarts(&pod, role, init, 0), "an init container that ended well is done");
            assert_eq!(restarts(&pod, role, init, 1), policy != "Never", "{policy}");
            let (role, sidecar) = spec::container(&pod, "s").unwrap();
            assert!(restarts(&pod, role, sidecar, 0) && restarts(&pod, role, sidecar, 1));
        }
    }

    #[test]
    fn a_containers_own_policy_and_rules_come_before_the_pods() {
        let pod = pod(serde_json::json!({
            "restartPolicy": "Never",
            "containers": [
                { "name": "own", "restartPolicy": "OnFailure" },
                { "name": "ruled", "restartPolicy": "Never", "restartPolicyRules": [
                    { "action": "Restart", "exitCodes": { "operator": "In", "values": [42] } }
                ] }
            ]
        }));
        let (role, own) = spec::container(&pod, "own").unwrap();
        assert!(restarts(&pod, role, own, 1) && !restarts(&pod, role, own, 0));
        let (role, ruled) = spec::container(&pod, "ruled").unwrap();
        assert!(restarts(&pod, role, ruled, 42) && !restarts(&pod, role, ruled, 1));
    }
}
