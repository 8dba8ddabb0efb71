//! Joins the two sources. Names that do not fit together are errors, not guesses.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Error;
use crate::markers;
use crate::openapi::{Property, Type};
use crate::pointers::Pointers;
use crate::protobuf::{self, Kind, Shape};
use crate::table::{Field, Message, Table};

/// What stands before every name in OpenAPI.
pub(crate) const PREFIX: &str = "io.k8s.";

/// Messages that OpenAPI does not have: options are query parameters there, and events of a watch
/// have no fixed type.
const PROTOBUF_ONLY: &[&str] = &[
    "apimachinery.pkg.apis.meta.v1.ApplyOptions",
    "apimachinery.pkg.apis.meta.v1.CreateOptions",
    "apimachinery.pkg.apis.meta.v1.GetOptions",
    "apimachinery.pkg.apis.meta.v1.ListOptions",
    "apimachinery.pkg.apis.meta.v1.PartialObjectMetadata",
    "apimachinery.pkg.apis.meta.v1.PartialObjectMetadataList",
    "apimachinery.pkg.apis.meta.v1.PatchOptions",
    "apimachinery.pkg.apis.meta.v1.TableOptions",
    "apimachinery.pkg.apis.meta.v1.UpdateOptions",
    "apimachinery.pkg.apis.meta.v1.WatchEvent",
];

/// Messages that are types of their own in the table.
const SPECIAL: &[(&str, &str)] = &[
    ("apimachinery.pkg.api.resource.Quantity", "quantity"),
    ("apimachinery.pkg.util.intstr.IntOrString", "intOrString"),
    ("apimachinery.pkg.apis.meta.v1.Time", "time"),
    ("apimachinery.pkg.apis.meta.v1.MicroTime", "microTime"),
    ("apimachinery.pkg.apis.meta.v1.FieldsV1", "fieldsV1"),
    ("apimachinery.pkg.apis.meta.v1.Verbs", "strings"),
    ("apimachinery.pkg.runtime.RawExtension", "rawExtension"),
    ("api.authentication.v1.ExtraValue", "strings"),
    ("api.authorization.v1.ExtraValue", "strings"),
    ("api.certificates.v1.ExtraValue", "strings"),
    ("apiextensions_apiserver.pkg.apis.apiextensions.v1.Json", "json"),
    ("apiextensions_apiserver.pkg.apis.apiextensions.v1.JsonSchemaPropsOrArray", "schemaOrArray"),
    ("apiextensions_apiserver.pkg.apis.apiextensions.v1.JsonSchemaPropsOrBool", "schemaOrBool"),
    ("apiextensions_apiserver.pkg.apis.apiextensions.v1.JsonSchemaPropsOrStringArray", "schemaOrStrings"),
];

struct Join<'a> {
    messages: BTreeMap<String, &'a protobuf::Message>,
    types: &'a BTreeMap<String, Type>,
    pointers: Pointers,
    problems: Vec<String>,
    table: Table,
}

/// Joins.
pub(crate) fn join(
    messages: &[protobuf::Message],
    types: &BTreeMap<String, Type>,
    pointers: Pointers,
) -> Result<Table, Error> {
    let messages: BTreeMap<_, _> = messages.iter().map(|message| (message.full_name(), message)).collect();
    let mut join = Join { messages, types, pointers, problems: Vec::new(), table: Table::default() };
    let names: Vec<String> = join.messages.keys().cloned().collect();
    for name in names {
        if let Some(target) = join.target(&name) {
            join.message(&name, target, None);
        }
    }
    let specials = SPECIAL.iter().filter_map(|(special, _)| join.open_type(special));
    join.table.specials = specials.map(|open| (open.name.clone(), open.description.clone())).collect();
    join.check_references();
    join.problems.extend(join.pointers.strays().into_iter().map(|stray| format!("{stray} is no field")));
    if join.problems.is_empty() { Ok(join.table) } else { Err(Error::Shape(join.problems.join("\n"))) }
}

/// The name that OpenAPI gives to what prost names so, but for the case of acronyms.
fn open_name(name: &str) -> String {
    let name = name.replace("apiextensions_apiserver", "apiextensions-apiserver");
    format!("{PREFIX}{}", name.replace("kube_aggregator", "kube-aggregator"))
}

fn is_stable(package: &str) -> bool {
    let version = package.rsplit('.').next().unwrap_or_default();
    version.strip_prefix('v').is_some_and(|digits| digits.parse::<u32>().is_ok())
}

