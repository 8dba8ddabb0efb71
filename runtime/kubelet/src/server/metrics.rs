//! `GET /metrics/resource`: CPU and memory in Prometheus' text format, named as Kubernetes does.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use super::stats::{self, PodUse};
use crate::manager::Manager;
use crate::node::machine;
use crate::pod::memory::Stage;

pub(super) async fn get(State(manager): State<Arc<Manager>>) -> Response {
    let pods = stats::collect(&manager).await;
    let node = machine::usage();
    let text = render(&pods, &node, Timestamp::now());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

struct Family {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
}

const FAMILIES: [Family; 7] = [
    Family {
        name: "container_cpu_usage_seconds_total",
        help: "Cumulative cpu time consumed by the container in core-seconds",
        kind: "counter",
    },
    Family {
        name: "container_memory_working_set_bytes",
        help: "Current working set of the container in bytes",
        kind: "gauge",
    },
    Family {
        name: "container_start_time_seconds",
        help: "Start time of the container since unix epoch in seconds",
        kind: "gauge",
    },
    Family {
        name: "pod_cpu_usage_seconds_total",
        help: "Cumulative cpu time consumed by the pod in core-seconds",
        kind: "counter",
    },
    Family {
        name: "pod_memory_working_set_bytes",
        help: "Current working set of the pod in bytes",
        kind: "gauge",
    },
    Family {
        name: "node_cpu_usage_seconds_total",
        help: "Cumulative cpu time consumed by the node in core-seconds",
        kind: "counter",
    },
    Family {
        name: "node_memory_working_set_bytes",
        help: "Current working set of the node in bytes",
        kind: "gauge",
    },
];

fn render(pods: &[PodUse], node: &machine::Usage, now: Timestamp) -> String {
    let mut text = String::new();
    let at = now.as_millisecond();
    for family in &FAMILIES {
        let samples = samples(family.name, pods, node);
        if samples.is_empty() {
            continue;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {} {}", family.name, family.help);
        let _ = writeln!(text, "# TYPE {} {}", family.name, family.kind);
        for (labels, value) in samples {
            let _ = writeln!(text, "{}{labels} {value} {at}", family.name);
        }
    }
    text
}

/// Label sets and values of one family. Names of the API need no escaping.
fn samples(family: &str, pods: &[PodUse], node: &machine::Usage) -> Vec<(String, String)> {
    let seconds = |nanos: u64| format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    match family {
        "node_cpu_usage_seconds_total" => vec![(String::new(), seconds(node.cpu_nanos))],
        "node_memory_working_set_bytes" => vec![(String::new(), node.memory_bytes.to_string())],
        "pod_cpu_usage_seconds_total" | "pod_memory_working_set_bytes" => pods
            .iter()
            .map(|pod| {
                let labels = format!("{{namespace=\"{}\",pod=\"{}\"}}", pod.namespace, pod.name);
                let cpu = pod.containers.iter().map(|container| container.stats.cpu_nanos).sum();
                let memory: u64 = pod.containers.iter().map(|container| container.stats.memory_bytes).sum();
                (labels, if family.starts_with("pod_cpu") { seconds(cpu) } else { memory.to_string() })
            })
            .collect(),
        _ => pods
            .iter()
            .flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)))
            .map(|(pod, container)| {
                let labels = format!(
                    "{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}}",
                    container.name, pod.namespace, pod.name
                );
                let value = match family {
                    "container_cpu_usage_seconds_total" => seconds(container.stats.cpu_nanos),
                    "container_memory_working_set_bytes" => container.stats.memory_bytes.to_string(),
                    _ => match &container.record.stage {
                        Stage::Running { started_at } => started_at.as_second().to_string(),
                        _ => "0".into(),
                    },
                };
                (labels, value)
            })
            .collect(),
    }
}
