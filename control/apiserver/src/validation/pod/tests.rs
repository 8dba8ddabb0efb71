//! Whole pods: what is accepted, and what is said about each field that is not.

use serde_json::json;

use super::*;
use crate::validation::testing::texts;

/// A small pod as it is after defaulting.
pub(super) fn pod() -> Value {
    json!({
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {
            "containers": [container("c")],
            "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst",
            "terminationGracePeriodSeconds": 30,
            "serviceAccountName": "default",
            "schedulerName": "default-scheduler",
            "securityContext": {},
        },
    })
}

fn container(name: &str) -> Value {
    json!({
        "name": name,
        "image": "sampan/hello",
        "imagePullPolicy": "IfNotPresent",
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "resources": {},
    })
}

/// Complaints about a pod, one field of whose spec is other than in the small one.
fn with(field: &str, value: Value) -> Vec<String> {
    let mut pod = pod();
    pod["spec"][field] = value;
    texts(&create(&pod))
}

/// Complaints about a pod, one field of whose container is other than in the small one.
fn with_container(field: &str, value: Value) -> Vec<String> {
    let mut container = container("c");
    container[field] = value;
    with("containers", json!([container]))
}

#[test]
fn a_small_pod_is_fine() {
    assert_eq!(texts(&create(&pod())), [""; 0]);
}