fn is_special(name: &str) -> bool {
    SPECIAL.iter().any(|(special, _)| *special == name)
}

/// The last part but one of a package: `core` of `api.core.v1`.
fn group(package: &str) -> &str {
    package.rsplit('.').nth(1).unwrap_or_default()
}

impl<'a> Join<'a> {
    fn open_type(&self, name: &str) -> Option<&'a Type> {
        self.types.get(&open_name(name).to_lowercase())
    }

    /// The full name under which a message goes into the table by itself, if it does.
    fn target(&self, name: &str) -> Option<String> {
        let message = self.messages.get(name)?;
        if is_special(name) || !is_stable(&message.package) {
            return None;
        }
        if let Some(open) = self.open_type(name) {
            return Some(open.name.clone());
        }
        if PROTOBUF_ONLY.contains(&name) {
            return Some(open_name(name));
        }
        let element = self.open_type(name.strip_suffix("List")?)?;
        element.kind.as_ref().map(|_| format!("{}List", element.name))
    }

    /// Adds a message. What is inlined takes its JSON names from the type that inlines it.
    fn message(&mut self, name: &str, target: String, inlined_by: Option<&'a Type>) {
        let Some(message) = self.messages.get(name).copied() else {
            self.problems.push(format!("{name} is not in k8s-pb"));
            return;
        };
        let own = self.open_type(name);
        let open = own.or(inlined_by);
        let mut joined = Message { kind: self.kind(name, own), ..Message::default() };
        joined.atomic = markers::read(&message.docs).struct_type.as_deref() == Some("atomic");
        joined.description =
            own.map_or_else(|| markers::prose(&message.docs), |open| open.description.clone());
        for field in &message.fields {
            let json = json_name(&field.name, open);
            match (&field.kind, json) {
                (_, Some(json)) => {
                    let read = self.field(message, &target, field, &json, open);
                    if let Some(open) = open.filter(|open| open.properties.contains_key(&json)) {
                        self.check_shape(&target, &json, &read, open);
                    } else {
                        joined.descriptions.insert(json.clone(), markers::prose(&field.docs));
                    }
                    joined.fields.insert(json, read);
                }
                (Kind::Message(inlined), None) => {
                    let inlined_target = self.inlined_target(inlined);
                    joined.inlines.insert(field.tag, inlined_target.clone());
                    if !self.table.messages.contains_key(&inlined_target) {
                        self.message(inlined, inlined_target, open);
                    }
                }
                (Kind::Scalar(_), None) => {
                    self.problems.push(format!("{target}: {} has no JSON name", field.name));
                }
            }
        }
        if joined.kind.is_some() || own.is_some_and(|open| open.properties.contains_key("apiVersion")) {
            add_type_meta(&mut joined, own);
        }
        if let Some(own) = own {
            let texts = own.properties.iter().map(|(name, p)| (name.clone(), p.description.clone()));
            joined.descriptions.extend(texts);
            self.check_completeness(&joined, own);
        }
        self.table.messages.insert(target, joined);
    }

    fn inlined_target(&self, name: &str) -> String {
        self.open_type(name).map_or_else(|| open_name(name), |open| open.name.clone())
    }

    /// Group, version and kind; a list has its element's with `List` behind.
    fn kind(&self, name: &str, own: Option<&Type>) -> Option<(String, String, String)> {
        if let Some(open) = own {
            return open.kind.clone();
        }
        let element = self.open_type(name.strip_suffix("List")?)?;
        let (group, version, kind) = element.kind.clone()?;
        Some((group, version, format!("{kind}List")))
    }

    fn field(
        &mut self,
        message: &protobuf::Message,
        target: &str,
        field: &protobuf::Field,
        json: &str,
        open: Option<&Type>,
    ) -> Field {
        let short = target.rsplit('.').next().unwrap_or_default();
        let pointer = self.pointers.meet(json, group(&message.package), short);
        let listed = open.is_some_and(|open| open.required.contains(json));
        // k8s-openapi makes metadata required to have simpler types; the API does not require it.
        let metadata = json == "metadata" && open.is_some_and(|open| open.kind.is_some());
        let items = open.is_none() && json == "items" && short.ends_with("List");
        Field {
            tag: field.tag,
            shape: field.shape,
            ty: self.type_word(&field.kind),
            required: (listed && !metadata) || items,
            pointer,
            markers: markers::read(&field.docs),
        }
    }

    fn type_word(&mut self, kind: &Kind) -> String {
        match kind {
            Kind::Scalar(scalar) => scalar.clone(),
            Kind::Message(name) => {
                let special = SPECIAL.iter().find(|(special, _)| special == name);
                special.map_or_else(|| self.inlined_target(name), |(_, word)| (*word).to_owned())
            }
        }
    }

    /// The two sources must agree about types.
    fn check_shape(&mut self, target: &str, json: &str, field: &Field, open: &Type) {
        let word = match field.ty.as_str() {
            "bool" => "boolean",
            "int32" => "integer/int32",
            "int64" => "integer/int64",
            "double" => "number/double",
            "string" => "string",
            "bytes" => "string/byte",
            "strings" => "[]string",
            _ => "ref",
        };
        let expected = match field.shape {
            Shape::One => word.to_owned(),
            Shape::List => format!("[]{word}"),
            Shape::Map => format!("map:{word}"),
        };
        let actual = open.properties.get(json).map(|property: &Property| property.shape.as_str());
        if actual != Some(expected.as_str()) {
            self.problems.push(format!("{target}.{json}: {expected} in protobuf, {actual:?} in OpenAPI"));
        }
    }

    /// All properties of a type must have been met by fields.
    fn check_completeness(&mut self, joined: &Message, own: &Type) {
        let mut names: BTreeSet<&String> = joined.fields.keys().collect();
        let mut pending: Vec<&String> = joined.inlines.values().collect();
        while let Some(inlined) = pending.pop() {
            if let Some(inlined) = self.table.messages.get(inlined) {
                names.extend(inlined.fields.keys());
                pending.extend(inlined.inlines.values());
            }
        }
        for missing in own.properties.keys().filter(|name| !names.contains(name)) {
            self.problems.push(format!("{}.{missing} is not in k8s-pb", own.name));
        }
    }

    /// Fields may only be of types that are in the table.
    fn check_references(&mut self) {
        for (name, message) in &self.table.messages {
            let fields = message.fields.values().map(|field| &field.ty).filter(|ty| ty.starts_with(PREFIX));
            for ty in fields.filter(|ty| !self.table.messages.contains_key(*ty)) {
                self.problems.push(format!("{name} refers to {ty}, which is not in the table"));
            }
        }
    }
}

