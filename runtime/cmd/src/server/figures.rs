//! What the database says of itself, on `/metrics`. Names are etcd's, with `sampan_` before them, where
//! etcd has them.

use std::fmt::Write;

use sampan_raft::RaftStore;
use sampan_store::Stats;

/// The database's figures at one moment.
struct Figures {
    stats: Stats,
    term: u64,
    /// That of the cluster, see [`sampan_store::Level`].
    level: u16,
    has_leader: bool,
    is_leader: bool,
    is_learner: bool,
    committed: u64,
    applied: u64,
    members: Vec<Peer>,
}

/// Another member, as this one sees it.
struct Peer {
    name: String,
    /// Entries of the log that it lacks, where this server knows: the leader does.
    lag: Option<u64>,
    reachable: Option<bool>,
}

/// The figures as Prometheus' text.
pub(super) fn text(store: &RaftStore) -> String {
    let leadership = *store.leadership().borrow();
    let (committed, applied) = store.log_position();
    let (own, others): (Vec<_>, Vec<_>) =
        store.members().into_iter().partition(|standing| standing.member.id == store.id());
    Figures {
        stats: store.stats(),
        term: leadership.term,
        level: store.level().number(),
        has_leader: leadership.leader.is_some(),
        is_leader: leadership.mine,
        is_learner: own.first().is_some_and(|standing| !standing.voter),
        committed,
        applied,
        members: others
            .into_iter()
            .map(|standing| Peer {
                name: standing.member.name,
                lag: standing.lag,
                reachable: standing.reachable,
            })
            .collect(),
    }
    .text()
}

#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}

impl Figures {
    fn text(&self) -> String {
        let mut out = String::new();
        for (name, kind, help, value) in self.of_consensus().into_iter().chain(self.of_store()) {
            head(&mut out, name, kind, help);
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{name} {value}");
        }
        self.of_peers(&mut out);
        out
    }

    fn of_consensus(&self) -> [(&'static str, Kind, &'static str, u64); 7] {
        use Kind::{Counter, Gauge};
        [
            ("sampan_server_has_leader", Gauge, "Whether a leader is known.", self.has_leader.into()),
            ("sampan_server_is_leader", Gauge, "Whether this server leads.", self.is_leader.into()),
            ("sampan_server_is_learner", Gauge, "Whether this server has no vote.", self.is_learner.into()),
            ("sampan_server_term", Gauge, "The term of the leader.", self.term),
            ("sampan_server_cluster_level", Gauge, "The level that the cluster is at.", self.level.into()),
            (
                "sampan_server_proposals_committed_total",
                Counter,
                "The last entry of the log that is known to be committed.",
                self.committed,
            ),
            (
                "sampan_server_proposals_applied_total",
                Counter,
                "The last entry of the log that is applied.",
                self.applied,
            ),
        ]
    }

