//! The bytes of every message are pinned: a change that an older or newer member would misread
//! fails here. To add, append a variant and a line; never edit a line.

use bytes::Bytes;
use proptest::prelude::*;
use sampan_store::{KeyValue, LeaseId, Op, OpResult, Revision, Txn, TxnResponse};

use super::*;
use crate::types::Member;

fn member() -> Member {
    Member { id: 7, name: "a".into(), addresses: vec!["h:1".into()], key: [9; 32] }
}

fn at(term: u64, index: u64) -> Option<LogPosition> {
    Some(LogPosition { term, index })
}

fn vote() -> Vote {
    Vote { term: 3, candidate: 7, committed: true }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const KEY: &str = "0909090909090909090909090909090909090909090909090909090909090909";

/// A member's record.
fn record_bytes() -> String {
    format!("0701610103683a31{KEY}")
}

fn of_consensus() -> Vec<(Message, String)> {
    let m = record_bytes();
    let record = MembershipRecord { voters: vec![vec![7]], members: vec![member()] };
    let append = Append {
        vote: vote(),
        previous: at(2, 5),
        entries: vec![
            Entry { position: LogPosition { term: 3, index: 6 }, payload: Bytes::new() },
            Entry { position: LogPosition { term: 3, index: 300 }, payload: Bytes::from_static(b"xy") },
        ],
        commit: None,
    };
    let begin = SnapshotBegin {
        vote: vote(),
        last: at(1, 2),
        membership_at: at(1, 0),
        membership: record,
        id: [1; 16],
    };
    let cursor = Bytes::from_static(b"c");
    let frame = Bytes::from_static(b"f");
    vec![
        (Message::Append(append), "00030701 010205 02 030600 03ac02027879 00".into()),
        (Message::Appended(Appended::Matching(at(3, 7))), "0100010307".into()),
        (Message::Appended(Appended::Conflict(LogPosition { term: 3, index: 7 })), "01010307".into()),
        (Message::Appended(Appended::HigherVote(vote())), "0102030701".into()),
        (Message::Appended(Appended::Failed { why: "w".into() }), "01030177".into()),
        (Message::Vote(VoteRequest { vote: vote(), last: None, transfer: true }), "020307010001".into()),
        (
            Message::PreVote(VoteRequest { vote: vote(), last: at(1, 1), transfer: false }),
            "0303070101010100".into(),
        ),
        (
            Message::Voted(VoteAnswer::Decided { vote: vote(), granted: true, last: None }),
            "04000307010100".into(),
        ),
        (Message::Voted(VoteAnswer::Failed { why: "w".into() }), "04010177".into()),
        (Message::Transfer(Transfer { from: vote(), to: 8, last: None }), "050307010800".into()),
        (Message::Transferred(Transferred::Accepted), "0600".into()),
        (Message::Transferred(Transferred::VoteChanged { actual: vote() }), "0601030701".into()),
        (Message::Transferred(Transferred::Behind { actual: None }), "060200".into()),
        (Message::Transferred(Transferred::Failed { why: "w".into() }), "06030177".into()),
        (Message::SnapshotBegin(begin), format!("070307010101020101000101070 1{m}{}", "01".repeat(16))),
        (Message::SnapshotAt { cursor: cursor.clone() }, "080163".into()),
        (Message::SnapshotFrame { cursor, frame }, "0901630166".into()),
        (Message::SnapshotEnd, "0a".into()),
        (Message::SnapshotInstalling, "0b".into()),
        (Message::SnapshotDone { vote: vote() }, "0c030701".into()),
        (Message::SnapshotFailed { why: "w".into() }, "0d0177".into()),
    ]
}

fn of_the_rest() -> Vec<(Message, String)> {
    let m = record_bytes();
    let ask = |ask| Message::Ask { id: 1, ask };
    let answer = |answer| Message::Answer { id: 1, answer };
    let put = Txn { success: vec![Op::Put { key: "k".into(), value: "v".into() }], ..Txn::default() };
    let kv = KeyValue {
        key: "k".into(),
        value: "v".into(),
        create_revision: Revision(1),
        mod_revision: Revision(2),
        version: 2,
        lease: LeaseId::NONE,
    };
    let response = TxnResponse {
        revision: Revision(5),
        succeeded: true,
        results: vec![OpResult::Put { previous: Some(kv) }],
    };
    let standing = Standing { member: member(), voter: true, leader: false, lag: Some(3), reachable: None };
    let frame = Bytes::from_static(b"f");
    vec![
        (ask(Ask::Txn(put)), "0e01000001 00016b017600".replace(' ', "")),
        (ask(Ask::Compact(Revision(300))), "0e0101ac02".into()),
        (ask(Ask::ReadIndex), "0e0102".into()),
        (ask(Ask::Admin(Admin::AddLearner(member()))), format!("0e010300{m}")),
        (ask(Ask::Admin(Admin::Promote(7))), "0e01030107".into()),
        (ask(Ask::Admin(Admin::Remove(7))), "0e01030207".into()),
        (ask(Ask::Admin(Admin::Update(member()))), format!("0e010303{m}")),
        (ask(Ask::Admin(Admin::TransferLeadership(Some(7)))), "0e0103040107".into()),
        (ask(Ask::Admin(Admin::Standings)), "0e010305".into()),
        (answer(Answer::Txn(response)), "0f0100050101 0001016b017601020200".replace(' ', "")),
        (answer(Answer::Done { revision: Revision(5) }), "0f010105".into()),
        (answer(Answer::ReadIndex { index: 9 }), "0f010209".into()),
        (answer(Answer::Standings(vec![standing])), format!("0f010301{m}0100010300")),
        (answer(Answer::NotLeader { leader: Some(7) }), "0f01040107".into()),
        (answer(Answer::Failed(WireError::NoSpace)), "0f010502".into()),
        (answer(Answer::Unknown { why: "w".into() }), "0f01060177".into()),
        (answer(Answer::Membership(MembershipError::Busy)), "0f010700".into()),
        (Message::VolatileAsk, "10".into()),
        (Message::VolatileBegin { applied: 4 }, "1104".into()),
        (Message::VolatileFrame { frame }, "120166".into()),
        (Message::VolatileEnd, "13".into()),
        (Message::VolatileCopy { applied: 4, revision: 300 }, "1404ac02".into()),
        (Message::VolatileNone, "15".into()),
    ]
}

#[test]
fn the_bytes_of_every_message_are_pinned() {
    for (message, expected) in of_consensus().into_iter().chain(of_the_rest()) {
        let bytes = encode(&message).unwrap();
        assert_eq!(hex(&bytes), expected.replace(' ', ""), "{message:?}");
        assert_eq!(decode::<Message>(&bytes).unwrap(), message);
    }
}

#[test]
fn the_bytes_of_openings_and_errors_are_pinned() {
    let open = Open { version: 1, cluster: 300, from: 7, to: 8, membership: at(1, 0), kind: Kind::Forward };
    assert_eq!(hex(&encode(&open).unwrap()), "01ac02070801010003");
    let kinds = [Kind::Call, Kind::Append, Kind::Snapshot, Kind::Forward, Kind::Volatile];
    for (number, kind) in kinds.iter().enumerate() {
        assert_eq!(encode(kind).unwrap(), [number as u8]);
    }
    assert_eq!(hex(&encode(&Admit::Accepted { version: 1 }).unwrap()), "0001");
    let refusals = [
        Refusal::Version { asked: 3, oldest: 1, newest: 2 },
        Refusal::OtherCluster,
        Refusal::OtherMember,
        Refusal::Impostor,
        Refusal::Removed,
        Refusal::NotMember,
        Refusal::Malformed,
        Refusal::NotServing,
    ];
    for (number, refusal) in refusals.into_iter().enumerate() {
        assert_eq!(encode(&Admit::Refused(refusal)).unwrap()[..2], [1, number as u8]);
    }
    let (revision, why) = (Revision(1), String::from("w"));
    let errors = [
        (WireError::Compacted { requested: revision, oldest: revision }, "000101"),
        (WireError::Future { requested: revision, current: revision }, "010101"),
        (WireError::NoSpace, "02"),
        (WireError::TooLarge { size: 1, limit: 1 }, "030101"),
        (WireError::Invalid { why: why.clone() }, "040177"),
        (WireError::Corrupt { what: why.clone() }, "050177"),
        (WireError::Unavailable { why: why.clone() }, "060177"),
        (WireError::Io { what: why.clone() }, "070177"),
        (WireError::Malformed { what: why.clone() }, "080177"),
    ];
    for (error, expected) in errors {
        assert_eq!(hex(&encode(&error).unwrap()), expected, "{error:?}");
    }
    let errors = [
        (MembershipError::Busy, "00"),
        (MembershipError::NotMember { id: 7 }, "0107"),
        (MembershipError::NameTaken { name: why.clone(), holder: 7 }, "02017707"),
        (MembershipError::QuorumLost { why: why.clone() }, "030177"),
        (MembershipError::NotCaughtUp { name: why.clone(), lag: why.clone() }, "0401770177"),
        (MembershipError::NotVoter { name: why.clone() }, "050177"),
        (MembershipError::Invalid { why: why.clone() }, "060177"),
        (MembershipError::Unavailable { why: why.clone() }, "070177"),
        (MembershipError::TooOld { name: why, understands: 1, group: 2 }, "0801770102"),
    ];
    for (error, expected) in errors {
        assert_eq!(hex(&encode(&error).unwrap()), expected, "{error:?}");
    }
}

/// openraft's types lose nothing on the way through ours.
mod converted {
    use openraft::raft::{StreamAppendError, TransferLeaderError, TransferLeaderRequest, VoteResponse};

    use super::super::convert::{
        append, appended, entry, log_id, membership, raft_append, raft_appended, raft_membership,
        raft_transfer, raft_transferred, raft_vote, raft_vote_answer, raft_vote_request, transfer,
        transferred, vote, vote_answer, vote_request,
    };
    use super::super::{Append, Appended, Entry, LogPosition, MembershipRecord, Vote, VoteRequest};
    use super::{Bytes, at, member};

    #[test]
    fn votes_and_transfers_come_back() {
        let raft = raft_vote(super::vote());
        assert_eq!(vote(&raft), super::vote());
        let request = raft_vote_request(&VoteRequest { vote: vote(&raft), last: at(1, 2), transfer: true });
        assert!(request.leadership_transfer);
        assert_eq!(raft_vote_request(&vote_request(&request)), request);
        let response = VoteResponse::new(raft, Some(log_id(LogPosition { term: 1, index: 2 })), false);
        assert_eq!(raft_vote_answer(vote_answer(&response)).unwrap(), response);
        let request = TransferLeaderRequest::new(raft, 9, None);
        assert_eq!(raft_transfer(&transfer(&request)), request);
        for response in [
            Ok(()),
            Err(TransferLeaderError::VoteChanged {
                expected: raft,
                actual: raft_vote(Vote { term: 9, ..super::vote() }),
            }),
            Err(TransferLeaderError::LogNotFlushed { expected: None, actual: None }),
        ] {
            assert_eq!(raft_transferred(transferred(&response), &request).unwrap(), response);
        }
    }

    #[test]
    fn append_results_come_back() {
        let id = log_id(LogPosition { term: 1, index: 2 });
        for result in [
            Ok(None),
            Ok(Some(id)),
            Err(StreamAppendError::Conflict(id)),
            Err(StreamAppendError::HigherVote(raft_vote(super::vote()))),
        ] {
            assert_eq!(raft_appended(appended(result.clone())).unwrap(), result);
        }
        assert_eq!(raft_appended(Appended::Failed { why: "w".into() }).unwrap_err(), "w");
    }

    /// A new leader's first entry, as the log has it.
    fn wire_blank() -> Bytes {
        let id = log_id(LogPosition { term: 1, index: 0 });
        entry(&openraft::entry::RaftEntry::new_blank(id)).unwrap().payload
    }

    #[test]
    fn appends_with_a_gap_are_refused() {
        let payload = wire_blank();
        let blank = |index| Entry { position: LogPosition { term: 1, index }, payload: payload.clone() };
        let sent = |entries| Append { vote: super::vote(), previous: at(1, 4), entries, commit: at(1, 4) };
        let good = sent(vec![blank(5), blank(6)]);
        assert_eq!(append(&raft_append(good.clone()).unwrap()).unwrap(), good);
        assert!(raft_append(sent(vec![blank(5), blank(7)])).is_err());
        assert!(raft_append(sent(vec![blank(4)])).is_err());
    }

    #[test]
    fn a_membership_without_records_is_refused() {
        let record = MembershipRecord { voters: vec![vec![7, 8]], members: vec![member()] };
        assert!(raft_membership(record).is_err());
        let record = MembershipRecord { voters: vec![vec![7]], members: vec![member()] };
        assert_eq!(membership(&raft_membership(record.clone()).unwrap()), record);
    }
}

proptest! {
    #[test]
    fn no_bytes_whatever_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(Message::Append(append)) = decode::<Message>(&bytes) {
            let _ = convert::raft_append(append);
        }
        let _ = decode::<Open>(&bytes);
        let _ = decode::<Admit>(&bytes);
    }
}
