mod encoder;

use encoder::{encode, envelope, populate, put_bytes, put_varint};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn message(name: &str) -> &'static Message {
    schema::message(&format!("io.k8s.{name}")).unwrap()
}

fn failure(body: &[u8]) -> String {
    decode(body).unwrap_err().to_string()
}

#[test]
fn every_message_with_every_field_set_comes_back() {
    for message in schema::messages() {
        let value = populate(message);
        let decoded = decode_message(message, &encode(message, &value)).unwrap();
        assert_eq!(decoded, value, "{}", message.name);
    }
}

#[test]
fn what_protobuf_gives_passes_strict_decoding_unchanged() {
    for message in schema::messages() {
        let value = populate(message);
        let mut conformed = value.clone();
        assert_eq!(crate::strict::conform(message, &mut conformed), Ok(Vec::new()), "{}", message.name);
        assert_eq!(conformed, value, "{}", message.name);
    }
}

#[test]
fn a_config_map_is_read_byte_by_byte() {
    let body = b"k8s\0\
        \x0a\x0f\x0a\x02v1\x12\x09ConfigMap\
        \x12\x29\
        \x0a\x15\x0a\x01a\x12\x00\x1a\x02ns\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x02\x08\x05\
        \x12\x06\x0a\x01k\x12\x01v\
        \x1a\x06\x0a\x01b\x12\x01\xff\
        \x20\x00";
    let object = decode(body).unwrap();
    assert_eq!((object.api_version.as_str(), object.kind.as_str()), ("v1", "ConfigMap"));
    assert_eq!(
        object.value,
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "a", "namespace": "ns", "creationTimestamp": "1970-01-01T00:00:05Z"},
            "data": {"k": "v"}, "binaryData": {"b": "/w=="}, "immutable": false,
        })
    );
}

/// What kubectl 1.33 sends for `create deployment d --image=x --replicas=0`.
const DEPLOYMENT: &str = "6b3873000a150a07617070732f7631120a4465706c6f796d656e74129b010a1b0a016412001a0022002a\
        003200380042005a080a03617070120164126e0800120a0a080a036170701201641a560a1a0a0012001a\
        0022002a003200380042005a080a036170701201641238121a0a01781201782a0042006a007200800100\
        880100900100a201001a00320042004a0052005800600068008201008a01009a0100c2010022020a0028\
        0038001a0c0800100018002000280038001a002200";

/// What kubectl 1.33 sends for `create ingress i --rule=a/b=s:80`.
const INGRESS: &str = "6b3873000a1f0a146e6574776f726b696e672e6b38732e696f2f76311207496e6772657373123c0a110a\
        016912001a0022002a0032003800420012231a210a0161121c0a1a0a180a022f62120b22090a01731204\
        0a0010501a0545786163741a020a001a002200";

#[test]
fn bodies_of_kubectl_are_read() {
    let deployment = decode(&unhex(DEPLOYMENT)).unwrap().value;
    assert_eq!(
        deployment,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "d", "labels": {"app": "d"}},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {"app": "d"}},
                "strategy": {},
                "template": {
                    "metadata": {"labels": {"app": "d"}},
                    "spec": {"containers": [{"name": "x", "image": "x", "resources": {}}]},
                },
            },
            "status": {},
        })
    );
    let ingress = decode(&unhex(INGRESS)).unwrap().value;
    assert_eq!(
        ingress,
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "i"},
            "spec": {"rules": [{"host": "a", "http": {"paths": [
                {"path": "/b", "pathType": "Exact", "backend": {"service": {"name": "s", "port": {"number": 80}}}},
            ]}}]},
            "status": {"loadBalancer": {}},
        })
    );
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

#[test]
fn zeros_stay_only_where_they_mean_something() {
    // Deployment: spec.replicas 0 (a pointer), minReadySeconds 0 and paused false (no pointers),
    // an empty selector, and a status of zeros.
    let spec: &[u8] = b"\x08\x00\x12\x00\x28\x00\x30\x00\x38\x00";
    let status: &[u8] = b"\x08\x00\x10\x00\x18\x00\x20\x00\x28\x00\x38\x00";
    let mut raw = Vec::new();
    put_bytes(&mut raw, 1, b"");
    put_bytes(&mut raw, 2, spec);
    put_bytes(&mut raw, 3, status);
    let value = decode_message(message("api.apps.v1.Deployment"), &raw).unwrap();
    assert_eq!(
        value,
        json!({"metadata": {}, "spec": {"replicas": 0, "selector": {}, "revisionHistoryLimit": 0}, "status": {}})
    );
    // A container status always says whether it is ready, and how often it restarted.
    let value =
        decode_message(message("api.core.v1.ContainerStatus"), b"\x0a\x01a\x20\x00\x28\x00\x42\x00").unwrap();
    assert_eq!(value, json!({"name": "a", "ready": false, "restartCount": 0}));
}

