//! The options of `pods/NAME/log`.

use sampan_api::field::{FieldError, FieldPath};

use super::checks::{Errors, NOT_NEGATIVE};

/// The options that have bounds, as the query gave them.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogBounds<'a> {
    /// `tailLines`
    pub tail_lines: Option<i64>,
    /// `limitBytes`
    pub limit_bytes: Option<i64>,
    /// `sinceSeconds`
    pub since_seconds: Option<i64>,
    /// `sinceTime`
    pub since_time: Option<&'a str>,
    /// `stream`, which Kubernetes 1.35 knows only behind a gate that is closed.
    pub stream: Option<&'a str>,
}

/// What is wrong with the options.
pub fn validate(bounds: &LogBounds<'_>) -> Vec<FieldError> {
    let mut out = Errors::new();
    if let Some(lines) = bounds.tail_lines.filter(|lines| *lines < 0) {
        out.push(FieldError::invalid(&FieldPath::new("tailLines"), lines, NOT_NEGATIVE));
    }
    if let Some(bytes) = bounds.limit_bytes.filter(|bytes| *bytes < 1) {
        out.push(FieldError::invalid(&FieldPath::new("limitBytes"), bytes, "must be greater than 0"));
    }
    match (bounds.since_seconds, bounds.since_time) {
        (Some(_), Some(_)) => {
            let text = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            out.push(FieldError::forbidden(&FieldPath::new(""), text));
        }
        (Some(seconds), None) if seconds < 1 => {
            out.push(FieldError::invalid(&FieldPath::new("sinceSeconds"), seconds, "must be greater than 0"));
        }
        _ => {}
    }
    if bounds.stream.is_some_and(|stream| stream != "All") {
        out.push(FieldError::forbidden(&FieldPath::new("stream"), "may not be specified"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::testing::texts;

    #[test]
    fn log_options_have_bounds() {
        assert_eq!(texts(&validate(&LogBounds { tail_lines: Some(0), ..LogBounds::default() })), [""; 0]);
        let bad = LogBounds {
            tail_lines: Some(-1),
            limit_bytes: Some(0),
            since_seconds: Some(1),
            since_time: Some("2025-01-01T00:00:00Z"),
            stream: Some("Stdout"),
        };
        assert_eq!(
            texts(&validate(&bad)),
            [
                "tailLines: Invalid value: -1: must be greater than or equal to 0",
                "limitBytes: Invalid value: 0: must be greater than 0",
                "<nil>: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
                "stream: Forbidden: may not be specified",
            ]
        );
        let bad = LogBounds { since_seconds: Some(0), ..LogBounds::default() };
        assert_eq!(texts(&validate(&bad)), ["sinceSeconds: Invalid value: 0: must be greater than 0"]);
    }
}