    fn of_store(&self) -> [(&'static str, Kind, &'static str, u64); 16] {
        use Kind::{Counter, Gauge};
        let stats = &self.stats;
        let size = stats.tables_bytes.saturating_add(stats.log_bytes);
        [
            ("sampan_mvcc_db_total_size_in_bytes", Gauge, "Size of tables and log.", size),
            ("sampan_mvcc_tables_size_in_bytes", Gauge, "Size of the tables' file.", stats.tables_bytes),
            ("sampan_mvcc_keys", Gauge, "Keys, those in memory included.", stats.keys),
            ("sampan_mvcc_current_revision", Gauge, "The newest revision here.", stats.revision),
            ("sampan_mvcc_compact_revision", Gauge, "The oldest revision that can be read.", stats.compacted),
            ("sampan_mvcc_history_records", Gauge, "Superseded records that are still kept.", stats.history),
            ("sampan_mvcc_watchers", Gauge, "Open watches of the database.", stats.watchers),
            (
                "sampan_mvcc_overlay_bytes",
                Gauge,
                "Records in memory that are not in the tables yet.",
                stats.overlay_bytes,
            ),
            (
                "sampan_mvcc_volatile_bytes",
                Gauge,
                "Records that are only kept in memory.",
                stats.volatile_bytes,
            ),
            (
                "sampan_mvcc_volatile_lost_revision",
                Gauge,
                "The revision at which what is only kept in memory was last given up; 0 where it was not.",
                stats.volatile_lost,
            ),
            ("sampan_disk_wal_size_in_bytes", Gauge, "Log that a restart would read.", stats.log_bytes),
            ("sampan_disk_wal_write_bytes_total", Counter, "Bytes written to the log.", stats.log_written),
            (
                "sampan_disk_tables_write_bytes_total",
                Counter,
                "Bytes written to the tables.",
                stats.tables_written,
            ),
            ("sampan_disk_fsyncs_total", Counter, "How often log or tables were made durable.", stats.fsyncs),
            (
                "sampan_disk_checkpoints_total",
                Counter,
                "How often the log went into the tables.",
                stats.checkpoints,
            ),
            (
                "sampan_disk_out_of_space",
                Gauge,
                "Whether writes are refused as the device is full.",
                stats.out_of_space.into(),
            ),
        ]
    }

    /// Who is not a member any more is not here any more.
    fn of_peers(&self, out: &mut String) {
        let reachable = |peer: &Peer| peer.reachable.map(u64::from);
        self.labelled(
            out,
            "sampan_network_active_peers",
            "Whether another server is reached; only the leader knows.",
            reachable,
        );
        self.labelled(
            out,
            "sampan_network_peer_lag_entries",
            "Entries of the log that another server lacks; only the leader knows.",
            |peer| peer.lag,
        );
    }

    fn labelled(&self, out: &mut String, name: &str, help: &str, value: impl Fn(&Peer) -> Option<u64>) {
        let known: Vec<_> = self.members.iter().filter_map(|peer| Some((&peer.name, value(peer)?))).collect();
        if known.is_empty() {
            return;
        }
        head(out, name, Kind::Gauge, help);
        for (peer, value) in known {
            // A machine's name needs no quoting.
            let _ = writeln!(out, "{name}{{to=\"{peer}\"}} {value}");
        }
    }
}

fn head(out: &mut String, name: &str, kind: Kind, help: &str) {
    let kind = match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
    };
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_prometheus_text_and_what_is_not_known_is_not_there() {
        let peer = |name: &str, lag, reachable| Peer { name: name.to_owned(), lag, reachable };
        let mut figures = Figures {
            stats: Stats { revision: 7, tables_bytes: 5, log_bytes: 6, fsyncs: 3, ..Stats::default() },
            term: 4,
            level: 3,
            has_leader: true,
            is_leader: true,
            is_learner: false,
            committed: 9,
            applied: 8,
            members: vec![peer("s2", Some(1), Some(true)), peer("s3", None, Some(false))],
        };
        let text = figures.text();
        for line in [
            "# TYPE sampan_server_has_leader gauge",
            "sampan_server_has_leader 1",
            "sampan_server_is_learner 0",
            "sampan_server_term 4",
            "sampan_server_cluster_level 3",
            "sampan_server_proposals_applied_total 8",
            "# TYPE sampan_disk_fsyncs_total counter",
            "sampan_disk_fsyncs_total 3",
            "sampan_mvcc_db_total_size_in_bytes 11",
            "sampan_mvcc_current_revision 7",
            "sampan_network_active_peers{to=\"s2\"} 1",
            "sampan_network_active_peers{to=\"s3\"} 0",
            "sampan_network_peer_lag_entries{to=\"s2\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(!text.contains("lag_entries{to=\"s3\"}"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("sampan_") && value.parse::<u64>().is_ok(), "{line}");
        }
        figures.members.clear();
        assert!(!figures.text().contains("peer"));
    }
}
