//! Cases of strategic merge patch: what it does to a pod (whose fields have every merge strategy),
//! a service account and a service.

use serde_json::{Value, json};

use super::apply;
use crate::patch::PatchError;
use crate::schema;
use crate::status::Status;

fn patched(kind: &str, current: Value, patch: Value) -> Result<Value, PatchError> {
    apply(schema::kind("", "v1", kind).unwrap(), current, patch)
}

fn pod(current: Value, patch: Value) -> Value {
    patched("Pod", json!({"spec": current}), json!({"spec": patch})).unwrap()["spec"].clone()
}

fn refusal(current: Value, patch: Value) -> String {
    patched("Pod", json!({"spec": current}), json!({"spec": patch})).unwrap_err().to_string()
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|element| element["name"].as_str().unwrap()).collect()
}

#[test]
fn objects_merge_and_nulls_delete() {
    let cases = [
        (json!({"nodeName": "a"}), json!({"hostname": "b"}), json!({"nodeName": "a", "hostname": "b"})),
        (json!({"nodeName": "a"}), json!({"nodeName": "b"}), json!({"nodeName": "b"})),
        (json!({"nodeName": "a"}), json!({"nodeName": null}), json!({})),
        (json!({}), json!({"nodeName": null}), json!({})),
        (
            json!({"nodeSelector": {"a": "1", "b": "2"}}),
            json!({"nodeSelector": {"b": null, "c": "3"}}),
            json!({"nodeSelector": {"a": "1", "c": "3"}}),
        ),
        (
            json!({"securityContext": {"runAsUser": 1, "seLinuxOptions": {"user": "u"}}}),
            json!({"securityContext": {"seLinuxOptions": {"role": "r"}}}),
            json!({"securityContext": {"runAsUser": 1, "seLinuxOptions": {"user": "u", "role": "r"}}}),
        ),
        // A value that is new is taken whole, without the nulls in it.
        (
            json!({}),
            json!({"securityContext": {"runAsUser": null, "seLinuxOptions": {"user": null, "role": "r"}}}),
            json!({"securityContext": {"seLinuxOptions": {"role": "r"}}}),
        ),
        // A value of another type replaces.
        (
            json!({"nodeSelector": "x"}),
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"a": "1"}}),
        ),
    ];
    for (current, patch, expected) in cases {
        assert_eq!(pod(current, patch.clone()), expected, "{patch}");
    }
}

#[test]
fn objects_can_be_replaced_or_emptied() {
    let current = json!({"nodeSelector": {"a": "1", "b": "2"}});
    for (patch, expected) in [
        (json!({"nodeSelector": {"$patch": "replace", "c": "3"}}), json!({"nodeSelector": {"c": "3"}})),
        (json!({"nodeSelector": {"$patch": "delete"}}), json!({"nodeSelector": {}})),
        (
            json!({"nodeSelector": {"$patch": "merge", "a": "9"}}),
            json!({"nodeSelector": {"a": "9", "b": "2"}}),
        ),
        (json!({"$patch": "replace", "hostname": "h"}), json!({"hostname": "h"})),
        // Where there is nothing to replace or delete, the directive leaves nothing behind.
        (json!({"securityContext": {"$patch": "delete"}}), json!({"nodeSelector": {"a": "1", "b": "2"}})),
    ] {
        assert_eq!(pod(current.clone(), patch.clone()), expected, "{patch}");
    }
}

#[test]
fn lists_without_a_merge_strategy_are_replaced() {
    let current = json!({"tolerations": [{"key": "a"}], "containers": [{"name": "c", "args": ["1", "2"]}]});
    let patch = json!({"tolerations": [{"key": "b"}], "containers": [{"name": "c", "args": ["3"]}]});
    assert_eq!(pod(current, patch.clone()), patch);
}