#[test]
fn fields_of_the_spec() {
    let label = "must not contain dots";
    for (field, value, expected) in [
        ("containers", json!([]), "spec.containers: Required value"),
        (
            "restartPolicy",
            json!("Sometimes"),
            r#"spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never""#,
        ),
        ("restartPolicy", json!(""), "spec.restartPolicy: Required value"),
        (
            "dnsPolicy",
            json!("x"),
            r#"spec.dnsPolicy: Unsupported value: "x": supported values: "ClusterFirstWithHostNet", "ClusterFirst", "Default", "None""#,
        ),
        ("terminationGracePeriodSeconds", json!(null), "spec.terminationGracePeriodSeconds: Required value"),
        ("terminationGracePeriodSeconds", json!(-1), ""),
        (
            "activeDeadlineSeconds",
            json!(0),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
        ("hostname", json!("a.b"), &format!(r#"spec.hostname: Invalid value: "a.b": {label}"#)),
        ("subdomain", json!("a.b"), &format!(r#"spec.subdomain: Invalid value: "a.b": {label}"#)),
        (
            "preemptionPolicy",
            json!("x"),
            r#"spec.preemptionPolicy: Unsupported value: "x": supported values: "PreemptLowerPriority", "Never""#,
        ),
        (
            "overhead",
            json!({"cpu": "-1"}),
            r#"spec.overhead.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0"#,
        ),
        (
            "resourceClaims",
            json!([{"name": "a"}]),
            r#"spec.resourceClaims[0]: Invalid value: {"name":"a"}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"#,
        ),
        ("ephemeralContainers", json!([]), ""),
        ("hostnameOverride", json!("a.b"), ""),
    ] {
        assert_eq!(with(field, value.clone()).join("\n"), expected, "{field}: {value}");
    }
    for (field, value) in [
        ("serviceAccountName", json!("A")),
        ("nodeName", json!("A")),
        ("priorityClassName", json!("A")),
        ("runtimeClassName", json!("A")),
        ("hostnameOverride", json!("A")),
    ] {
        let found = with(field, value);
        assert_eq!(found.len(), 1, "{field}: {found:?}");
        assert!(
            found[0]
                .starts_with(&format!("spec.{field}: Invalid value: \"A\": a lowercase RFC 1123 subdomain"))
        );
    }
}

#[test]
fn fields_of_containers() {
    for (field, value, expected) in [
        ("name", json!(""), "spec.containers[0].name: Required value"),
        ("name", json!("a.b"), r#"spec.containers[0].name: Invalid value: "a.b": must not contain dots"#),
        ("image", json!(""), "spec.containers[0].image: Required value"),
        (
            "image",
            json!(" a"),
            r#"spec.containers[0].image: Invalid value: " a": must not have leading or trailing whitespace"#,
        ),
        (
            "imagePullPolicy",
            json!("x"),
            r#"spec.containers[0].imagePullPolicy: Unsupported value: "x": supported values: "Always", "IfNotPresent", "Never""#,
        ),
        ("imagePullPolicy", json!(null), "spec.containers[0].imagePullPolicy: Required value"),
        (
            "terminationMessagePolicy",
            json!("x"),
            r#"spec.containers[0].terminationMessagePolicy: Unsupported value: "x": supported values: "File", "FallbackToLogsOnError""#,
        ),
        (
            "ports",
            json!([{"containerPort": 0, "protocol": "TCP"}]),
            "spec.containers[0].ports[0].containerPort: Required value",
        ),
        (
            "ports",
            json!([{"containerPort": 65536, "hostPort": 70000, "protocol": "x"}]),
            "spec.containers[0].ports[0].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive\n\
             spec.containers[0].ports[0].hostPort: Invalid value: 70000: must be between 1 and 65535, inclusive\n\
             spec.containers[0].ports[0].protocol: Unsupported value: \"x\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            "ports",
            json!([{"name": "a", "containerPort": 1, "protocol": "TCP"}, {"name": "a", "containerPort": 2, "protocol": "TCP"}]),
            r#"spec.containers[0].ports[1].name: Duplicate value: "a""#,
        ),
        (
            "ports",
            json!([{"containerPort": 1, "hostPort": 9, "protocol": "TCP"}, {"containerPort": 2, "hostPort": 9, "protocol": "TCP"}]),
            r#"spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//9""#,
        ),
        ("restartPolicy", json!("OnFailure"), ""),
        (
            "restartPolicy",
            json!("x"),
            r#"spec.containers[0].restartPolicy: Unsupported value: "x": supported values: "Always", "Never", "OnFailure""#,
        ),
        (
            "restartPolicyRules",
            json!([{"action": "Restart", "exitCodes": {"operator": "Equals", "values": [3]}}]),
            "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used\n\
             spec.containers[0].restartPolicyRules[0].exitCodes.operator: Unsupported value: \"Equals\": supported values: \"In\", \"NotIn\"",
        ),
        (
            "restartPolicyRules",
            json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [3]}}]),
            "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used\n\
             spec.containers[0].restartPolicyRules[0].action: Unsupported value: \"RestartAllContainers\": supported values: \"Restart\"",
        ),
        (
            "resizePolicy",
            json!([{"resourceName": "disk", "restartPolicy": ""}]),
            "spec.containers[0].resizePolicy: Unsupported value: \"disk\": supported values: \"cpu\", \"memory\"\n\
             spec.containers[0].resizePolicy: Required value",
        ),
        (
            "volumeMounts",
            json!([{"name": "v", "mountPath": "/v"}]),
            r#"spec.containers[0].volumeMounts[0].name: Not found: "v""#,
        ),
    ] {
        assert_eq!(with_container(field, value.clone()).join("\n"), expected, "{field}: {value}");
    }
    assert_eq!(
        with("containers", json!([container("a"), container("a")])),
        [r#"spec.containers[1].name: Duplicate value: "a""#]
    );
}

#[test]
fn init_containers_are_simple_unless_they_stay() {
    let mut init = container("i");
    init["livenessProbe"] = json!({"tcpSocket": {"port": 1}, "successThreshold": 1});
    assert_eq!(
        with("initContainers", json!([init])),
        [
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"
        ]
    );
    init["restartPolicy"] = json!("Always");
    assert_eq!(with("initContainers", json!([init])), [""; 0]);
    assert_eq!(
        with("initContainers", json!([container("c")])),
        [r#"spec.initContainers[0].name: Duplicate value: "c""#]
    );
}

#[test]
fn ephemeral_containers_come_later_and_are_simple() {
    let mut debugger = container("d");
    debugger["ports"] = json!([{"containerPort": 1, "protocol": "TCP"}]);
    debugger["resources"] = json!({"limits": {"cpu": "1"}});
    debugger["targetContainerName"] = json!("x");
    assert_eq!(
        with("ephemeralContainers", json!([debugger])),
        [
            r#"spec.ephemeralContainers[0].targetContainerName: Not found: "x""#,
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
            "spec.ephemeralContainers[0].resources: Forbidden: cannot be set for an Ephemeral Container",
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ]
    );
}

#[test]
fn fields_that_depend_on_each_other() {
    let mut gated = pod();
    gated["spec"]["nodeName"] = json!("n");
    gated["spec"]["schedulingGates"] = json!([{"name": "g"}]);
    assert_eq!(
        texts(&create(&gated)),
        ["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"]
    );
    let mut on_host = pod();
    on_host["spec"]["hostNetwork"] = json!(true);
    on_host["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "protocol": "TCP"}]);
    assert_eq!(
        texts(&create(&on_host)),
        [
            "spec.containers[0].ports[0].hostPort: Invalid value: 0: must match `containerPort` when `hostNetwork` is true"
        ]
    );
    let mut token = pod();
    token["spec"]["serviceAccountName"] = json!("");
    token["spec"]["volumes"] = json!([{"name": "t", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}]}}]);
    assert_eq!(
        texts(&create(&token)),
        [
            "spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set"
        ]
    );
}

#[test]
fn templates_are_checked_where_they_stand() {
    let path = FieldPath::new("spec").child("template");
    let good = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]});
    assert_eq!(template(&good, &path), []);
    let mut bad = good.clone();
    bad["metadata"]["labels"] = json!({"a": "b c"});
    bad["spec"]["containers"][0]["image"] = json!("");
    bad["spec"]["ephemeralContainers"] = json!([container("d")]);
    let found = texts(&template(&bad, &path));
    assert!(
        found[0].starts_with(r#"spec.template.labels: Invalid value: "b c": a valid label"#),
        "{found:?}"
    );
    assert_eq!(
        found[1..],
        [
            "spec.template.spec.containers[0].image: Required value",
            "spec.template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template",
        ]
    );
}

