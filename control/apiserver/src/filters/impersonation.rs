//! Impersonation: administrators may act as somebody else (`kubectl --as`), nobody else may.

use std::collections::BTreeMap;

use http::HeaderMap;
use sampan_api::field::go_quote;
use sampan_api::status::{Status, StatusDetails};

use crate::auth::{ALL_AUTHENTICATED, MASTERS, UserInfo};
use crate::endpoints::Call;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// Replaces the call's user by the one that its headers name; the new user's name, if there is one.
pub(super) fn apply(call: &mut Call) -> Result<Option<String>, Status> {
    let Some(wanted) = read(&call.headers)? else { return Ok(None) };
    if !call.user.in_group(MASTERS) {
        return Err(refuse(&call.user, &wanted));
    }
    let name = wanted.name.clone();
    call.user = wanted;
    Ok(Some(name))
}

/// Whom the headers name.
fn read(headers: &HeaderMap) -> Result<Option<UserInfo>, Status> {
    let one = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA), value.to_str()) {
            let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
            extra.entry(key).or_default().push(value.to_owned());
        }
    }
    let mut groups: Vec<String> =
        headers.get_all(GROUP).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect();
    let (name, uid) = (one(USER), one(UID));
    if name.is_empty() {
        return if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            Ok(None)
        } else {
            Err(Status::internal("requested impersonation without impersonating a user"))
        };
    }
    if groups.is_empty()
        && let Some(rest) = name.strip_prefix("system:serviceaccount:")
        && let Some((namespace, _)) = rest.split_once(':')
    {
        groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    }
    if name != "system:anonymous" && !groups.iter().any(|g| g == ALL_AUTHENTICATED) {
        groups.push(ALL_AUTHENTICATED.into());
    }
    Ok(Some(UserInfo { name: name.to_owned(), uid: uid.to_owned(), groups, extra }))
}

fn refuse(user: &UserInfo, wanted: &UserInfo) -> Status {
    let message = format!(
        "users {} is forbidden: User {} cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
        go_quote(&wanted.name),
        go_quote(&user.name)
    );
    Status::failure(403, "Forbidden", message).with_details(StatusDetails {
        name: wanted.name.clone(),
        kind: "users".into(),
        ..StatusDetails::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, http::HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn headers_name_a_user_with_groups() {
        let user =
            read(&headers(&[(USER, "jane"), (GROUP, "a"), (GROUP, "b"), ("impersonate-extra-x%2fy", "z")]));
        let user = user.unwrap().unwrap();
        assert_eq!(user.name, "jane");
        assert_eq!(user.groups, ["a", "b", ALL_AUTHENTICATED]);
        assert_eq!(user.extra["x/y"], ["z"]);
        let account = read(&headers(&[(USER, "system:serviceaccount:ns:sa")])).unwrap().unwrap();
        assert!(account.in_group("system:serviceaccounts:ns"));
    }

    #[test]
    fn groups_without_a_user_make_no_sense() {
        assert!(read(&headers(&[(GROUP, "a")])).is_err());
        assert_eq!(read(&headers(&[])).unwrap(), None);
    }
}