#[test]
fn lists_with_a_merge_key_merge_element_by_element() {
    let current = json!({"containers": [
        {"name": "a", "image": "1", "env": [{"name": "X", "value": "x"}]},
        {"name": "b", "image": "2"},
    ]});
    let cases = [
        // A field of one element.
        (
            json!({"containers": [{"name": "b", "image": "3"}]}),
            json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "x"}]}, {"name": "b", "image": "3"}]),
        ),
        // Deeper down.
        (
            json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "y"}, {"name": "Y", "value": "z"}]}]}),
            json!([
                {"name": "a", "image": "1", "env": [{"name": "X", "value": "y"}, {"name": "Y", "value": "z"}]},
                {"name": "b", "image": "2"},
            ]),
        ),
        // A field of an element goes.
        (
            json!({"containers": [{"name": "a", "env": null}]}),
            json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]),
        ),
        // An element goes; naming one that is not there is no error.
        (
            json!({"containers": [{"$patch": "delete", "name": "a"}, {"$patch": "delete", "name": "z"}]}),
            json!([{"name": "b", "image": "2"}]),
        ),
        // The whole list is replaced.
        (json!({"containers": [{"name": "z"}, {"$patch": "replace"}]}), json!([{"name": "z"}])),
        (json!({"containers": [{"$patch": "replace"}]}), json!([])),
        // Merging is what happens anyway.
        (
            json!({"containers": [{"$patch": "merge", "name": "b", "image": "4"}]}),
            json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "x"}]}, {"name": "b", "image": "4"}]),
        ),
        // One element is emptied but for what the patch says.
        (
            json!({"containers": [{"name": "b", "resources": {"limits": {"cpu": "1"}, "requests": null}}]}),
            json!([
                {"name": "a", "image": "1", "env": [{"name": "X", "value": "x"}]},
                {"name": "b", "image": "2", "resources": {"limits": {"cpu": "1"}}},
            ]),
        ),
    ];
    for (patch, expected) in cases {
        assert_eq!(pod(current.clone(), patch.clone())["containers"], expected, "{patch}");
    }
}

#[test]
fn merge_keys_need_not_be_text() {
    let service = json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 443, "name": "b"}]}});
    let patch =
        json!({"spec": {"ports": [{"port": 443, "targetPort": 8443}, {"$patch": "delete", "port": 80}]}});
    assert_eq!(
        patched("Service", service, patch).unwrap(),
        json!({"spec": {"ports": [{"port": 443, "name": "b", "targetPort": 8443}]}})
    );
}

#[test]
fn new_lists_and_elements_lose_their_directives() {
    let patch = json!({"containers": [
        {"name": "a", "image": null, "env": [{"$patch": "delete", "name": "X"}, {"name": "Y"}]},
        {"$patch": "delete", "name": "b"},
    ]});
    let expected = json!({"containers": [{"name": "a", "env": [{"name": "Y"}]}]});
    assert_eq!(pod(json!({}), patch.clone()), expected);
    let ordered = json!({"$setElementOrder/containers": [{"name": "a"}], "containers": patch["containers"]});
    assert_eq!(pod(json!({}), ordered), expected);
    let into_empty = pod(json!({"containers": [{"name": "z"}]}), patch);
    assert_eq!(into_empty["containers"], json!([{"name": "a", "env": [{"name": "Y"}]}, {"name": "z"}]));
}

