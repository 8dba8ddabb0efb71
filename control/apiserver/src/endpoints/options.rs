//! The options of requests, from query parameters, checked as Kubernetes checks them.

use std::time::Duration;

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::meta;
use sampan_api::selector::fields::FieldSelector;
use sampan_api::selector::labels::LabelSelector;
use sampan_api::status::{Status, StatusCause, StatusDetails};

use super::continue_token::ContinueToken;
use super::query::Query;
use crate::cacher::Selection;
use crate::registry::{Consistency, ListRequest};

/// What becomes of fields that are unknown or given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    /// They are dropped.
    Ignore,
    /// They are dropped, and warned about.
    Warn,
    /// The request is refused.
    Strict,
}

/// Options of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) field_validation: FieldValidation,
}

impl WriteOptions {
    /// Reads them; `kind` is the name of the options' kind in refusals.
    pub(crate) fn parse(query: &Query, kind: &str) -> Result<Self, Status> {
        let mut errors = Vec::new();
        let mut dry_run = false;
        for value in query.all("dryRun") {
            match value {
                "All" => dry_run = true,
                other => errors.push(FieldError::not_supported(&FieldPath::new("dryRun"), other, &["All"])),
            }
        }
        let field_validation = match query.get("fieldValidation").unwrap_or("Warn") {
            "Ignore" => FieldValidation::Ignore,
            "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            other => {
                let path = FieldPath::new("fieldValidation");
                errors.push(FieldError::not_supported(&path, other, &["Ignore", "Strict", "Warn"]));
                FieldValidation::Warn
            }
        };
        if let Some(manager) = query.get("fieldManager") {
            errors.extend(meta::validate_field_manager(manager, &FieldPath::new("fieldManager")));
        }
        if errors.is_empty() {
            Ok(Self { dry_run, field_validation })
        } else {
            Err(invalid_options(kind, &errors))
        }
    }
}

/// 422 about a request's options.
pub(crate) fn invalid_options(kind: &str, errors: &[FieldError]) -> Status {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let joined = match texts.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let causes = errors
        .iter()
        .map(|e| StatusCause { reason: e.kind.reason().into(), message: e.body(), field: e.path.to_string() })
        .collect();
    Status::failure(422, "Invalid", format!("{kind}.meta.k8s.io \"\" is invalid: {joined}")).with_details(
        StatusDetails { group: "meta.k8s.io".into(), kind: kind.into(), causes, ..StatusDetails::default() },
    )
}

/// Options of lists and watches, read but not yet understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListOptions {
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
    resource_version: Option<u64>,
    resource_version_match: Option<VersionMatch>,
    limit: usize,
    continue_token: Option<String>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) bookmarks: bool,
    send_initial_events: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// How a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchStart {
    /// With the current objects, once the cache is at least this new (`None`: as new as the store).
    Current {
        /// The least revision.
        at_least: Option<u64>,
        /// Whether a bookmark tells where the current objects end.
        marked: bool,
    },
    /// With changes after this revision.
    After(u64),
    /// With whatever happens next.
    Latest,
}

impl ListOptions {
    /// Reads them.
    pub(crate) fn parse(query: &Query) -> Result<Self, Status> {
        let labels = query.get("labelSelector").map(LabelSelector::parse).transpose();
        let fields = query.get("fieldSelector").map(FieldSelector::parse).transpose();
        let version = query.get("resourceVersion");
        let resource_version = version.map(str::parse).transpose().map_err(|_| {
            let path = FieldPath::new("resourceVersion");
            invalid_options(
                "ListOptions",
                &[FieldError::invalid(&path, version.unwrap_or_default(), "must be a number")],
            )
        })?;
        let resource_version_match = match query.get("resourceVersionMatch") {
            None => None,
            Some("Exact") => Some(VersionMatch::Exact),
            Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
            Some(other) => {
                let path = FieldPath::new("resourceVersionMatch");
                let error = FieldError::not_supported(&path, other, &["Exact", "NotOlderThan", ""]);
                return Err(invalid_options("ListOptions", &[error]));
            }
        };
        Ok(Self {
            labels: labels.map_err(|e| unparsable("labelSelector", &e))?.unwrap_or_default(),
            fields: fields.map_err(|e| unparsable("fieldSelector", &e))?.unwrap_or_default(),
            resource_version,
            resource_version_match,
            limit: number(query, "limit")?.unwrap_or_default(),
            continue_token: query.get("continue").map(str::to_owned),
            timeout: number(query, "timeoutSeconds")?.filter(|s| *s > 0).map(Duration::from_secs),
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents")),
        })
    }

