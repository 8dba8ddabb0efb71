//! Transactions: from the wire to the store, and what came of them back to the wire.
//!
//! A step of a request may be several of the store (a deletion around the cluster's own keys), so
//! going back walks the request again, beside the results.

use bytes::Bytes;
use sampan_store::{Compare, KeyValue, LeaseId, Op, OpResult, Operand, Relation, Txn, TxnResponse};
use tonic::Status;

use crate::context::number;
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::response_op::Response;
use crate::proto::etcdserverpb::{self as pb, RequestOp, ResponseHeader, ResponseOp, TxnRequest};
use crate::{keys, range, status};

/// The store's form of a transaction that was checked.
pub(crate) fn txn(request: &TxnRequest) -> Txn {
    Txn {
        compares: request.compare.iter().map(compare).collect(),
        success: ops(&request.success),
        failure: ops(&request.failure),
    }
}

fn compare(compare: &pb::Compare) -> Compare {
    let number = |union: fn(&TargetUnion) -> Option<i64>| {
        compare.target_union.as_ref().and_then(union).unwrap_or_default()
    };
    // An operand of another kind than the target counts as none.
    let operand = match compare.target() {
        CompareTarget::Version => Operand::Version(number(|union| match union {
            TargetUnion::Version(version) => Some(*version),
            _ => None,
        })),
        CompareTarget::Create => Operand::CreateRevision(number(|union| match union {
            TargetUnion::CreateRevision(revision) => Some(*revision),
            _ => None,
        })),
        CompareTarget::Mod => Operand::ModRevision(number(|union| match union {
            TargetUnion::ModRevision(revision) => Some(*revision),
            _ => None,
        })),
        CompareTarget::Lease => Operand::Lease(number(|union| match union {
            TargetUnion::Lease(lease) => Some(*lease),
            _ => None,
        })),
        CompareTarget::Value => Operand::Value(match &compare.target_union {
            Some(TargetUnion::Value(value)) => value.clone(),
            _ => Bytes::new(),
        }),
    };
    let relation = match compare.result() {
        CompareResult::Equal => Relation::Equal,
        CompareResult::Greater => Relation::Greater,
        CompareResult::Less => Relation::Less,
        CompareResult::NotEqual => Relation::NotEqual,
    };
    Compare::Each { key: compare.key.clone(), end: keys::end(&compare.range_end), relation, operand }
}

fn ops(ops: &[RequestOp]) -> Vec<Op> {
    let mut all = Vec::with_capacity(ops.len());
    for op in ops {
        match &op.request {
            Some(Request::RequestRange(request)) => all.push(Op::Range(range::asked(request))),
            Some(Request::RequestPut(request)) => all.push(put(request)),
            Some(Request::RequestDeleteRange(request)) => all.extend(deletes(request)),
            Some(Request::RequestTxn(request)) => all.push(Op::Txn(Box::new(txn(request)))),
            None => {}
        }
    }
    all
}

/// The store's form of a put.
pub(crate) fn put(request: &pb::PutRequest) -> Op {
    if request.lease == 0 && !request.ignore_value && !request.ignore_lease {
        return Op::Put { key: request.key.clone(), value: request.value.clone() };
    }
    Op::Write {
        key: request.key.clone(),
        value: (!request.ignore_value).then(|| request.value.clone()),
        lease: (!request.ignore_lease).then_some(LeaseId(request.lease)),
    }
}

/// The store's form of a deletion.
pub(crate) fn deletes(request: &pb::DeleteRangeRequest) -> Vec<Op> {
    let parts = keys::visible(&request.key, keys::end(&request.range_end).as_ref());
    parts.into_iter().map(|(key, end)| Op::Delete { key, end }).collect()
}

