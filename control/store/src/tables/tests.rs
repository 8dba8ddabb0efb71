//! Tables on a real file: what checkpoints leave, what sweeps take, what damage is called.

use bytes::Bytes;

use super::*;
use crate::layer::Layer;
use crate::record::{Head, Kind, Pos};
use crate::span::Span;
use crate::wal::LogId;

const CACHE: usize = 1 << 20;

fn record(rev: u64, key: &str, prev: u64, kind: Kind) -> Arc<Record> {
    Arc::new(Record {
        pos: Pos::first(rev),
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::from_static(b"\0value"),
        create: 1,
        version: 1,
        prev: Pos::first(prev),
        kind,
    })
}

fn frozen(compacted: u64, records: &[Arc<Record>]) -> Frozen {
    let mut layer = Layer::default();
    let mut revision = 0;
    for record in records {
        revision = revision.max(record.pos.rev);
        layer.insert(Arc::clone(record));
    }
    let applied = LogId { term: 1, index: revision };
    Frozen { layer, position: Position { applied, revision, compacted, ..Position::default() } }
}

fn revisions(tables: &Tables) -> Vec<u64> {
    tables.read().unwrap().records(0, u64::MAX).unwrap().map(|record| record.unwrap().pos.rev).collect()
}

fn keys(tables: &Tables) -> Vec<String> {
    let read = tables.read().unwrap();
    let span = Span::all();
    let heads = read.heads(&span).unwrap();
    heads.map(|entry| String::from_utf8(entry.unwrap().key().to_vec()).unwrap()).collect()
}

#[test]
fn a_checkpoint_brings_records_heads_and_position() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.redb");
    let mut tables = Tables::create(&path, &Disk::default(), CACHE).unwrap();
    let generation = frozen(0, &[record(1, "a", 0, Kind::Put), record(2, "b", 0, Kind::Put)]);
    tables.checkpoint(&generation, 100).unwrap();
    drop(tables);
    let tables = Tables::open(&path, &Disk::default(), CACHE).unwrap();
    assert_eq!(tables.meta().position, generation.position);
    assert_eq!((revisions(&tables), keys(&tables)), (vec![1, 2], vec!["a".into(), "b".into()]));
    let head: Option<Head> = tables.read().unwrap().head(b"a").unwrap();
    assert_eq!(head.unwrap().pos, Pos::first(1));
}

#[test]
fn a_checkpoint_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut tables = Tables::create(&dir.path().join("t.redb"), &Disk::default(), CACHE).unwrap();
    tables.checkpoint(&frozen(0, &[record(5, "a", 0, Kind::Put)]), 100).unwrap();
    assert!(tables.checkpoint(&frozen(0, &[]), 100).is_err(), "an empty state over a full one");
    assert_eq!(tables.meta().position.revision, 5);
}

#[test]
fn a_sweep_takes_what_compaction_hid_and_nothing_else() {
    let records = [
        record(1, "a", 0, Kind::Put),
        record(2, "a", 1, Kind::Put),
        record(3, "b", 0, Kind::Put),
        record(4, "b", 3, Kind::Tombstone),
        record(5, "a", 2, Kind::Put),
        record(6, "c", 0, Kind::Put),
    ];
    // compacted at, revisions left, keys left
    let table: [(u64, Vec<u64>, &[&str]); 4] = [
        (2, vec![2, 3, 4, 5, 6], &["a", "b", "c"]),
        (4, vec![2, 4, 5, 6], &["a", "b", "c"]),
        (5, vec![5, 6], &["a", "c"]),
        (6, vec![5, 6], &["a", "c"]),
    ];
    for budget in [1, 100] {
        for (compacted, left, keys_left) in &table {
            let dir = tempfile::tempdir().unwrap();
            let mut tables = Tables::create(&dir.path().join("t.redb"), &Disk::default(), CACHE).unwrap();
            tables.checkpoint(&frozen(0, &records), 100).unwrap();
            while tables.unswept(*compacted) > 0 {
                tables.sweep(*compacted, budget).unwrap();
            }
            assert_eq!(revisions(&tables), *left, "compacted at {compacted}, {budget} at a time");
            assert_eq!(keys(&tables), *keys_left, "compacted at {compacted}");
            assert_eq!(tables.meta().records, left.len() as u64);
        }
    }
}

#[test]
fn a_tombstone_at_the_compacted_revision_goes_with_the_next_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let mut tables = Tables::create(&dir.path().join("t.redb"), &Disk::default(), CACHE).unwrap();
    let records =
        [record(1, "a", 0, Kind::Put), record(2, "a", 1, Kind::Tombstone), record(3, "b", 0, Kind::Put)];
    tables.checkpoint(&frozen(0, &records), 100).unwrap();
    tables.sweep(2, 100).unwrap();
    assert_eq!(revisions(&tables), [2, 3]);
    tables.sweep(3, 100).unwrap();
    assert_eq!((revisions(&tables), keys(&tables)), (vec![3], vec!["b".to_owned()]));
}

#[test]
fn damage_is_named_and_the_file_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.redb");
    let mut tables = Tables::create(&path, &Disk::default(), CACHE).unwrap();
    let records: Vec<_> = (1..500).map(|rev| record(rev, &format!("key{rev}"), 0, Kind::Put)).collect();
    tables.checkpoint(&frozen(0, &records), 100).unwrap();
    drop(tables);
    let whole = std::fs::read(&path).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let mut noise = vec![0; whole.len()];
    getrandom::fill(&mut noise).unwrap();
    let mut middle = whole.clone();
    for at in (8_192..used).step_by(64) {
        middle[at] ^= 0x55;
    }
    for (name, bytes) in
        [("noise", noise), ("empty", Vec::new()), ("middle", middle), ("cut off", whole[..8_192].to_vec())]
    {
        std::fs::write(&path, &bytes).unwrap();
        let error = Tables::open(&path, &Disk::default(), CACHE).unwrap_err();
        assert!(matches!(error, TablesError::Corrupt(_)), "{name}: {error:?}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name}: nothing changed");
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(revisions(&Tables::open(&path, &Disk::default(), CACHE).unwrap()).len(), 499);
}
