//! `/healthz`, `/livez`, `/readyz`: one line of text, a line a check with `?verbose`, and each check
//! by its name below them.

use std::time::Duration;

use http::{Response, StatusCode};
use sampan_api::status::Status;
use sampan_store::RangeRequest;

use crate::body::Body;
use crate::cacher::ROOT;
use crate::core::Core;
use crate::endpoints::{Call, respond};

/// How long a check may take.
const DEADLINE: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// We answer at all.
    Ping,
    /// The store answers.
    Store,
    /// The watch cache keeps up with the store.
    WatchCache,
    /// We are not going down.
    Shutdown,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Store => "store",
            Self::WatchCache => "watch-cache",
            Self::Shutdown => "shutdown",
        }
    }

    /// The checks behind an endpoint: a server that is only behind or going down must not be killed.
    fn of(endpoint: &str) -> &'static [Self] {
        match endpoint {
            "livez" => &[Self::Ping, Self::Store],
            "readyz" => &[Self::Ping, Self::Store, Self::WatchCache, Self::Shutdown],
            _ => &[Self::Ping, Self::Store, Self::WatchCache],
        }
    }

    async fn run(self, core: &Core) -> bool {
        let work = async {
            match self {
                Self::Ping => true,
                Self::Store => core.storage.range(RangeRequest::key(ROOT)).await.is_ok(),
                Self::WatchCache => core.caches.wait_current().await.is_ok(),
                Self::Shutdown => !core.shutdown.is_cancelled(),
            }
        };
        tokio::time::timeout(DEADLINE, work).await.unwrap_or(false)
    }
}

/// Answers a health endpoint, or one check of it.
pub(super) async fn serve(call: &Call, endpoint: &str, rest: &[&str]) -> Result<Response<Body>, Status> {
    let all = Check::of(endpoint);
    let checks: Vec<Check> = match rest {
        [] => {
            let excluded: Vec<&str> = call.query.all("exclude").collect();
            all.iter().copied().filter(|check| !excluded.contains(&check.name())).collect()
        }
        [name] => vec![*all.iter().find(|check| check.name() == *name).ok_or_else(Status::no_such_resource)?],
        _ => return Err(Status::no_such_resource()),
    };
    let mut lines = String::new();
    let mut healthy = true;
    for check in checks {
        let passed = check.run(&call.core).await;
        healthy &= passed;
        let (mark, outcome) = if passed { ("+", "ok") } else { ("-", "failed: reason withheld") };
        lines.push_str(&format!("[{mark}]{} {outcome}\n", check.name()));
    }
    Ok(match (healthy, call.query.flag("verbose")) {
        (true, false) => respond::text(StatusCode::OK, "ok"),
        (true, true) => respond::text(StatusCode::OK, format!("{lines}{endpoint} check passed\n")),
        (false, _) => {
            respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{endpoint} check failed\n"))
        }
    })
}