#[test]
fn inlined_messages_stand_in_their_parent() {
    let volume = json!({"name": "v", "emptyDir": {}});
    let bytes = encode(message("api.core.v1.Volume"), &volume);
    assert_eq!(bytes, b"\x0a\x01v\x12\x04\x12\x02\x0a\x00".as_slice());
    assert_eq!(
        decode_message(message("api.core.v1.Volume"), &bytes).unwrap(),
        json!({"name": "v", "emptyDir": {}})
    );
}

#[test]
fn options_are_found_under_any_group() {
    let options =
        json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background", "preconditions": {"uid": "u"}});
    let raw = encode(message("apimachinery.pkg.apis.meta.v1.DeleteOptions"), &options);
    for api_version in ["v1", "apps/v1", "meta.k8s.io/v1"] {
        let object = decode(&envelope(api_version, "DeleteOptions", &raw)).unwrap();
        let mut expected = options.clone();
        expected["apiVersion"] = json!(api_version);
        expected["kind"] = json!("DeleteOptions");
        assert_eq!(object.value, expected);
    }
}

#[test]
fn empty_times_are_no_times_and_empty_quantities_are_zero() {
    let meta = decode_message(message("apimachinery.pkg.apis.meta.v1.ObjectMeta"), b"\x42\x00").unwrap();
    assert_eq!(meta, json!({}));
    let mut entry = Vec::new();
    put_bytes(&mut entry, 1, b"cpu");
    let mut raw = Vec::new();
    put_bytes(&mut raw, 1, &entry);
    let requirements = decode_message(message("api.core.v1.ResourceRequirements"), &raw).unwrap();
    assert_eq!(requirements, json!({"limits": {"cpu": "0"}}));
}

#[test]
fn a_raw_extension_may_hold_an_object_in_its_envelope() {
    let inner = envelope(
        "v1",
        "Namespace",
        &encode(message("api.core.v1.Namespace"), &json!({"metadata": {"name": "n"}})),
    );
    let mut extension = Vec::new();
    put_bytes(&mut extension, 1, &inner);
    let mut raw = Vec::new();
    put_bytes(&mut raw, 2, &extension);
    let revision = decode_message(message("api.apps.v1.ControllerRevision"), &raw).unwrap();
    assert_eq!(revision["data"], json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}));
}

#[test]
fn packed_numbers_and_unknown_tags_are_read() {
    let mut raw = Vec::new();
    // fsGroup is 5, supplementalGroups 4: packed, as other encoders may write them.
    put_bytes(&mut raw, 4, b"\x01\x96\x01");
    put_varint(&mut raw, 4000, 7);
    let context = decode_message(message("api.core.v1.PodSecurityContext"), &raw).unwrap();
    assert_eq!(context, json!({"supplementalGroups": [1, 150]}));
}

#[test]
fn what_cannot_be_read_is_refused_in_words() {
    let pod = |raw: &[u8]| envelope("v1", "Pod", raw);
    let mut encoded = envelope("v1", "Pod", b"");
    put_bytes(&mut encoded, 3, b"gzip");
    let mut json_inside = envelope("v1", "Pod", b"");
    put_bytes(&mut json_inside, 4, b"application/json");
    let cases = [
        (
            b"{}".to_vec(),
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
        ),
        (envelope("x/v1", "Y", b""), "no kind \"Y\" is registered for version \"x/v1\""),
        (pod(b"\x0a\x05a"), "unexpected EOF"),
        (pod(b"\x0a\x03\x0a\x01\xff"), "proto: invalid UTF-8 in field name"),
        (pod(b"\x08\x05"), "proto: wrong wireType = 0 for field metadata"),
        (encoded, "unsupported content encoding \"gzip\" in a protobuf envelope"),
        (json_inside, "unsupported content type \"application/json\" in a protobuf envelope"),
    ];
    for (body, expected) in cases {
        assert_eq!(failure(&body), expected);
    }
}

#[test]
fn depth_is_bounded() {
    let props = schema::message(SCHEMA_PROPS).unwrap();
    // `not` inside `not`, again and again.
    let mut bytes = Vec::new();
    for _ in 0..200 {
        let mut outer = Vec::new();
        put_bytes(&mut outer, 28, &bytes);
        bytes = outer;
    }
    let error = decode_message(props, &bytes).unwrap_err();
    assert_eq!(error.to_string(), "proto: messages are nested too deep");
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for name in ["api.core.v1.Pod", "api.apps.v1.Deployment", "api.core.v1.Secret"] {
            let _ = decode_message(message(name), &bytes);
        }
        let _ = decode(&bytes);
        let _ = decode(&envelope("v1", "Pod", &bytes));
    }

    #[test]
    fn damaged_objects_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = pod_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode_message(message("api.core.v1.Pod"), &bytes);
        bytes.truncate(cut.index(bytes.len()));
        let _ = decode_message(message("api.core.v1.Pod"), &bytes);
    }
}

fn pod_bytes() -> &'static [u8] {
    static BYTES: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    BYTES.get_or_init(|| {
        let pod = message("api.core.v1.Pod");
        encode(pod, &populate(pod))
    })
}
