//! How requests name keys, and which keys this API never shows.

use bytes::Bytes;

/// What the cluster's own keys begin with.
const HIDDEN: &[u8] = b"/sampan/";
/// The first key after them.
const HIDDEN_END: &[u8] = b"/sampan0";

/// The range of a request as the store has it: nothing is the single key, one zero byte (an empty
/// end for the store) the rest of the key space.
pub(crate) fn end(range_end: &Bytes) -> Option<Bytes> {
    match &**range_end {
        [] => None,
        [0] => Some(Bytes::new()),
        _ => Some(range_end.clone()),
    }
}

/// Whether a key is the cluster's own.
pub(crate) fn is_hidden(key: &[u8]) -> bool {
    key.starts_with(HIDDEN)
}

/// Whether some of the cluster's own keys lie in a range.
pub(crate) fn touches_hidden(key: &Bytes, end: Option<&Bytes>) -> bool {
    match end {
        None => is_hidden(key),
        Some(end) => *key < *HIDDEN_END && (end.is_empty() || *end > *HIDDEN),
    }
}

/// The range without the cluster's own keys, in at most two parts.
pub(crate) fn visible(key: &Bytes, end: Option<&Bytes>) -> Vec<(Bytes, Option<Bytes>)> {
    if !touches_hidden(key, end) {
        return vec![(key.clone(), end.cloned())];
    }
    let Some(end) = end else { return Vec::new() };
    let mut parts = Vec::new();
    if *key < *HIDDEN {
        parts.push((key.clone(), Some(Bytes::from_static(HIDDEN))));
    }
    if end.is_empty() || *end > *HIDDEN_END {
        parts.push((Bytes::from_static(HIDDEN_END), Some(end.clone())));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn ranges_are_read_as_etcd_reads_them() {
        assert_eq!(end(&bytes("")), None);
        assert_eq!(end(&bytes("\0")), Some(bytes("")));
        assert_eq!(end(&bytes("b")), Some(bytes("b")));
        assert_eq!(end(&bytes("\0\0")), Some(bytes("\0\0")));
    }

    #[test]
    fn the_clusters_own_keys_are_cut_out() {
        type Parts = Vec<(&'static str, Option<&'static str>)>;
        let table: [(&str, Option<&str>, Parts); 9] = [
            ("/registry/a", None, vec![("/registry/a", None)]),
            ("/sampan/a", None, vec![]),
            ("/sampan/a", Some("/sampan/b"), vec![]),
            ("/sampan/", Some("/sampan0"), vec![]),
            ("/registry/", Some("/registry0"), vec![("/registry/", Some("/registry0"))]),
            ("/", Some("0"), vec![("/", Some("/sampan/")), ("/sampan0", Some("0"))]),
            ("\0", Some(""), vec![("\0", Some("/sampan/")), ("/sampan0", Some(""))]),
            ("/sampan/x", Some(""), vec![("/sampan0", Some(""))]),
            ("/a", Some("/sampan/k"), vec![("/a", Some("/sampan/"))]),
        ];
        for (key, end, parts) in table {
            let parts: Vec<_> = parts.into_iter().map(|(key, end)| (bytes(key), end.map(bytes))).collect();
            assert_eq!(visible(&bytes(key), end.map(bytes).as_ref()), parts, "{key} {end:?}");
        }
    }
}