#[test]
fn bindings_name_a_node() {
    for (target, expected) in [
        (json!({"kind": "Node", "name": "n"}), vec![]),
        (json!({"name": "n"}), vec![]),
        (json!({}), vec!["target.name: Required value"]),
        (
            json!({"kind": "Pod", "name": "n"}),
            vec![r#"target.kind: Unsupported value: "Pod": supported values: "Node", "<empty>""#],
        ),
    ] {
        assert_eq!(texts(&binding(&json!({"target": target}))), expected, "{target}");
    }
}

#[test]
fn what_people_write_is_valid_once_defaults_are_filled_in() {
    let resource = sampan_api::scheme::by_gvr("", "v1", "pods").unwrap();
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {
            "serviceAccountName": "default",
            "initContainers": [
                {"name": "init", "image": "a"},
                {"name": "sidecar", "image": "b", "restartPolicy": "Always",
                    "startupProbe": {"exec": {"command": ["true"]}}},
            ],
            "containers": [{
                "name": "main",
                "image": "sampan/hello-http:v1",
                "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP", "hostPort": 5353}],
                "env": [
                    {"name": "A", "value": ""},
                    {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                ],
                "resources": {"limits": {"cpu": 1, "memory": "64Mi", "example.com/gpu": 1}},
                "livenessProbe": {"httpGet": {"port": 80}},
                "readinessProbe": {"grpc": {"port": 81}},
                "lifecycle": {"preStop": {"httpGet": {"port": "80a"}}},
                "volumeMounts": [{"name": "t", "mountPath": "/t"}, {"name": "h", "mountPath": "/h"}],
            }],
            "volumes": [
                {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
                {"name": "h", "hostPath": {"path": "/h"}},
                {"name": "e"},
                {"name": "i", "image": {"reference": "r"}},
                {"name": "d", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                {"name": "iscsi", "iscsi": {"targetPortal": "p", "iqn": "iqn.2001-04.com.example:a", "lun": 0}},
                {"name": "q", "ephemeral": {"volumeClaimTemplate": {"spec": {
                    "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}}},
            ],
        },
    });
    sampan_api::defaults::apply(resource, &mut pod);
    assert_eq!(texts(&create(&pod)), [""; 0]);
    let mut same = pod.clone();
    sampan_api::defaults::apply(resource, &mut same);
    assert_eq!(texts(&super::update(&same, &pod)), [""; 0]);
}
