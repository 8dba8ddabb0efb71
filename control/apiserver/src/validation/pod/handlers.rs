//! Probes and lifecycle hooks.

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use serde_json::Value;

use crate::validation::checks::{Errors, each, not_negative, one_of, port_number_or_name, required};
use crate::validation::view::{int, list, member, part, text};

/// Signals that Linux has; Windows pods know two of them.
const WINDOWS_SIGNALS: &[&str] = &["SIGKILL", "SIGTERM"];

/// What may run: hooks may sleep, probes may speak gRPC.
const HOOK_KINDS: &[&str] = &["exec", "httpGet", "tcpSocket", "sleep"];
const PROBE_KINDS: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc"];

/// The probes and hooks of a container that runs as long as its pod.
pub(super) fn handlers(container: &Value, grace: Option<i64>, path: &FieldPath, out: &mut Errors) {
    if let Some(lifecycle) = part(container, "lifecycle") {
        let path = path.child("lifecycle");
        for hook in ["postStart", "preStop"] {
            if let Some(handler) = part(lifecycle, hook) {
                one_handler(handler, HOOK_KINDS, grace, &path.child(hook), out);
            }
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = part(container, name) {
            one_probe(probe, name, &path.child(name), out);
        }
    }
}

fn one_probe(probe: &Value, name: &str, path: &FieldPath, out: &mut Errors) {
    one_handler(probe, PROBE_KINDS, None, path, out);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        not_negative(int(probe, field).unwrap_or_default(), &path.child(field), out);
    }
    let grace_path = path.child("terminationGracePeriodSeconds");
    let grace = int(probe, "terminationGracePeriodSeconds");
    if let Some(seconds) = grace.filter(|seconds| *seconds <= 0) {
        out.push(FieldError::invalid(&grace_path, seconds, "must be greater than 0"));
    }
    if name == "readinessProbe" {
        if let Some(seconds) = grace {
            out.push(FieldError::invalid(&grace_path, seconds, "must not be set for readinessProbes"));
        }
    } else {
        let threshold = int(probe, "successThreshold").unwrap_or_default();
        if threshold != 1 {
            out.push(FieldError::invalid(&path.child("successThreshold"), threshold, "must be 1"));
        }
    }
}

fn one_handler(handler: &Value, kinds: &[&str], grace: Option<i64>, path: &FieldPath, out: &mut Errors) {
    let mut found = false;
    for kind in kinds {
        let Some(action) = part(handler, kind) else { continue };
        let path = path.child(kind);
        if found {
            out.push(FieldError::forbidden(&path, "may not specify more than 1 handler type"));
            continue;
        }
        found = true;
        match *kind {
            "exec" if list(action, "command").is_empty() => {
                out.push(FieldError::required(&path.child("command"), ""));
            }
            "httpGet" => http_get(action, &path, out),
            "tcpSocket" | "grpc" => port_number_or_name(member(action, "port"), &path.child("port"), out),
            "sleep" => sleep(action, grace, &path, out),
            _ => {}
        }
    }
    if !found {
        out.push(FieldError::required(path, "must specify a handler type"));
    }
}

fn http_get(action: &Value, path: &FieldPath, out: &mut Errors) {
    required(action, "path", path, out);
    port_number_or_name(member(action, "port"), &path.child("port"), out);
    one_of(text(action, "scheme"), &["HTTP", "HTTPS"], &path.child("scheme"), out);
    for header in list(action, "httpHeaders") {
        let name = text(header, "name");
        each(&path.child("httpHeaders"), name, names::is_http_header_name(name), out);
    }
}

fn sleep(action: &Value, grace: Option<i64>, path: &FieldPath, out: &mut Errors) {
    let seconds = int(action, "seconds").unwrap_or_default();
    if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
        let text = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        out.push(FieldError::invalid(path, seconds, text));
    }
}

/// The signal that stops a container: it depends on the pod's system, which must be told.
pub(super) fn stop_signal(container: &Value, os: &str, path: &FieldPath, out: &mut Errors) {
    let signal =
        part(container, "lifecycle").map(|lifecycle| text(lifecycle, "stopSignal")).unwrap_or_default();
    if signal.is_empty() {
        return;
    }
    let path = path.child("lifecycle").child("stopSignal");
    match os {
        "" => {
            out.push(FieldError::forbidden(&path, "may not be set for containers with empty `spec.os.name`"))
        }
        "windows" => one_of(signal, WINDOWS_SIGNALS, &path, out),
        _ if is_linux_signal(signal) => {}
        _ => out.push(FieldError::not_supported(&path, signal, &[])),
    }
}