#[test]
fn patched_elements_keep_the_patch_s_order_and_the_others_their_places() {
    let list = |names: &[&str]| -> Value { names.iter().map(|n| json!({"name": n})).collect() };
    for (before, patch, order, after) in [
        // Without an order: new elements come before what stood after the last element named.
        (vec!["a", "b", "c"], vec!["b"], None, vec!["a", "b", "c"]),
        (vec!["a", "b"], vec!["z"], None, vec!["z", "a", "b"]),
        (vec!["a", "b"], vec!["b", "a"], None, vec!["b", "a"]),
        (vec!["a", "b"], vec!["b", "z"], None, vec!["a", "b", "z"]),
        // With one.
        (vec!["a", "b"], vec!["z"], Some(vec!["a", "z", "b"]), vec!["a", "z", "b"]),
        (vec!["a", "b", "c"], vec![], Some(vec!["c", "a"]), vec!["b", "c", "a"]),
        (vec!["a", "b", "c"], vec![], Some(vec!["c", "b", "a"]), vec!["c", "b", "a"]),
        // Elements that only the server has keep their neighbours.
        (vec!["a", "x", "b"], vec![], Some(vec!["a", "b"]), vec!["a", "x", "b"]),
        (vec!["x", "a", "b"], vec!["c"], Some(vec!["a", "b", "c"]), vec!["x", "a", "b", "c"]),
        (vec!["a", "b"], vec!["b"], Some(vec!["b", "gone"]), vec!["a", "b"]),
    ] {
        let mut body = json!({});
        if !patch.is_empty() {
            body["containers"] = list(&patch);
        }
        if let Some(order) = &order {
            body["$setElementOrder/containers"] = list(order);
        }
        let result = pod(json!({"containers": list(&before)}), body.clone());
        assert_eq!(names(&result["containers"]), after, "{before:?} {body}");
    }
}

#[test]
fn an_element_is_removed_and_the_rest_ordered_as_kubectl_apply_asks() {
    let current = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]});
    let patch = json!({
        "$setElementOrder/containers": [{"name": "b"}],
        "containers": [{"name": "b", "image": "3"}, {"$patch": "delete", "name": "a"}],
    });
    assert_eq!(pod(current, patch), json!({"containers": [{"name": "b", "image": "3"}]}));
}

#[test]
fn orders_without_a_list_are_let_pass() {
    let patch = json!({"$setElementOrder/containers": [{"name": "a"}]});
    assert_eq!(pod(json!({"hostname": "h"}), patch), json!({"hostname": "h"}));
}

#[test]
fn lists_of_scalars_merge_as_sets() {
    let finalizers = |current: Value, patch: Value| {
        patched("Pod", json!({"metadata": current}), json!({"metadata": patch})).unwrap()["metadata"].clone()
    };
    let current = json!({"finalizers": ["a", "b", "c"]});
    for (patch, expected) in [
        (json!({"finalizers": ["b", "z"]}), json!(["a", "b", "z", "c"])),
        (json!({"finalizers": []}), json!(["a", "b", "c"])),
        (json!({"$deleteFromPrimitiveList/finalizers": ["a", "z"]}), json!(["b", "c"])),
        (json!({"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["z"]}), json!(["z", "b", "c"])),
        (
            json!({"$setElementOrder/finalizers": ["c", "z", "b"], "finalizers": ["z"],
                "$deleteFromPrimitiveList/finalizers": ["a"]}),
            json!(["c", "z", "b"]),
        ),
        (json!({"finalizers": null}), Value::Null),
    ] {
        assert_eq!(finalizers(current.clone(), patch.clone())["finalizers"], expected, "{patch}");
    }
    assert_eq!(finalizers(json!({}), json!({"$deleteFromPrimitiveList/finalizers": ["a"]})), json!({}));
    assert_eq!(finalizers(json!({}), json!({"finalizers": ["a"]})), json!({"finalizers": ["a"]}));
}

#[test]
fn retained_keys_clear_the_others() {
    let current = json!({"volumes": [
        {"name": "v", "configMap": {"name": "c", "optional": true}},
        {"name": "w", "emptyDir": {}},
    ]});
    let patch =
        json!({"volumes": [{"$retainKeys": ["name", "secret"], "name": "v", "secret": {"secretName": "s"}}]});
    assert_eq!(
        pod(current.clone(), patch),
        json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}, {"name": "w", "emptyDir": {}}]})
    );
    // What the patch deletes need not be listed; what it sets must be.
    let patch = json!({"volumes": [{"$retainKeys": ["name", "secret"], "name": "v", "configMap": null}]});
    assert_eq!(pod(current.clone(), patch)["volumes"][0], json!({"name": "v"}));
    let patch = json!({"volumes": [{"$retainKeys": ["name"], "name": "v", "secret": {}}]});
    assert_eq!(refusal(current.clone(), patch), "invalid patch format of retainKeys");
    let patch = json!({"volumes": [{"$retainKeys": "name", "name": "v"}]});
    assert_eq!(refusal(current, patch), "invalid patch format of retainKeys");
    // A new element does not keep the directive.
    let patch = json!({"volumes": [{"$retainKeys": ["name", "emptyDir"], "name": "n", "emptyDir": {}}]});
    assert_eq!(pod(json!({"volumes": []}), patch), json!({"volumes": [{"name": "n", "emptyDir": {}}]}));
}

