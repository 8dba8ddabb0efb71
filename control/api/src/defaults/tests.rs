//! What objects look like once they have their defaults.

use serde_json::{Value, json};

use super::{apply, new_namespace, pod_template, service_account_alias, token_request};
use crate::scheme;

fn defaulted(plural: &str, mut object: Value) -> Value {
    let resource = scheme::by_gvr("", "v1", plural).unwrap();
    apply(resource, &mut object);
    let once = object.clone();
    apply(resource, &mut object);
    assert_eq!(object, once, "applying defaults twice changes nothing");
    object
}

fn pod_spec(spec: Value) -> Value {
    defaulted("pods", json!({"spec": spec}))["spec"].clone()
}

fn container(container: Value) -> Value {
    pod_spec(json!({"containers": [container]}))["containers"][0].clone()
}

fn volume(volume: Value) -> Value {
    pod_spec(json!({"volumes": [volume]}))["volumes"][0].clone()
}

#[test]
fn a_bare_pod_gets_what_kubernetes_gives_it() {
    assert_eq!(
        defaulted(
            "pods",
            json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
        ),
        json!({"metadata": {"name": "a"}, "spec": {
            "containers": [{
                "name": "c", "image": "i", "imagePullPolicy": "Always", "resources": {},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": true,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "terminationGracePeriodSeconds": 30,
        }})
    );
}

#[test]
fn what_a_pod_says_stays() {
    let spec = json!({
        "containers": [{
            "name": "c", "image": "i:1", "imagePullPolicy": "Never", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "0"}},
            "terminationMessagePath": "/x", "terminationMessagePolicy": "FallbackToLogsOnError",
        }],
        "dnsPolicy": "None", "enableServiceLinks": false, "restartPolicy": "Never", "schedulerName": "mine",
        "securityContext": {"runAsUser": 0}, "terminationGracePeriodSeconds": 0,
        "serviceAccountName": "a", "serviceAccount": "a",
    });
    assert_eq!(pod_spec(spec.clone()), spec);
}

#[test]
fn containers_of_all_sorts_are_defaulted() {
    let spec = pod_spec(json!({
        "initContainers": [{"name": "a", "image": "i:1"}],
        "containers": [{"name": "b", "image": "i:1"}],
        "ephemeralContainers": [{"name": "c", "image": "i:1"}],
    }));
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        assert_eq!(spec[list][0]["imagePullPolicy"], "IfNotPresent", "{list}");
        assert_eq!(spec[list][0]["terminationMessagePolicy"], "File", "{list}");
    }
}

#[test]
fn ports_probes_hooks_and_variables_are_completed() {
    let completed = container(json!({
        "name": "c", "image": "i",
        "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}],
        "livenessProbe": {"httpGet": {"port": 80}},
        "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 5, "timeoutSeconds": 0},
        "startupProbe": {"grpc": {"port": 1}},
        "lifecycle": {"preStop": {"httpGet": {"port": "x", "path": "/bye"}}, "postStart": {"exec": {}}},
        "env": [
            {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1000m"}}},
        ],
    }));
    assert_eq!(
        completed["ports"],
        json!([{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}])
    );
    let counts =
        json!({"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3});
    let with = |handler: &str, value: Value, period: i64| {
        let mut probe = counts.clone();
        probe[handler] = value;
        probe["periodSeconds"] = period.into();
        probe
    };
    assert_eq!(
        completed["livenessProbe"],
        with("httpGet", json!({"port": 80, "path": "/", "scheme": "HTTP"}), 10)
    );
    assert_eq!(completed["readinessProbe"], with("tcpSocket", json!({"port": 80}), 5));
    assert_eq!(completed["startupProbe"], with("grpc", json!({"port": 1, "service": ""}), 10));
    assert_eq!(
        completed["lifecycle"]["preStop"]["httpGet"],
        json!({"port": "x", "path": "/bye", "scheme": "HTTP"})
    );
    assert_eq!(completed["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
    assert_eq!(completed["env"][1]["valueFrom"]["resourceFieldRef"]["divisor"], "0");
    assert_eq!(completed["env"][2]["valueFrom"]["resourceFieldRef"]["divisor"], "1");
}

#[test]
fn volumes_are_completed() {
    for (given, expected) in [
        (json!({"name": "v"}), json!({"name": "v", "emptyDir": {}})),
        (json!({"name": "v", "secret": null}), json!({"name": "v", "secret": null, "emptyDir": {}})),
        (
            json!({"name": "v", "emptyDir": {"sizeLimit": "1024Mi"}}),
            json!({"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}),
        ),
        (
            json!({"name": "v", "hostPath": {"path": "/p"}}),
            json!({"name": "v", "hostPath": {"path": "/p", "type": ""}}),
        ),
        (
            json!({"name": "v", "secret": {"secretName": "s"}}),
            json!({"name": "v", "secret": {"secretName": "s", "defaultMode": 420}}),
        ),
        (
            json!({"name": "v", "configMap": {"name": "c", "defaultMode": 0}}),
            json!({"name": "v", "configMap": {"name": "c", "defaultMode": 0}}),
        ),
        (
            json!({"name": "v", "downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.labels"}}]}}),
            json!({"name": "v", "downwardAPI": {"defaultMode": 420, "items": [
                {"path": "p", "fieldRef": {"fieldPath": "metadata.labels", "apiVersion": "v1"}}]}}),
        ),
        (
            json!({"name": "v", "projected": {"sources": [
                {"serviceAccountToken": {"path": "t"}},
                {"downwardAPI": {"items": [{"path": "p", "resourceFieldRef": {"resource": "limits.cpu", "containerName": "c"}}]}},
                {"configMap": {"name": "c"}},
            ]}}),
            json!({"name": "v", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}},
                {"downwardAPI": {"items": [
                    {"path": "p", "resourceFieldRef": {"resource": "limits.cpu", "containerName": "c", "divisor": "0"}}]}},
                {"configMap": {"name": "c"}},
            ]}}),
        ),
        (
            json!({"name": "v", "image": {"reference": "a:latest"}}),
            json!({"name": "v", "image": {"reference": "a:latest", "pullPolicy": "Always"}}),
        ),
        (
            json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "1024Ki"}}}}}}),
            json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {
                "resources": {"requests": {"storage": "1Mi"}}, "volumeMode": "Filesystem"}}}}),
        ),
    ] {
        assert_eq!(volume(given.clone()), expected, "{given}");
    }
}

