//! Metrics: one recorder for the process, rendered as Prometheus text.

use std::sync::OnceLock;
use std::time::Duration;

use http::StatusCode;
use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use sampan_api::scheme;

use crate::core::Core;
use crate::endpoints::request_info::RequestInfo;

const REQUESTS: &str = "apiserver_request_total";
const LATENCY: &str = "apiserver_request_duration_seconds";
const BUCKETS: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// How often samples are folded into their buckets when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(30);

/// The process's recorder. Where another one was installed before, there is nothing to render.
fn handle() -> Option<&'static PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let made = HANDLE.get_or_init(|| {
        let builder =
            PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), BUCKETS);
        let recorder = builder.ok()?.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok().map(|()| handle)
    });
    made.as_ref()
}

/// Installs the recorder, and keeps it small until `shutdown`.
pub(crate) fn start(shutdown: tokio_util::sync::CancellationToken) {
    let Some(handle) = handle() else { return };
    tokio::spawn(async move {
        while tokio::time::timeout(UPKEEP, shutdown.cancelled()).await.is_err() {
            handle.run_upkeep();
        }
    });
}

/// The metrics as Prometheus text.
pub(crate) fn render(core: &Core) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a floating point number")]
    let float = |value: u64| value as f64;
    gauge!("sampan_store_revision").set(float(core.storage.revision().0));
    gauge!("sampan_watch_cache_revision").set(float(core.caches.progress()));
    for registry in core.registries.all() {
        let (objects, watchers) = registry.cacher().counts();
        let resource = registry.resource().plural;
        gauge!("apiserver_resource_objects", "resource" => resource).set(float(objects as u64));
        gauge!("apiserver_registered_watchers", "resource" => resource).set(float(watchers as u64));
    }
    let mut text = handle().map(PrometheusHandle::render).unwrap_or_default();
    if let Some(figures) = &core.figures {
        text.push_str(&figures());
    }
    text
}

/// What a request is counted as. Only names that we serve become labels, so that nobody can make
/// up new ones.
pub(crate) struct Labels {
    verb: &'static str,
    resource: &'static str,
    subresource: &'static str,
    group: &'static str,
    long_running: bool,
}

impl Labels {
    /// The labels of a request.
    pub(crate) fn of(info: &RequestInfo) -> Self {
        let verb = scheme::Verb::parse(&info.verb).map_or("other", scheme::Verb::as_str);
        let resource = scheme::by_gvr(&info.group, &info.version, &info.resource);
        let subresource = resource.and_then(|r| r.subresource(&info.subresource)).map_or("", |s| s.name);
        Self {
            verb,
            resource: resource.map_or("", |r| r.plural),
            subresource,
            group: resource.map_or("", |r| r.group),
            long_running: info.verb == "watch",
        }
    }

    /// Counts an answer.
    pub(crate) fn record(&self, code: StatusCode, took: Duration) {
        let labels = [
            ("verb", self.verb.to_owned()),
            ("group", self.group.to_owned()),
            ("resource", self.resource.to_owned()),
            ("subresource", self.subresource.to_owned()),
        ];
        let mut counted = labels.to_vec();
        counted.push(("code", code.as_u16().to_string()));
        counter!(REQUESTS, &counted).increment(1);
        if !self.long_running {
            histogram!(LATENCY, &labels).record(took.as_secs_f64());
        }
    }
}
