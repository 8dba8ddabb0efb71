//! Puts what several watches of a stream received at once into the order of its revisions.

use sampan_store::{WatchBatch, WatchEvent};

/// Events of one watch, whole revisions up to `revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) watch: i64,
    pub(super) revision: u64,
    pub(super) events: Vec<WatchEvent>,
}

/// All batches, each watch's in its order; where several watches have some, cut at revisions and
/// put in their order.
///
/// The store hands a revision to all watches before the next one, so once none has anything more
/// at hand, no watch that has caught up will come with an earlier revision.
pub(super) fn merge(batches: Vec<(i64, WatchBatch)>) -> Vec<Piece> {
    let several = batches.iter().any(|(watch, _)| batches.first().is_some_and(|(first, _)| first != watch));
    let mut pieces = Vec::with_capacity(batches.len());
    for (watch, batch) in batches {
        if several {
            cut(watch, batch, &mut pieces);
        } else {
            pieces.push(Piece { watch, revision: batch.revision.0, events: batch.events });
        }
    }
    if several {
        pieces.sort_by_key(|piece| piece.revision);
    }
    pieces
}

/// A piece for each revision that has events, and one for the progress after them.
fn cut(watch: i64, batch: WatchBatch, pieces: &mut Vec<Piece>) {
    let mut current: Option<Piece> = None;
    for event in batch.events {
        let revision = revision_of(&event);
        match &mut current {
            Some(piece) if piece.revision == revision => piece.events.push(event),
            _ => pieces.extend(current.replace(Piece { watch, revision, events: vec![event] })),
        }
    }
    let told = current.as_ref().is_some_and(|piece| piece.revision >= batch.revision.0);
    pieces.extend(current);
    if !told {
        pieces.push(Piece { watch, revision: batch.revision.0, events: Vec::new() });
    }
}

fn revision_of(event: &WatchEvent) -> u64 {
    match event {
        WatchEvent::Put { kv, .. } => kv.mod_revision.0,
        WatchEvent::Delete { revision, .. } => revision.0,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sampan_store::Revision;

    use super::*;

    fn batch(revision: u64, events: &[u64]) -> WatchBatch {
        let event = |at: &u64| WatchEvent::Delete {
            key: Bytes::from_static(b"k"),
            revision: Revision(*at),
            previous: None,
        };
        WatchBatch { revision: Revision(revision), events: events.iter().map(event).collect() }
    }

    fn shown(batches: Vec<(i64, WatchBatch)>) -> Vec<(i64, u64, usize)> {
        merge(batches).iter().map(|piece| (piece.watch, piece.revision, piece.events.len())).collect()
    }

    #[test]
    fn one_watch_keeps_its_batches() {
        assert_eq!(shown(vec![(1, batch(9, &[3, 3, 5])), (1, batch(12, &[]))]), [(1, 9, 3), (1, 12, 0)]);
    }

    #[test]
    fn several_watches_are_told_in_the_order_of_revisions() {
        let batches = vec![(2, batch(8, &[4, 7, 7])), (1, batch(6, &[3, 4])), (2, batch(9, &[9]))];
        let expected = [(1, 3, 1), (2, 4, 1), (1, 4, 1), (1, 6, 0), (2, 7, 2), (2, 8, 0), (2, 9, 1)];
        assert_eq!(shown(batches), expected);
    }
}