    /// What to list.
    pub(crate) fn list_request(&self, selection: Selection) -> Result<ListRequest, Status> {
        let path = FieldPath::new("resourceVersionMatch");
        let forbid = |why: &str| Err(invalid_options("ListOptions", &[FieldError::forbidden(&path, why)]));
        if self.send_initial_events.is_some() {
            let path = FieldPath::new("sendInitialEvents");
            let error = FieldError::forbidden(&path, "sendInitialEvents is forbidden for list");
            return Err(invalid_options("ListOptions", &[error]));
        }
        if self.resource_version_match.is_some() {
            if self.continue_token.is_some() {
                return forbid("resourceVersionMatch is forbidden when continue is provided");
            }
            match (self.resource_version, self.resource_version_match) {
                (None, _) => {
                    return forbid("resourceVersionMatch is forbidden unless resourceVersion is provided");
                }
                (Some(0), Some(VersionMatch::Exact)) => {
                    return forbid("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
                }
                _ => {}
            }
        }
        let (mut consistency, mut from) = (self.consistency(), None);
        if let Some(token) = &self.continue_token {
            if !matches!(self.resource_version, None | Some(0)) {
                return Err(Status::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let token = ContinueToken::decode(token, &selection.key_prefix())?;
            consistency = Consistency::Exact(token.revision);
            from = Some(token.from);
        }
        Ok(ListRequest { selection, consistency, limit: self.limit, from })
    }

    fn consistency(&self) -> Consistency {
        match (self.resource_version, self.resource_version_match) {
            (None, _) => Consistency::Newest,
            (Some(0), _) => Consistency::Any,
            (Some(revision), Some(VersionMatch::Exact)) => Consistency::Exact(revision),
            (Some(revision), Some(VersionMatch::NotOlderThan)) => Consistency::NotOlderThan(revision),
            // What clients of old expect: pages are of the revision that was asked for.
            (Some(revision), None) if self.limit > 0 => Consistency::Exact(revision),
            (Some(revision), None) => Consistency::NotOlderThan(revision),
        }
    }

    /// How to watch.
    pub(crate) fn watch_start(&self) -> Result<WatchStart, Status> {
        let forbid = |field: &str, why: &str| {
            Err(invalid_options("ListOptions", &[FieldError::forbidden(&FieldPath::new(field), why)]))
        };
        match (self.send_initial_events, self.resource_version_match) {
            (None, Some(_)) => forbid(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ),
            (Some(_), None | Some(VersionMatch::Exact)) => forbid(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
            (Some(true), Some(VersionMatch::NotOlderThan)) => {
                Ok(WatchStart::Current { at_least: self.resource_version, marked: self.bookmarks })
            }
            (Some(false), _) => Ok(self.resource_version.map_or(WatchStart::Latest, WatchStart::After)),
            (None, None) => Ok(match self.resource_version {
                None => WatchStart::Current { at_least: None, marked: false },
                Some(0) => WatchStart::Current { at_least: Some(0), marked: false },
                Some(revision) => WatchStart::After(revision),
            }),
        }
    }
}

fn number<N: std::str::FromStr>(query: &Query, name: &str) -> Result<Option<N>, Status> {
    let Some(text) = query.get(name) else { return Ok(None) };
    match text.parse::<N>() {
        Ok(number) => Ok(Some(number)),
        Err(_) => {
            Err(Status::bad_request(format!("invalid value {text:?} for the parameter {name}: not a number")))
        }
    }
}

fn unparsable(parameter: &str, why: &str) -> Status {
    Status::bad_request(format!("unable to parse the parameter {parameter}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(query: &str) -> Result<(Consistency, usize), u16> {
        let options = ListOptions::parse(&Query::parse(query)).map_err(|s| s.code)?;
        let request = options.list_request(Selection::default()).map_err(|s| s.code)?;
        Ok((request.consistency, request.limit))
    }

    #[test]
    fn resource_versions_of_lists_mean_what_kubernetes_says() {
        use Consistency::{Any, Exact, Newest, NotOlderThan};
        let cases = [
            ("", Ok((Newest, 0))),
            ("limit=5", Ok((Newest, 5))),
            ("resourceVersion=0", Ok((Any, 0))),
            ("resourceVersion=7", Ok((NotOlderThan(7), 0))),
            ("resourceVersion=7&limit=5", Ok((Exact(7), 5))),
            ("resourceVersion=7&resourceVersionMatch=Exact", Ok((Exact(7), 0))),
            ("resourceVersion=7&resourceVersionMatch=NotOlderThan&limit=5", Ok((NotOlderThan(7), 5))),
            ("resourceVersion=0&resourceVersionMatch=NotOlderThan", Ok((Any, 0))),
            ("resourceVersion=0&resourceVersionMatch=Exact", Err(422)),
            ("resourceVersionMatch=Exact", Err(422)),
            ("resourceVersion=7&resourceVersionMatch=Sometimes", Err(422)),
            ("resourceVersion=x", Err(422)),
            ("sendInitialEvents=true", Err(422)),
            ("continue=abc", Err(400)),
            ("limit=x", Err(400)),
            ("labelSelector=a%20in", Err(400)),
            ("fieldSelector=a", Err(400)),
        ];
        for (query, expected) in cases {
            assert_eq!(list(query), expected, "{query}");
        }
    }

    #[test]
    fn watches_begin_where_kubernetes_says() {
        use WatchStart::{After, Current};
        let cases = [
            ("", Ok(Current { at_least: None, marked: false })),
            ("resourceVersion=0", Ok(Current { at_least: Some(0), marked: false })),
            ("resourceVersion=7", Ok(After(7))),
            (
                "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
                Ok(Current { at_least: None, marked: true }),
            ),
            (
                "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=7&allowWatchBookmarks=true",
                Ok(Current { at_least: Some(7), marked: true }),
            ),
            ("sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion=7", Ok(After(7))),
            ("sendInitialEvents=false&resourceVersionMatch=NotOlderThan", Ok(WatchStart::Latest)),
            ("sendInitialEvents=true", Err(422)),
            ("resourceVersion=7&resourceVersionMatch=NotOlderThan", Err(422)),
        ];
        for (query, expected) in cases {
            let options = ListOptions::parse(&Query::parse(query)).unwrap();
            assert_eq!(options.watch_start().map_err(|s| s.code), expected, "{query}");
        }
    }

    #[test]
    fn options_of_writes_are_checked() {
        let parse = |query| WriteOptions::parse(&Query::parse(query), "CreateOptions");
        assert!(parse("dryRun=All").unwrap().dry_run);
        assert!(!parse("").unwrap().dry_run);
        assert_eq!(parse("fieldValidation=Strict").unwrap().field_validation, FieldValidation::Strict);
        for (query, field) in [("dryRun=Some", "dryRun"), ("fieldValidation=x", "fieldValidation")] {
            let status = parse(query).unwrap_err();
            assert_eq!(status.code, 422);
            assert_eq!(status.details.unwrap().causes[0].field, field);
        }
        assert_eq!(parse(&format!("fieldManager={}", "x".repeat(129))).unwrap_err().code, 422);
    }
}
