//! A pod's phase, from its containers' states. Pure.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::restart::{Policy, pod_policy};
use super::spec::{self, Role};

#[derive(Default)]
struct Count {
    unknown: usize,
    pending_init: usize,
    failed_init: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    succeeded: usize,
}

/// The phase. `ended`: no container of the pod will run again.
pub fn phase(pod: &Pod, init: &[ContainerStatus], main: &[ContainerStatus], ended: bool) -> &'static str {
    let mut count = Count::default();
    for (role, container) in spec::init_containers(pod) {
        let status = init.iter().find(|status| status.name == container.name);
        match role {
            Role::Sidecar => count.sidecar(status),
            _ => count.init(status, pod),
        }
    }
    for container in spec::main_containers(pod) {
        count.main(main.iter().find(|status| status.name == container.name));
    }
    decide(&count, pod_policy(pod), ended)
}

fn decide(count: &Count, policy: Policy, ended: bool) -> &'static str {
    if count.failed_init > 0 && (policy == Policy::Never || ended) && count.running == 0 {
        return "Failed";
    }
    if ended && count.running == 0 {
        // A pod that never came to run anything has not succeeded.
        return if count.stopped > 0
            && count.stopped == count.succeeded
            && count.waiting == 0
            && count.unknown == 0
        {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    if count.pending_init > 0 || count.waiting > 0 {
        return "Pending";
    }
    if count.running > 0 && count.unknown == 0 {
        return "Running";
    }
    if count.running == 0 && count.stopped > 0 && count.unknown == 0 {
        return match policy {
            Policy::Always => "Running",
            _ if count.stopped == count.succeeded => "Succeeded",
            Policy::Never => "Failed",
            Policy::OnFailure => "Running",
        };
    }
    "Pending"
}

impl Count {
    fn init(&mut self, status: Option<&ContainerStatus>, pod: &Pod) {
        let Some(state) = status.and_then(|status| status.state.as_ref()) else {
            self.pending_init += 1;
            return;
        };
        if let Some(terminated) = &state.terminated {
            if terminated.exit_code != 0 {
                if pod_policy(pod) == Policy::Never {
                    self.failed_init += 1;
                } else {
                    self.pending_init += 1;
                }
            }
        } else {
            self.pending_init += 1;
        }
    }

    fn sidecar(&mut self, status: Option<&ContainerStatus>) {
        let Some(status) = status else {
            self.unknown += 1;
            return;
        };
        let Some(state) = &status.state else { return };
        if state.running.is_some() {
            if status.started != Some(true) {
                self.pending_init += 1;
            }
            self.running += 1;
        } else if state.waiting.is_some() && last_exit(status).is_none() {
            self.waiting += 1;
        }
    }

    fn main(&mut self, status: Option<&ContainerStatus>) {
        let Some((status, state)) = status.and_then(|status| Some((status, status.state.as_ref()?))) else {
            self.unknown += 1;
            return;
        };
        if state.running.is_some() {
            self.running += 1;
        } else if let Some(terminated) = &state.terminated {
            self.stopped += 1;
            if terminated.exit_code == 0 {
                self.succeeded += 1;
            }
        } else if last_exit(status).is_some() {
            self.stopped += 1;
        } else {
            self.waiting += 1;
        }
    }
}

fn last_exit(status: &ContainerStatus) -> Option<i32> {
    status.last_state.as_ref()?.terminated.as_ref().map(|terminated| terminated.exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(policy: &str) -> Pod {
        serde_json::from_value(json!({ "spec": {
            "restartPolicy": policy,
            "initContainers": [{ "name": "i" }],
            "containers": [{ "name": "a" }, { "name": "b" }]
        }}))
        .unwrap()
    }

    fn status(name: &str, state: Value, last: Value) -> ContainerStatus {
        serde_json::from_value(json!({
            "name": name, "image": "x", "imageID": "", "ready": false, "restartCount": 0,
            "state": state, "lastState": last
        }))
        .unwrap()
    }

    fn exited(code: i32) -> Value {
        json!({ "terminated": { "exitCode": code } })
    }

    #[test]
    fn the_phase_follows_the_containers() {
        let running = json!({ "running": {} });
        let waiting = json!({ "waiting": { "reason": "ContainerCreating" } });
        let none = json!({});
        // policy, init, a (state, last), b (state, last), ended, phase
        let cases = [
            ("Always", exited(0), (&running, &none), (&running, &none), false, "Running"),
            ("Always", exited(0), (&running, &none), (&waiting, &none), false, "Pending"),
            ("Always", exited(0), (&running, &none), (&waiting, &exited(1)), false, "Running"),
            ("Always", exited(0), (&waiting, &exited(1)), (&waiting, &exited(1)), false, "Running"),
            ("Always", running.clone(), (&waiting, &none), (&waiting, &none), false, "Pending"),
            ("Always", exited(1), (&waiting, &none), (&waiting, &none), false, "Pending"),
            ("Never", exited(1), (&waiting, &none), (&waiting, &none), true, "Failed"),
            ("Never", exited(0), (&exited(0), &none), (&exited(0), &none), true, "Succeeded"),
            ("Never", exited(0), (&exited(0), &none), (&exited(1), &none), true, "Failed"),
            ("OnFailure", exited(0), (&exited(0), &none), (&exited(1), &none), false, "Running"),
            ("OnFailure", exited(0), (&exited(0), &none), (&running, &none), false, "Running"),
            ("Always", exited(0), (&exited(0), &none), (&exited(0), &none), true, "Succeeded"),
            ("Always", exited(0), (&exited(143), &none), (&exited(0), &none), true, "Failed"),
            ("Always", waiting.clone(), (&waiting, &none), (&waiting, &none), true, "Failed"),
        ];
        for (policy, init, a, b, ended, want) in cases {
            let init = [status("i", init.clone(), json!({}))];
            let main = [status("a", a.0.clone(), a.1.clone()), status("b", b.0.clone(), b.1.clone())];
            assert_eq!(phase(&pod(policy), &init, &main, ended), want, "{policy} {init:?} {main:?}");
        }
    }
}
