//! Tables of resource lists and what is said about them.

use serde_json::json;

use super::*;
use crate::validation::testing::texts;

fn found(value: &Value, level: Level) -> Vec<String> {
    let mut out = Errors::new();
    requirements(value, level, &["gpu", "a"], &FieldPath::new("r"), &mut out);
    texts(&out)
}

#[test]
fn requests_stay_within_limits() {
    for (value, expected) in [
        (
            json!({"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}),
            vec![],
        ),
        (
            json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}}),
            vec![r#"r.requests: Invalid value: "2": must be less than or equal to cpu limit of 1500m"#],
        ),
        (
            json!({"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "2"}}),
            vec![r#"r.requests: Invalid value: "1": must be equal to example.com/gpu limit of 2"#],
        ),
        (
            json!({"requests": {"example.com/gpu": "1"}}),
            vec!["r.limits: Required value: Limit must be set for non overcommitable resources"],
        ),
        (
            json!({"limits": {"memory": "-1Gi"}}),
            vec![r#"r.limits[memory]: Invalid value: "-1Gi": must be greater than or equal to 0"#],
        ),
        (
            json!({"limits": {"example.com/gpu": "500m"}}),
            vec![r#"r.limits[example.com/gpu]: Invalid value: "500m": must be an integer"#],
        ),
        (
            json!({"limits": {"cpu": "x"}}),
            vec![
                r#"r.limits[cpu]: Invalid value: "x": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"#,
            ],
        ),
    ] {
        assert_eq!(found(&value, Level::Container), expected, "{value}");
    }
}

#[test]
fn only_known_resources_are_named() {
    for (name, level, expected) in [
        ("ephemeral-storage", Level::Container, vec![]),
        ("example.com/dongle", Level::Container, vec![]),
        (
            "pods",
            Level::Container,
            vec![r#"r.limits[pods]: Invalid value: "pods": must be a standard resource for containers"#],
        ),
        (
            "disk",
            Level::Container,
            vec![
                r#"r.limits[disk]: Invalid value: "disk": must be a standard resource type or fully qualified"#,
                r#"r.limits[disk]: Invalid value: "disk": must be a standard resource for containers"#,
            ],
        ),
        (
            "requests.example.com/a",
            Level::Container,
            vec![
                r#"r.limits[requests.example.com/a]: Invalid value: "requests.example.com/a": doesn't follow extended resource name standard"#,
            ],
        ),
        ("cpu", Level::Pod, vec![]),
        (
            "ephemeral-storage",
            Level::Pod,
            vec![
                r#"r.limits[ephemeral-storage]: Unsupported value: "ephemeral-storage": supported values: "cpu", "hugepages-", "memory""#,
            ],
        ),
    ] {
        assert_eq!(found(&json!({"limits": {(name): "1"}}), level), expected, "{name}");
    }
}

#[test]
fn huge_pages_come_whole_and_with_cpu_or_memory() {
    for (value, expected) in [
        (json!({"limits": {"hugepages-2Mi": "4Mi", "cpu": "1"}}), vec![]),
        (
            json!({"limits": {"hugepages-2Mi": "3Mi"}}),
            vec![
                r#"r.limits[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi"#,
                "r: Forbidden: HugePages require cpu or memory",
            ],
        ),
        (
            json!({"requests": {"hugepages-2Mi": "2Mi", "cpu": "1"}}),
            vec!["r.limits: Required value: Limit must be set for non overcommitable resources"],
        ),
    ] {
        assert_eq!(found(&value, Level::Container), expected, "{value}");
    }
}

#[test]
fn claims_are_the_pods_and_each_used_once() {
    for (claims, expected) in [
        (json!([{"name": "a"}, {"name": "gpu", "request": "x"}, {"name": "gpu", "request": "y"}]), vec![]),
        (json!([{"name": ""}]), vec!["r.claims[0]: Required value"]),
        (json!([{"name": "a"}, {"name": "a"}]), vec![r#"r.claims[1]: Duplicate value: "a""#]),
        (
            json!([{"name": "a", "request": "x"}, {"name": "a", "request": "x"}]),
            vec![r#"r.claims[1]: Duplicate value: "a/x""#],
        ),
        (json!([{"name": "a", "request": "x"}, {"name": "a"}]), vec![r#"r.claims[1]: Duplicate value: "a""#]),
        (
            json!([{"name": "b"}]),
            vec![
                r#"r.claims[0]: Not found: "b": must be one of the names in pod.spec.resourceClaims: a, gpu"#,
            ],
        ),
    ] {
        assert_eq!(found(&json!({"claims": claims}), Level::Container), expected, "{claims}");
    }
}

#[test]
fn a_pod_asks_for_at_least_what_its_containers_ask_for_together() {
    let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
    let containers = json!([{"resources": cpu("500m")}, {"resources": cpu("300m")}]);
    for (init, of_pod, expected) in [
        (json!([]), "800m", vec![]),
        (
            json!([]),
            "700m",
            vec![
                r#"p.requests[cpu]: Invalid value: "700m": must be greater than or equal to aggregate container requests of 800m"#,
            ],
        ),
        (json!([{"resources": cpu("700m")}]), "800m", vec![]),
        (
            json!([{"resources": cpu("200m"), "restartPolicy": "Always"}, {"resources": cpu("900m")}]),
            "1",
            vec![
                r#"p.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container requests of 1100m"#,
            ],
        ),
    ] {
        let spec = json!({"containers": containers, "initContainers": init, "resources": cpu(of_pod)});
        let mut out = Errors::new();
        of_pod_checked(&spec, &mut out);
        assert_eq!(texts(&out), expected, "{init} {of_pod}");
    }
    let spec = json!({"containers": [{"resources": {"limits": {"cpu": "2"}}}],
        "resources": {"limits": {"cpu": "1"}, "claims": []}});
    let mut out = Errors::new();
    of_pod_checked(&spec, &mut out);
    assert_eq!(
        texts(&out),
        [
            "p.claims: Forbidden: claims cannot be set for Resources at pod-level",
            r#"p.containers[0][cpu].limits: Invalid value: "2": must be less than or equal to pod limits of 1"#,
        ]
    );
}

fn of_pod_checked(spec: &Value, out: &mut Errors) {
    of_pod(spec, &[], &FieldPath::new("p"), out);
}
