//! The routes: what each takes and answers. Who may call which is the API server's authorizer's to
//! say, but for what a server may do to itself (see `members`).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Path, State};
use axum::routing::{delete, get, post};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use jiff::Timestamp;
use sampan_api::status::Status;
use sampan_apiserver::{Body, UserInfo};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Inner, authorities, enrollment, members, snapshot};
use crate::wire::Time;

/// The largest request.
const MAX_BODY: usize = 256 << 10;
/// How long a request's body may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

type Shared = State<Arc<Inner>>;
type User = Extension<UserInfo>;

pub(super) fn router(inner: Arc<Inner>) -> Router {
    Router::new()
        .route("/sampan/v1/ca", get(ca))
        .route("/sampan/v1/time", get(time))
        .route("/sampan/v1/enroll", post(enroll))
        .route("/sampan/v1/renew", post(renew))
        .route("/sampan/v1/tokens", get(list_tokens).post(create_token))
        .route("/sampan/v1/tokens/{id}", delete(revoke_token))
        .route("/sampan/v1/members", get(list_members).post(add_member))
        .route("/sampan/v1/members/{member}", delete(remove_member).put(update_member))
        .route("/sampan/v1/members/{member}/promote", post(promote_member))
        .route("/sampan/v1/nodes/{node}", delete(remove_node))
        .route("/sampan/v1/certificates", get(rotation_status))
        .route("/sampan/v1/certificates/rotate", post(rotate))
        .route("/sampan/v1/snapshot", get(take_snapshot))
        .fallback(async || refusal(&Status::no_such_resource()))
        .method_not_allowed_fallback(async || refusal(&Status::method_not_allowed()))
        .with_state(inner)
}

async fn ca(State(inner): Shared, Extension(user): User, request: Request<Body>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default();
    let holds = query.split('&').find_map(|pair| pair.strip_prefix("holds="));
    let work = async {
        if let Some(holds) = holds {
            let generation =
                holds.parse().map_err(|_| Status::bad_request("holds= is a number: a generation"))?;
            authorities::acknowledge(&inner, &user, generation).await?;
        }
        Ok(authorities::public(&inner))
    };
    answer(StatusCode::OK, work.await)
}

async fn time() -> Response<Body> {
    answer(StatusCode::OK, Ok(Time { unix_millis: Timestamp::now().as_millisecond() }))
}

async fn enroll(State(inner): Shared, request: Request<Body>) -> Response<Body> {
    let work = async { enrollment::enroll(&inner, read(request).await?).await };
    answer(StatusCode::CREATED, work.await)
}

async fn renew(State(inner): Shared, request: Request<Body>) -> Response<Body> {
    let work = async { enrollment::renew(&inner, read(request).await?).await };
    answer(StatusCode::CREATED, work.await)
}

async fn list_tokens(State(inner): Shared) -> Response<Body> {
    answer(StatusCode::OK, inner.tokens.list(Timestamp::now()).await)
}

async fn create_token(State(inner): Shared, request: Request<Body>) -> Response<Body> {
    let work = async { inner.create_token(&read(request).await?).await };
    answer(StatusCode::CREATED, work.await)
}

async fn revoke_token(State(inner): Shared, Path(id): Path<String>) -> Response<Body> {
    answer(StatusCode::OK, inner.tokens.revoke(&id).await)
}

async fn list_members(State(inner): Shared) -> Response<Body> {
    answer(StatusCode::OK, members::list(&inner).await)
}

async fn add_member(State(inner): Shared, Extension(user): User, request: Request<Body>) -> Response<Body> {
    let work = async { members::add(&inner, &user, read(request).await?).await };
    answer(StatusCode::CREATED, work.await)
}

async fn update_member(
    State(inner): Shared,
    Path(member): Path<String>,
    Extension(user): User,
    request: Request<Body>,
) -> Response<Body> {
    let work = async { members::update(&inner, &user, &member, read(request).await?).await };
    answer(StatusCode::OK, work.await)
}

async fn promote_member(
    State(inner): Shared,
    Path(member): Path<String>,
    Extension(user): User,
) -> Response<Body> {
    answer(StatusCode::OK, members::promote(&inner, &user, &member).await)
}

async fn remove_member(
    State(inner): Shared,
    Path(member): Path<String>,
    Extension(user): User,
) -> Response<Body> {
    answer(StatusCode::OK, members::remove(&inner, &user, &member).await)
}

async fn remove_node(
    State(inner): Shared,
    Path(node): Path<String>,
    Extension(user): User,
) -> Response<Body> {
    answer(StatusCode::OK, members::remove_node(&inner, &user, &node).await)
}

async fn rotation_status(State(inner): Shared) -> Response<Body> {
    answer(StatusCode::OK, authorities::status(&inner).await)
}

async fn rotate(State(inner): Shared) -> Response<Body> {
    answer(StatusCode::OK, authorities::rotate(&inner).await)
}

async fn take_snapshot(State(inner): Shared) -> Response<Body> {
    let mut response = Response::new(snapshot::stream(Arc::clone(&inner.config.storage)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}

/// A request's body, which is JSON.
async fn read<T: DeserializeOwned>(request: Request<Body>) -> Result<T, Status> {
    let body = axum::body::to_bytes(request.into_body(), MAX_BODY);
    let body = tokio::time::timeout(PATIENCE, body)
        .await
        .map_err(|_| Status::timeout("Timeout: the request's body did not come in time"))?
        .map_err(|error| {
            Status::bad_request(format!(
                "the request's body cannot be read, or has more than {MAX_BODY} bytes: {error}"
            ))
        })?;
    serde_json::from_slice(&body).map_err(|error| Status::bad_request(format!("the request's body: {error}")))
}

fn answer<T: Serialize>(code: StatusCode, outcome: Result<T, Status>) -> Response<Body> {
    let text = outcome.and_then(|value| {
        serde_json::to_vec(&value)
            .map_err(|error| Status::internal(format!("the answer cannot be written: {error}")))
    });
    match text {
        Ok(text) => json(code, text),
        Err(status) => refusal(&status),
    }
}

fn refusal(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // A Status is plain data: it always has a JSON.
    json(code, serde_json::to_vec(status).unwrap_or_default())
}

fn json(code: StatusCode, text: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