#[test]
fn requests_follow_limits_and_quantities_are_canonical() {
    let resources = |resources: Value| {
        container(json!({"name": "c", "image": "i", "resources": resources}))["resources"].clone()
    };
    assert_eq!(
        resources(json!({"limits": {"cpu": 0.5, "memory": "1024Mi"}, "requests": {"cpu": "0.1"}})),
        json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}})
    );
    assert_eq!(resources(json!({"requests": {"cpu": "1u"}})), json!({"requests": {"cpu": "1m"}}));
    assert_eq!(
        resources(json!({"limits": {"cpu": "many"}})),
        json!({"limits": {"cpu": "many"}, "requests": {"cpu": "many"}})
    );
}

#[test]
fn a_pod_with_limits_of_its_own_requests_what_its_containers_do() {
    let spec = pod_spec(json!({
        "resources": {"limits": {"cpu": "4", "memory": "4Gi"}},
        "initContainers": [
            {"name": "s", "image": "i", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
            {"name": "a", "image": "i", "resources": {"requests": {"cpu": "2"}}},
        ],
        "containers": [
            {"name": "b", "image": "i", "resources": {"requests": {"cpu": "500m"}}},
            {"name": "c", "image": "i", "resources": {"requests": {"cpu": "500m", "example.com/x": "1"}}},
        ],
    }));
    assert_eq!(
        spec["resources"],
        json!({"limits": {"cpu": "4", "memory": "4Gi"}, "requests": {"cpu": "2100m", "memory": "4Gi"}})
    );
    let without = pod_spec(
        json!({"containers": [{"name": "b", "image": "i", "resources": {"requests": {"cpu": "1"}}}]}),
    );
    assert_eq!(without.get("resources"), None);
    let only_requests = pod_spec(json!({"resources": {"requests": {"cpu": "1"}}}));
    assert_eq!(only_requests["resources"], json!({"requests": {"cpu": "1"}}));
}

#[test]
fn in_the_node_s_network_ports_are_the_node_s() {
    let spec = pod_spec(json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i", "ports": [
        {"containerPort": 80}, {"containerPort": 81, "hostPort": 81}]}]}));
    let ports: Vec<_> =
        spec["containers"][0]["ports"].as_array().unwrap().iter().map(|p| p["hostPort"].clone()).collect();
    assert_eq!(ports, [80, 81]);
    assert_eq!(container(json!({"ports": [{"containerPort": 80}]}))["ports"][0].get("hostPort"), None);
}

#[test]
fn the_service_account_stands_under_both_names() {
    for (given, expected) in [
        (json!({"serviceAccountName": "a"}), Some("a")),
        (json!({"serviceAccount": "b"}), Some("b")),
        (json!({"serviceAccountName": "a", "serviceAccount": "b"}), Some("a")),
        (json!({"serviceAccount": ""}), None),
    ] {
        let spec = pod_spec(given.clone());
        assert_eq!(spec.get("serviceAccount").and_then(Value::as_str), expected, "{given}");
        assert_eq!(spec.get("serviceAccountName").and_then(Value::as_str), expected, "{given}");
    }
    let mut pod = json!({"spec": {"serviceAccountName": "late"}});
    service_account_alias(&mut pod);
    assert_eq!(pod["spec"]["serviceAccount"], "late");
}

