//! What a reader of a log asks for.

use std::collections::HashMap;

use jiff::Timestamp;

use super::cri_log::Stream;

/// What a reader of a log asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on as the log grows.
    pub follow: bool,
    /// The container before the present one.
    pub previous: bool,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Only lines from this time on.
    pub since: Option<Timestamp>,
    /// Only this many lines from the end.
    pub tail: Option<u64>,
    /// No more than this many bytes.
    pub limit: Option<u64>,
    /// Only this stream.
    pub stream: Option<Stream>,
}

impl LogOptions {
    /// Reads the query of a request. The error is for the user.
    pub fn from_query(query: &HashMap<String, String>, now: Timestamp) -> Result<Self, String> {
        let text = |key: &str| query.get(key).map(String::as_str).filter(|value| !value.is_empty());
        let flag = |key: &str| matches!(query.get(key).map(String::as_str), Some("" | "true" | "1" | "True"));
        let number = |key: &str| -> Result<Option<i64>, String> {
            text(key)
                .map(|value| value.parse().map_err(|_| format!("invalid {key}: \"{value}\"")))
                .transpose()
        };
        let since = match (number("sinceSeconds")?, text("sinceTime")) {
            (Some(_), Some(_)) => {
                return Err("at most one of `sinceTime` or `sinceSeconds` may be specified".into());
            }
            (Some(seconds), None) if seconds < 1 => return Err("sinceSeconds must be greater than 0".into()),
            (Some(seconds), None) => now.checked_sub(jiff::SignedDuration::from_secs(seconds)).ok(),
            (None, Some(time)) => Some(time.parse().map_err(|_| format!("invalid sinceTime: \"{time}\""))?),
            (None, None) => None,
        };
        let tail = match number("tailLines")? {
            Some(lines) => {
                Some(u64::try_from(lines).map_err(|_| "tailLines must be greater than or equal to 0")?)
            }
            None => None,
        };
        let limit = match number("limitBytes")? {
            Some(bytes) if bytes < 1 => return Err("limitBytes must be greater than 0".into()),
            Some(bytes) => u64::try_from(bytes).ok(),
            None => None,
        };
        let stream = match text("stream") {
            None | Some("All") => None,
            Some("Stdout") => Some(Stream::Stdout),
            Some("Stderr") => Some(Stream::Stderr),
            Some(other) => {
                return Err(format!(
                    "unsupported stream \"{other}\": supported values: \"All\", \"Stderr\", \"Stdout\""
                ));
            }
        };
        if stream.is_some() && tail.is_some() {
            return Err("`tailLines` and specific `stream` are mutually exclusive for now".into());
        }
        Ok(Self {
            follow: flag("follow"),
            previous: flag("previous"),
            timestamps: flag("timestamps"),
            since,
            tail,
            limit,
            stream,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str) -> Result<LogOptions, String> {
        let query = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        LogOptions::from_query(&query, Timestamp::from_second(1000).unwrap())
    }

    #[test]
    fn options_are_read_from_the_query() {
        assert_eq!(options(""), Ok(LogOptions::default()));
        let all =
            options("follow=true&previous=true&timestamps=true&tailLines=5&limitBytes=10&sinceSeconds=60")
                .unwrap();
        assert!(all.follow && all.previous && all.timestamps);
        assert_eq!((all.tail, all.limit), (Some(5), Some(10)));
        assert_eq!(all.since, Timestamp::from_second(940).ok());
        assert_eq!(options("sinceTime=1970-01-01T00:00:05Z").unwrap().since, Timestamp::from_second(5).ok());
        assert_eq!(options("stream=Stderr").unwrap().stream, Some(Stream::Stderr));
        assert_eq!(options("follow=false").unwrap(), LogOptions::default());
    }

    #[test]
    fn nonsense_is_refused() {
        for query in [
            "tailLines=-1",
            "tailLines=x",
            "limitBytes=0",
            "sinceSeconds=0",
            "stream=Nope",
            "sinceTime=yesterday",
            "sinceSeconds=5&sinceTime=1970-01-01T00:00:05Z",
            "stream=Stdout&tailLines=1",
        ] {
            assert!(options(query).is_err(), "{query}");
        }
    }
}