fn is_linux_signal(signal: &str) -> bool {
    const NAMED: &[&str] = &[
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
        "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
        "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
    ];
    let Some(name) = signal.strip_prefix("SIG") else { return false };
    let real_time = |prefix: &str, most: u8| {
        let number = name.strip_prefix(prefix).filter(|number| !number.starts_with(['0', '+']));
        number.and_then(|number| number.parse::<u8>().ok()).is_some_and(|number| (1..=most).contains(&number))
    };
    NAMED.contains(&name) || real_time("RTMIN+", 15) || real_time("RTMAX-", 14)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    fn found(container: &Value) -> Vec<String> {
        let mut out = Errors::new();
        handlers(container, Some(30), &FieldPath::new("c"), &mut out);
        texts(&out)
    }

    fn with(probe: &Value, change: &Value) -> Value {
        let mut probe = probe.clone();
        for (name, value) in change.as_object().unwrap() {
            probe[name] = value.clone();
        }
        probe
    }

    #[test]
    fn probes() {
        let good = json!({"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "successThreshold": 1});
        for (probe, expected) in [
            (json!({"livenessProbe": good}), vec![]),
            (json!({"readinessProbe": with(&good, &json!({"successThreshold": 3}))}), vec![]),
            (
                json!({"livenessProbe": with(&good, &json!({"successThreshold": 2}))}),
                vec!["c.livenessProbe.successThreshold: Invalid value: 2: must be 1"],
            ),
            (
                json!({"livenessProbe": {"successThreshold": 1}}),
                vec!["c.livenessProbe: Required value: must specify a handler type"],
            ),
            (
                json!({"startupProbe": with(&good, &json!({"exec": {"command": ["a"]}, "timeoutSeconds": -1}))}),
                vec![
                    "c.startupProbe.httpGet: Forbidden: may not specify more than 1 handler type",
                    "c.startupProbe.timeoutSeconds: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            (
                json!({"readinessProbe": with(&good, &json!({"terminationGracePeriodSeconds": 5}))}),
                vec![
                    "c.readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes",
                ],
            ),
            (
                json!({"livenessProbe": with(&good, &json!({"terminationGracePeriodSeconds": 0}))}),
                vec![
                    "c.livenessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0",
                ],
            ),
            (
                json!({"livenessProbe": {"successThreshold": 1,
                    "httpGet": {"port": "", "scheme": "ftp", "httpHeaders": [{"name": "a b"}]}}}),
                vec![
                    "c.livenessProbe.httpGet.path: Required value",
                    r#"c.livenessProbe.httpGet.port: Invalid value: "": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"#,
                    r#"c.livenessProbe.httpGet.port: Invalid value: "": must contain at least one letter (a-z)"#,
                    r#"c.livenessProbe.httpGet.scheme: Unsupported value: "ftp": supported values: "HTTP", "HTTPS""#,
                    r#"c.livenessProbe.httpGet.httpHeaders: Invalid value: "a b": a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')"#,
                ],
            ),
        ] {
            assert_eq!(found(&probe), expected, "{probe}");
        }
    }

    #[test]
    fn hooks() {
        for (lifecycle, expected) in [
            (
                json!({"preStop": {"sleep": {"seconds": 0}}, "postStart": {"exec": {"command": ["a"]}}}),
                vec![],
            ),
            (
                json!({"preStop": {"sleep": {"seconds": 31}}}),
                vec![
                    "c.lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
                ],
            ),
            (json!({"preStop": {"exec": {}}}), vec!["c.lifecycle.preStop.exec.command: Required value"]),
            (
                json!({"postStart": {}}),
                vec!["c.lifecycle.postStart: Required value: must specify a handler type"],
            ),
        ] {
            assert_eq!(found(&json!({"lifecycle": lifecycle})), expected, "{lifecycle}");
        }
    }

    #[test]
    fn stop_signals_belong_to_a_system() {
        for (signal, os, expected) in [
            ("SIGUSR1", "linux", ""),
            ("SIGRTMIN+15", "linux", ""),
            ("SIGRTMIN+16", "linux", r#"c.lifecycle.stopSignal: Unsupported value: "SIGRTMIN+16""#),
            ("TERM", "linux", r#"c.lifecycle.stopSignal: Unsupported value: "TERM""#),
            (
                "SIGTERM",
                "",
                "c.lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`",
            ),
            (
                "SIGHUP",
                "windows",
                r#"c.lifecycle.stopSignal: Unsupported value: "SIGHUP": supported values: "SIGKILL", "SIGTERM""#,
            ),
            ("", "", ""),
        ] {
            let mut out = Errors::new();
            let container = json!({"lifecycle": {"stopSignal": signal}});
            stop_signal(&container, os, &FieldPath::new("c"), &mut out);
            assert_eq!(texts(&out).join("\n"), expected, "{signal} {os}");
        }
    }
}