#[test]
fn a_pod_s_address_and_its_list_of_addresses_agree() {
    for (given, expected) in [
        (json!({"podIP": "1.1.1.1"}), json!({"podIP": "1.1.1.1", "podIPs": [{"ip": "1.1.1.1"}]})),
        (
            json!({"podIPs": [{"ip": "1.1.1.1"}, {"ip": "::1"}]}),
            json!({"podIP": "1.1.1.1", "podIPs": [{"ip": "1.1.1.1"}, {"ip": "::1"}]}),
        ),
        (
            json!({"podIP": "2.2.2.2", "podIPs": [{"ip": "1.1.1.1"}]}),
            json!({"podIP": "2.2.2.2", "podIPs": [{"ip": "2.2.2.2"}]}),
        ),
        (json!({"phase": "Pending"}), json!({"phase": "Pending"})),
    ] {
        assert_eq!(defaulted("pods", json!({"status": given}))["status"], expected, "{given}");
    }
}

#[test]
fn templates_get_the_spec_s_defaults_but_not_the_pod_s() {
    let mut template =
        json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}}}]}});
    pod_template(&mut template);
    assert_eq!(template["spec"]["restartPolicy"], "Always");
    assert_eq!(template["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(template["spec"].get("enableServiceLinks"), None);
    assert_eq!(template["spec"]["containers"][0]["resources"], json!({"limits": {"cpu": "1"}}));
}

#[test]
fn namespaces_are_labelled_active_and_finalized() {
    let mut namespace = defaulted("namespaces", json!({"metadata": {"name": "a", "labels": {"x": "y"}}}));
    new_namespace(&mut namespace);
    assert_eq!(
        namespace,
        json!({
            "metadata": {"name": "a", "labels": {"x": "y", "kubernetes.io/metadata.name": "a"}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        })
    );
    new_namespace(&mut namespace);
    assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
    let finalized = json!({"metadata": {"generateName": "a-"}, "spec": {"finalizers": []}, "status": {"phase": "Terminating"}});
    assert_eq!(defaulted("namespaces", finalized.clone()), finalized);
}

#[test]
fn secrets_are_opaque_and_keep_no_plain_text() {
    assert_eq!(
        defaulted("secrets", json!({"data": {"a": "b2xk", "b": "Yg=="}, "stringData": {"a": "new"}})),
        json!({"type": "Opaque", "data": {"a": "bmV3", "b": "Yg=="}})
    );
    assert_eq!(
        defaulted("secrets", json!({"type": "x/y", "stringData": {"a": ""}})),
        json!({"type": "x/y", "data": {"a": ""}})
    );
    assert_eq!(defaulted("secrets", json!({"stringData": {}})), json!({"type": "Opaque"}));
}

#[test]
fn nodes_can_give_away_what_they_have() {
    assert_eq!(
        defaulted(
            "nodes",
            json!({"spec": {"podCIDR": "10.0.0.0/24"}, "status": {"capacity": {"cpu": "2000m", "memory": "1024Ki"}}})
        ),
        json!({
            "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]},
            "status": {"capacity": {"cpu": "2", "memory": "1Mi"}, "allocatable": {"cpu": "2", "memory": "1Mi"}},
        })
    );
    let own = json!({"status": {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "1"}}});
    assert_eq!(defaulted("nodes", own.clone()), own);
}

#[test]
fn other_kinds_stay_as_they_are() {
    for (plural, object) in [
        ("configmaps", json!({"data": {"a": "b"}})),
        ("serviceaccounts", json!({"secrets": [{"name": "a"}]})),
        ("events", json!({"reason": "x", "involvedObject": {}})),
    ] {
        assert_eq!(defaulted(plural, object.clone()), object);
    }
    let mut request = json!({"spec": {"audiences": ["a"]}});
    token_request(&mut request);
    assert_eq!(request, json!({"spec": {"audiences": ["a"], "expirationSeconds": 3600}}));
}

#[test]
fn objects_of_the_wrong_shape_are_left_for_validation() {
    for spec in [json!("x"), json!({"containers": {}, "volumes": [1], "securityContext": 3})] {
        let pod = defaulted("pods", json!({"spec": spec}));
        assert_eq!(pod["spec"].get("containers"), spec.get("containers"));
    }
    assert_eq!(defaulted("pods", json!([1])), json!([1]));
}
