//! What can be said of a request before the store sees it, in the order in which etcd says it.

use std::collections::HashSet;

use bytes::Bytes;
use tonic::Status;

use crate::keys;
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use crate::status;

pub(crate) fn range(request: &RangeRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(status::empty_key());
    }
    if SortOrder::try_from(request.sort_order).is_err() || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(status::invalid_sort());
    }
    Ok(())
}

pub(crate) fn put(request: &PutRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(status::empty_key());
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(status::value_provided());
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(status::lease_provided());
    }
    if keys::is_hidden(&request.key) { Err(status::hidden()) } else { Ok(()) }
}

pub(crate) fn delete(request: &DeleteRangeRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(status::empty_key());
    }
    let all = keys::visible(&request.key, keys::end(&request.range_end).as_ref());
    if all.is_empty() { Err(status::hidden()) } else { Ok(()) }
}

pub(crate) fn txn(request: &TxnRequest, max_ops: usize) -> Result<(), Status> {
    ops(request, max_ops)?;
    Intervals::of(&request.success)?;
    Intervals::of(&request.failure)?;
    Ok(())
}

fn ops(request: &TxnRequest, max_ops: usize) -> Result<(), Status> {
    let most = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = max_ops.checked_sub(most).ok_or_else(status::too_many_ops)?;
    for compare in &request.compare {
        if compare.key.is_empty() {
            return Err(status::empty_key());
        }
        if keys::touches_hidden(&compare.key, keys::end(&compare.range_end).as_ref()) {
            return Err(status::hidden());
        }
    }
    request.success.iter().chain(&request.failure).try_for_each(|op| match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete(request),
        Some(Request::RequestTxn(request)) => ops(request, left),
        None => Err(status::key_not_found()),
    })
}

/// What a branch writes: each key once, and none that it deletes before or beside that.
#[derive(Default)]
struct Intervals<'a> {
    puts: HashSet<&'a Bytes>,
    deletes: Vec<(&'a Bytes, Option<Bytes>)>,
}

impl<'a> Intervals<'a> {
    fn of(ops: &'a [RequestOp]) -> Result<Self, Status> {
        let mut all = Self::default();
        for op in ops {
            if let Some(Request::RequestDeleteRange(request)) = &op.request {
                all.deletes.push((&request.key, keys::end(&request.range_end)));
            }
        }
        for op in ops {
            let Some(Request::RequestTxn(inner)) = &op.request else { continue };
            let success = Self::of(&inner.success)?;
            let failure = Self::of(&inner.failure)?;
            all.check(&success)?;
            // Only one of the two branches runs.
            all.check(&failure)?;
            for inner in [success, failure] {
                all.puts.extend(inner.puts);
                all.deletes.extend(inner.deletes);
            }
        }
        for op in ops {
            if let Some(Request::RequestPut(request)) = &op.request {
                let this = Self { puts: HashSet::from([&request.key]), deletes: Vec::new() };
                all.check(&this)?;
                all.puts.insert(&request.key);
            }
        }
        Ok(all)
    }

    fn check(&self, other: &Self) -> Result<(), Status> {
        let deleted = |key: &&Bytes| self.deletes.iter().any(|(from, end)| within(key, from, end.as_ref()));
        if other.puts.iter().any(|key| self.puts.contains(key) || deleted(key)) {
            return Err(status::duplicate_key());
        }
        Ok(())
    }
}

fn within(key: &Bytes, from: &Bytes, end: Option<&Bytes>) -> bool {
    match end {
        None => key == from,
        Some(end) => key >= from && (end.is_empty() || key < end),
    }
}
