//! What etcd does with the keys that a range found: filters, order, limit.

use std::cmp::Ordering;

use bytes::Bytes;
use sampan_store::{KeyValue, RangeRequest as StoreRange, Revision};

use crate::context::number;
use crate::keys;
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::proto::etcdserverpb::{RangeRequest, RangeResponse};
use crate::proto::mvccpb;

/// What to ask of the store: everything, where the first keys in key order may not be the answer.
pub(crate) fn asked(request: &RangeRequest) -> StoreRange {
    let end = keys::end(&request.range_end);
    let hidden = keys::touches_hidden(&request.key, end.as_ref());
    let all = hidden || sorts(request) || filters(request);
    let limit = usize::try_from(request.limit).unwrap_or(0);
    // As etcd: one more than wanted. It shows where keys are put in order without being asked to.
    let limit = if all || limit == 0 { 0 } else { limit + 1 };
    StoreRange {
        revision: u64::try_from(request.revision).ok().filter(|at| *at > 0).map(Revision),
        limit,
        // Another order may be by value.
        keys_only: request.keys_only && request.sort_target() != SortTarget::Value,
        count_only: request.count_only && !hidden,
        start: request.key.clone(),
        end,
    }
}

fn sorts(request: &RangeRequest) -> bool {
    request.sort_order() != SortOrder::None
}

fn filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

/// The answer to a request, without its header, from what the store found.
pub(crate) fn answer(request: &RangeRequest, mut kvs: Vec<KeyValue>, count: u64) -> RangeResponse {
    let mut count = count;
    if keys::touches_hidden(&request.key, keys::end(&request.range_end).as_ref()) {
        kvs.retain(|kv| !keys::is_hidden(&kv.key));
        count = kvs.len() as u64;
    }
    if request.count_only {
        kvs.clear();
    }
    kvs.retain(|kv| wanted(request, kv));
    sort(request, &mut kvs);
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let more = limit > 0 && kvs.len() > limit;
    if more {
        kvs.truncate(limit);
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    RangeResponse { header: None, kvs: kvs.into_iter().map(message).collect(), more, count: number(count) }
}

fn wanted(request: &RangeRequest, kv: &KeyValue) -> bool {
    let within = |value: u64, min: i64, max: i64| {
        (min == 0 || number(value) >= min) && (max == 0 || number(value) <= max)
    };
    within(kv.mod_revision.0, request.min_mod_revision, request.max_mod_revision)
        && within(kv.create_revision.0, request.min_create_revision, request.max_create_revision)
}

fn sort(request: &RangeRequest, kvs: &mut [KeyValue]) {
    let target = request.sort_target();
    if target == SortTarget::Key && request.sort_order() != SortOrder::Descend {
        return;
    }
    let compare = |a: &KeyValue, b: &KeyValue| -> Ordering {
        match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        }
    };
    match request.sort_order() {
        SortOrder::Descend => kvs.sort_by(|a, b| compare(b, a)),
        SortOrder::None | SortOrder::Ascend => kvs.sort_by(compare),
    }
}

/// A key as the wire has it.
pub(crate) fn message(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: number(kv.create_revision.0),
        mod_revision: number(kv.mod_revision.0),
        version: number(kv.version),
        value: kv.value,
        lease: kv.lease.0,
    }
}