/// The answer to a transaction that the store ran; without the outer header's other fields.
pub(crate) fn answer(request: &TxnRequest, response: TxnResponse) -> Result<pb::TxnResponse, Status> {
    if let [OpResult::Refused(why)] = &*response.results {
        return Err(status::refused(why));
    }
    let after = number(response.revision.0);
    let changed = response.results.iter().any(changes);
    let mut walk = Walk { revision: if changed { after - 1 } else { after }, after };
    let responses = walk.branch(request, response.succeeded, response.results)?;
    Ok(pb::TxnResponse { header: None, succeeded: response.succeeded, responses })
}

fn changes(result: &OpResult) -> bool {
    match result {
        OpResult::Put { .. } => true,
        OpResult::Deleted { previous } => !previous.is_empty(),
        OpResult::Txn { results, .. } => results.iter().any(changes),
        _ => false,
    }
}

/// Steps of a request beside their results.
struct Walk {
    /// The revision that the next step meets.
    revision: i64,
    /// The revision of this transaction's changes.
    after: i64,
}

impl Walk {
    fn branch(
        &mut self,
        request: &TxnRequest,
        succeeded: bool,
        results: Vec<OpResult>,
    ) -> Result<Vec<ResponseOp>, Status> {
        let ops = if succeeded { &request.success } else { &request.failure };
        let mut results = results.into_iter();
        ops.iter().map(|op| Ok(ResponseOp { response: Some(self.step(op, &mut results)?) })).collect()
    }

    fn step(
        &mut self,
        op: &RequestOp,
        results: &mut impl Iterator<Item = OpResult>,
    ) -> Result<Response, Status> {
        Ok(match &op.request {
            Some(Request::RequestRange(request)) => match results.next() {
                Some(OpResult::Range(found)) => Response::ResponseRange(pb::RangeResponse {
                    header: self.header(),
                    ..range::answer(request, found.kvs, found.count)
                }),
                _ => return Err(unexpected()),
            },
            Some(Request::RequestPut(request)) => match results.next() {
                Some(OpResult::Put { previous }) => {
                    self.revision = self.after;
                    Response::ResponsePut(pb::PutResponse {
                        header: self.header(),
                        ..put_answer(request, previous)
                    })
                }
                _ => return Err(unexpected()),
            },
            Some(Request::RequestDeleteRange(request)) => {
                let answer = delete_answer(request, results)?;
                if answer.deleted > 0 {
                    self.revision = self.after;
                }
                Response::ResponseDeleteRange(pb::DeleteRangeResponse { header: self.header(), ..answer })
            }
            Some(Request::RequestTxn(request)) => match results.next() {
                Some(OpResult::Txn { succeeded, results }) => Response::ResponseTxn(pb::TxnResponse {
                    succeeded,
                    responses: self.branch(request, succeeded, results)?,
                    // As etcd: it knows no revision of its own.
                    header: Some(ResponseHeader::default()),
                }),
                _ => return Err(unexpected()),
            },
            None => return Err(status::key_not_found()),
        })
    }

    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: self.revision, ..ResponseHeader::default() })
    }
}

/// The answer to a put, without its header.
pub(crate) fn put_answer(request: &pb::PutRequest, previous: Option<KeyValue>) -> pb::PutResponse {
    pb::PutResponse { header: None, prev_kv: previous.filter(|_| request.prev_kv).map(range::message) }
}

/// The answer to a deletion, without its header.
pub(crate) fn delete_answer(
    request: &pb::DeleteRangeRequest,
    results: &mut impl Iterator<Item = OpResult>,
) -> Result<pb::DeleteRangeResponse, Status> {
    let mut all: Vec<KeyValue> = Vec::new();
    for _ in deletes(request) {
        match results.next() {
            Some(OpResult::Deleted { previous }) => all.extend(previous),
            _ => return Err(unexpected()),
        }
    }
    let deleted = number(all.len() as u64);
    if !request.prev_kv {
        all.clear();
    }
    let prev_kvs = all.into_iter().map(range::message).collect();
    Ok(pb::DeleteRangeResponse { header: None, deleted, prev_kvs })
}

/// The store answered another question.
pub(crate) fn unexpected() -> Status {
    Status::internal("etcdserver: the store's answer does not fit the request")
}