/// `apiVersion` and `kind` are in JSON only: protobuf has them in the envelope.
fn add_type_meta(message: &mut Message, own: Option<&Type>) {
    for name in ["apiVersion", "kind"] {
        let missing = !message.fields.contains_key(name);
        if missing && own.is_none_or(|open| open.properties.contains_key(name)) {
            let field = Field {
                tag: 0,
                shape: Shape::One,
                ty: "string".to_owned(),
                required: false,
                pointer: false,
                markers: markers::Markers::default(),
            };
            message.fields.insert(name.to_owned(), field);
        }
    }
}

/// The JSON name of a protobuf field: the property that is the same but for case and separators.
/// Without a type there is nothing to look it up in, and lower camel case is what Kubernetes does.
fn json_name(name: &str, open: Option<&Type>) -> Option<String> {
    let Some(open) = open else { return Some(camel_case(name)) };
    let plain = plain(name);
    open.properties.keys().find(|json| self::plain(json) == plain).cloned()
}

fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let mut camel = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        camel.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_names_are_found_despite_case_and_signs() {
        let mut open = Type::default();
        for name in ["hostIP", "$ref", "x-kubernetes-list-type", "clusterIPs"] {
            open.properties.insert(name.to_owned(), Property::default());
        }
        let cases = [
            ("host_ip", Some("hostIP")),
            ("r#ref", None),
            ("ref", Some("$ref")),
            ("x_kubernetes_list_type", Some("x-kubernetes-list-type")),
            ("cluster_i_ps", Some("clusterIPs")),
            ("absent", None),
        ];
        for (name, expected) in cases {
            assert_eq!(json_name(name, Some(&open)).as_deref(), expected, "{name}");
        }
        assert_eq!(json_name("dry_run", None).as_deref(), Some("dryRun"));
    }

    #[test]
    fn only_stable_versions_are_taken() {
        let cases = [
            ("api.core.v1", true),
            ("api.autoscaling.v2", true),
            ("api.core.v1beta1", false),
            ("x.y", false),
        ];
        for (package, expected) in cases {
            assert_eq!(is_stable(package), expected, "{package}");
        }
    }
}
