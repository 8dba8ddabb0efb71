//! `GET /containerLogs/{namespace}/{pod}/{container}`.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus};

use super::follow::{self, Subject};
use super::log_options::LogOptions;
use crate::manager::{Manager, Slot};
use crate::pod::container_status::container_id;
use crate::pod::spec;

/// A refusal: its code and its text.
type Refusal = (StatusCode, String);

pub(super) async fn get(
    State(manager): State<Arc<Manager>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
    match open(&manager, &namespace, &pod, &container, &query) {
        Ok((subject, options)) => {
            let body = Body::from_stream(follow::stream(subject, options));
            ([(header::CONTENT_TYPE, "text/plain")], body).into_response()
        }
        Err((code, message)) => (code, message).into_response(),
    }
}

fn open(
    manager: &Manager,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &HashMap<String, String>,
) -> Result<(Subject, LogOptions), Refusal> {
    let bad = |message: String| (StatusCode::BAD_REQUEST, message);
    let options = LogOptions::from_query(query, Timestamp::now()).map_err(bad)?;
    let slot = manager
        .by_name(namespace, pod)
        .ok_or_else(|| (StatusCode::NOT_FOUND, format!("pod \"{pod}\" does not exist\n")))?;
    if spec::container(&slot.pod(), container).is_none() {
        return Err((
            StatusCode::NOT_FOUND,
            format!("container \"{container}\" not found in pod \"{pod}\"\n"),
        ));
    }
    let subject = choose(slot, pod, container, options.previous).map_err(bad)?;
    Ok((subject, options))
}

/// Which of the container's runs is meant.
fn choose(slot: Arc<Slot>, pod: &str, container: &str, previous: bool) -> Result<Subject, String> {
    let status = slot
        .status()
        .and_then(|status| {
            let all = status.init_container_statuses.into_iter().chain(status.container_statuses).flatten();
            all.into_iter().find(|status| status.name == container)
        })
        .ok_or_else(|| format!("container \"{container}\" in pod \"{pod}\" is not available"))?;
    let wanted = wanted_id(&status, pod, previous)?;
    let record = [false, true]
        .into_iter()
        .filter_map(|previous| slot.record(container, previous))
        .find(|record| container_id(record) == wanted)
        .ok_or_else(|| format!("unable to retrieve container logs for {wanted}"))?;
    Ok(Subject { slot, container: container.to_owned(), id: record.id, path: record.log_path })
}

/// The identity of the container whose log is meant, or why there is none.
fn wanted_id(status: &ContainerStatus, pod: &str, previous: bool) -> Result<String, String> {
    let name = &status.name;
    let terminated =
        |state: &Option<ContainerState>| state.as_ref().and_then(|state| state.terminated.clone());
    let last = terminated(&status.last_state).and_then(|terminated| terminated.container_id);
    if previous {
        return last
            .ok_or_else(|| format!("previous terminated container \"{name}\" in pod \"{pod}\" not found"));
    }
    let state = status.state.clone().unwrap_or_default();
    if state.running.is_some() {
        return status
            .container_id
            .clone()
            .ok_or_else(|| format!("container \"{name}\" in pod \"{pod}\" is not available"));
    }
    if let Some(terminated) = state.terminated {
        return terminated
            .container_id
            .or(last)
            .ok_or_else(|| format!("container \"{name}\" in pod \"{pod}\" is terminated"));
    }
    if let Some(last) = last {
        return Ok(last);
    }
    let waiting = format!("container \"{name}\" in pod \"{pod}\" is waiting to start");
    match state.waiting.and_then(|waiting| waiting.reason).as_deref() {
        Some("ErrImagePull") => Err(format!("{waiting}: image can't be pulled")),
        Some("ImagePullBackOff") => Err(format!("{waiting}: trying and failing to pull image")),
        Some(reason) => Err(format!("{waiting}: {reason}")),
        None => Err(format!("{waiting} - no logs yet")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn wanted(state: Value, last: Value, previous: bool) -> Result<String, String> {
        let status: ContainerStatus = serde_json::from_value(json!({
            "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "containerID": "wasm://now", "state": state, "lastState": last
        }))
        .unwrap();
        wanted_id(&status, "p", previous)
    }

    #[test]
    fn the_right_run_is_chosen_or_the_reason_told() {
        let ended = |id: &str| json!({ "terminated": { "exitCode": 0, "containerID": id } });
        let waiting = |reason: &str| json!({ "waiting": { "reason": reason } });
        let running = json!({ "running": {} });
        let why = |tail: &str| Err(format!("container \"c\" in pod \"p\" is waiting to start: {tail}"));
        for (state, last, previous, want) in [
            (running.clone(), json!({}), false, Ok("wasm://now".to_owned())),
            (running.clone(), ended("wasm://old"), true, Ok("wasm://old".into())),
            (
                running,
                json!({}),
                true,
                Err("previous terminated container \"c\" in pod \"p\" not found".into()),
            ),
            (ended("wasm://e"), json!({}), false, Ok("wasm://e".into())),
            (waiting("CrashLoopBackOff"), ended("wasm://old"), false, Ok("wasm://old".into())),
            (waiting("ContainerCreating"), json!({}), false, why("ContainerCreating")),
            (waiting("ErrImagePull"), json!({}), false, why("image can't be pulled")),
            (waiting("ImagePullBackOff"), json!({}), false, why("trying and failing to pull image")),
            (
                json!({}),
                json!({}),
                false,
                Err("container \"c\" in pod \"p\" is waiting to start - no logs yet".into()),
            ),
        ] {
            assert_eq!(wanted(state.clone(), last, previous), want, "{state}");
        }
    }
}