#[test]
fn maps_of_any_names_merge_by_name() {
    let current = json!({"metadata": {"labels": {"a": "1"}, "annotations": {"n": "x"}}});
    let patch = json!({"metadata": {"labels": {"a": null, "b": "2"}, "annotations": {"n": "y"}}});
    assert_eq!(
        patched("Pod", current, patch).unwrap(),
        json!({"metadata": {"labels": {"b": "2"}, "annotations": {"n": "y"}}})
    );
}

#[test]
fn what_makes_no_sense_is_refused_with_kubernetes_words() {
    let current = json!({"containers": [{"name": "a", "args": ["1"]}], "nodeSelector": {"a": "1"}});
    for (patch, text) in [
        (
            json!({"nodeSelector": {"$patch": "grow", "b": 1}}),
            "unknown patch type: grow in map: map[$patch:grow b:1]",
        ),
        (
            json!({"containers": [{"$patch": "grow", "name": "a"}]}),
            "unknown patch type: grow in map: map[$patch:grow name:a]",
        ),
        (
            json!({"containers": [{"image": "x"}]}),
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            json!({"containers": [{"$patch": "delete", "image": "x"}]}),
            "map: map[$patch:delete image:x] does not contain declared merge key: name",
        ),
        (json!({"containers": ["a"]}), "list element types are not identical: [[map[args:[1] name:a]] [a]]"),
        (
            json!({"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]}),
            "The order in patch list:\n[map[name:a]]\n doesn't match $setElementOrder list:\n[map[name:b]]\n",
        ),
        (
            json!({"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
                "containers": [{"name": "b"}, {"name": "a"}]}),
            "The order in patch list:\n[map[name:b] map[name:a]]\n doesn't match $setElementOrder list:\n[map[name:a] map[name:b]]\n",
        ),
        (json!({"$setElementOrder/containers": "a"}), "invalid patch format of setElementOrder list"),
        (json!({"$setElementOrder/": []}), "invalid patch format of setElementOrder list"),
        (
            json!({"$setElementOrder/nothing": []}),
            "unable to find api field in struct PodSpec for the json field \"nothing\"",
        ),
        (json!({"$deleteFromPrimitiveList": ["a"]}), "invalid patch format of primitive list"),
        (json!({"$deleteFromPrimitiveList/containers": ["a"]}), "invalid patch format of primitive list"),
        (
            json!({"containers": [{"name": "a", "$deleteFromPrimitiveList/args": ["1"]}]}),
            "invalid patch format of primitive list",
        ),
    ] {
        assert_eq!(refusal(current.clone(), patch.clone()), text, "{patch}");
    }
    let error = patched("Pod", json!({}), json!([1])).unwrap_err();
    assert_eq!(error, PatchError::Malformed("invalid JSON document".to_owned()));
    assert_eq!(Status::from(error).code, 400);
    let lists = patched(
        "Pod",
        json!({"metadata": {"finalizers": [["a"]]}}),
        json!({"metadata": {"finalizers": [["b"]]}}),
    );
    assert_eq!(lists, Err(PatchError::Unprocessable("lists of lists are not supported".to_owned())));
}
