//! Authorization: may this user do this?

use sampan_api::field::go_quote;
use sampan_api::status::{Status, StatusDetails};

use crate::auth::{Attributes, Decision, UserInfo};
use crate::endpoints::Call;
use crate::endpoints::request_info::RequestInfo;

/// Lets the call through, or refuses it with 403.
pub(super) async fn check(call: &Call) -> Result<(), Status> {
    let info = &call.info;
    let attributes = if info.is_resource {
        Attributes::Resource {
            verb: &info.verb,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
        }
    } else {
        Attributes::Path { verb: &info.verb, path: &info.path }
    };
    match call.core.authorizer.authorize(&call.user, &attributes).await {
        Decision::Allow(_) => Ok(()),
        Decision::NoOpinion => Err(forbidden(&call.user, info)),
        Decision::Deny(why) => {
            let mut status = forbidden(&call.user, info);
            status.message = format!("{}: {why}", status.message);
            Err(status)
        }
    }
}

/// 403 in Kubernetes' words.
fn forbidden(user: &UserInfo, info: &RequestInfo) -> Status {
    let who = go_quote(&user.name);
    if !info.is_resource {
        let message = format!("forbidden: User {who} cannot {} path {}", info.verb, go_quote(&info.path));
        return Status::failure(403, "Forbidden", message).with_details(StatusDetails::default());
    }
    let qualified = if info.group.is_empty() {
        info.resource.clone()
    } else {
        format!("{}.{}", info.resource, info.group)
    };
    let subject =
        if info.name.is_empty() { qualified } else { format!("{qualified} {}", go_quote(&info.name)) };
    let scope = match info.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {}", go_quote(namespace)),
    };
    let message = format!(
        "{subject} is forbidden: User {who} cannot {} resource {} in API group {} {scope}",
        info.verb,
        go_quote(&info.resource_path()),
        go_quote(&info.group)
    );
    Status::failure(403, "Forbidden", message).with_details(StatusDetails {
        name: info.name.clone(),
        group: info.group.clone(),
        kind: info.resource.clone(),
        ..StatusDetails::default()
    })
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::endpoints::query::Query;

    #[test]
    fn refusals_read_as_kubernetes_writes_them() {
        let user = UserInfo::new("jane", []);
        for (method, path, text) in [
            (
                Method::GET,
                "/api/v1/namespaces/default/pods",
                "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
            ),
            (
                Method::GET,
                "/api/v1/namespaces/default/pods/a/log",
                "pods \"a\" is forbidden: User \"jane\" cannot get resource \"pods/log\" in API group \"\" in the namespace \"default\"",
            ),
            (
                Method::POST,
                "/api/v1/nodes",
                "nodes is forbidden: User \"jane\" cannot create resource \"nodes\" in API group \"\" at the cluster scope",
            ),
            (Method::GET, "/metrics", "forbidden: User \"jane\" cannot get path \"/metrics\""),
        ] {
            let info = RequestInfo::parse(&method, path, &Query::default());
            assert_eq!(forbidden(&user, &info).message, text);
        }
    }
}
