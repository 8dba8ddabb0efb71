//! Ranges of keys: one form for the single keys, ranges and open ends of requests.
//!
//! Everything in the crate that walks keys takes a [`Span`]; it holds no data and does no I/O.

use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};

/// The keys `start..end`; no `end` reaches to the end of the key space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    start: Bytes,
    end: Option<Bytes>,
}

impl Span {
    /// The span of a request: no `end` is the single key, an empty one the rest of the key space.
    pub(crate) fn new(start: &Bytes, end: Option<&Bytes>) -> Self {
        let end = match end {
            None => Some(successor(start)),
            Some(end) if end.is_empty() => None,
            Some(end) => Some(end.clone()),
        };
        Self { start: start.clone(), end }
    }

    /// Every key there is.
    pub(crate) fn all() -> Self {
        Self { start: Bytes::new(), end: None }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        *key >= *self.start && self.end.as_ref().is_none_or(|end| *key < **end)
    }

    /// Whether no key can lie inside.
    pub(crate) fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// Whether some key that begins with `prefix` lies inside.
    pub(crate) fn touches(&self, prefix: &[u8]) -> bool {
        !self.is_empty()
            && (self.contains(prefix)
                || self.start.starts_with(prefix)
                || (*self.start < *prefix && self.end.is_none()))
    }

    /// Whether every key inside begins with `prefix`.
    pub(crate) fn lies_within(&self, prefix: &[u8]) -> bool {
        let limit = crate::types::prefix_end(prefix);
        self.start.starts_with(prefix)
            && (limit.is_empty() || self.end.as_ref().is_some_and(|end| *end <= limit))
    }

    /// The bounds for an ordered map. Check [`Span::is_empty`] first: maps refuse inverted ranges.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let end = self.end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(&**end));
        (Bound::Included(&*self.start), end)
    }

    pub(crate) fn start(&self) -> &Bytes {
        &self.start
    }

    /// The first key after it; `None` at the end of the key space.
    pub(crate) fn end(&self) -> Option<&Bytes> {
        self.end.as_ref()
    }
}

/// The first key after `key`.
pub(crate) fn successor(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: &'static str, end: Option<&'static str>) -> Span {
        Span::new(
            &Bytes::from_static(start.as_bytes()),
            end.map(|e| Bytes::from_static(e.as_bytes())).as_ref(),
        )
    }

    #[test]
    fn a_span_knows_its_keys() {
        // start, end, key, inside
        let table = [
            ("a", None, "a", true),
            ("a", None, "a\0", false),
            ("a", None, "", false),
            ("a", Some("c"), "b", true),
            ("a", Some("c"), "c", false),
            ("a", Some(""), "zzz", true),
            ("b", Some(""), "a", false),
            ("c", Some("a"), "b", false),
        ];
        for (start, end, key, inside) in table {
            assert_eq!(span(start, end).contains(key.as_bytes()), inside, "{start:?}..{end:?} {key:?}");
        }
    }

    #[test]
    fn a_span_knows_how_it_lies_to_a_prefix() {
        // start, end, prefix, touches, lies within
        let table = [
            ("/a/", Some("/a0"), "/a/", true, true),
            ("/a/x", None, "/a/", true, true),
            ("/", Some("0"), "/a/", true, false),
            ("", Some(""), "/a/", true, false),
            ("/a/m", Some("/b"), "/a/", true, false),
            ("/b/", Some("/b0"), "/a/", false, false),
            ("/", Some("/a/"), "/a/", false, false),
            ("/", Some("/a/k"), "/a/", true, false),
            ("/a/z", Some("/a/b"), "/a/", false, true),
        ];
        for (start, end, prefix, touches, within) in table {
            let span = span(start, end);
            assert_eq!(span.touches(prefix.as_bytes()), touches, "touches {start:?}..{end:?}");
            assert_eq!(span.lies_within(prefix.as_bytes()), within, "within {start:?}..{end:?}");
        }
    }
}
