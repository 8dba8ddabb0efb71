//! `paths`: an operation per verb of a resource and of its subresources.

use serde_json::{Map, Value, json};

use super::components::{Components, group_version_kind};
use super::descriptions::Descriptions;
use super::{Features, parameters, prefix};
use crate::schema::{self, Message};
use crate::scheme::{Resource, Subresource, Verb};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// In which media types objects are answered.
const ANSWERS: &[&str] = &["application/json"];

/// In which media types a watch is answered, beside those.
const STREAMS: &[&str] = &["application/json;stream=watch"];

/// What PATCH takes.
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// What a path of operations is about.
struct Subject<'a> {
    resource: &'a Resource,
    subresource: Option<&'a Subresource>,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    /// The type that goes in and comes out; none for what is no API object (a log, a stream).
    message: Option<&'static Message>,
    features: Features,
    descriptions: &'a Descriptions<'a>,
}

/// The operation that lists a group and version's resources.
pub(super) fn discovery(group: &str, version: &str, components: &mut Components<'_>) -> Value {
    let id = format!("get{}APIResources", camel(group, version));
    let list = reference(&format!("{META}.APIResourceList"), components);
    json!({"get": {
        "description": "get available resources",
        "operationId": id,
        "responses": responses(200, "OK", &list, ANSWERS),
        "tags": [tag(group, version)],
    }})
}

/// Adds the paths of a resource and of its subresources.
pub(super) fn add(
    resource: &'static Resource,
    features: Features,
    descriptions: &Descriptions<'_>,
    components: &mut Components<'_>,
    paths: &mut Map<String, Value>,
) {
    let subject = Subject {
        resource,
        subresource: None,
        group: resource.group,
        version: resource.version,
        kind: resource.kind,
        message: schema::message(resource.schema),
        features,
        descriptions,
    };
    let root = prefix(resource.group, resource.version);
    let plural = resource.plural;
    let collection = if resource.namespaced {
        format!("{root}/namespaces/{{namespace}}/{plural}")
    } else {
        format!("{root}/{plural}")
    };
    let verbs = resource.verbs;
    subject.path(&collection, &[Verb::List, Verb::Create, Verb::DeleteCollection], verbs, components, paths);
    if resource.namespaced && resource.serves(Verb::List) {
        let item = subject.operation(Verb::List, true, components);
        let parameters = json!([parameters::pretty()]);
        paths.insert(format!("{root}/{plural}"), json!({"get": item, "parameters": parameters}));
    }
    let one = format!("{collection}/{{name}}");
    subject.path(&one, &[Verb::Get, Verb::Update, Verb::Patch, Verb::Delete], verbs, components, paths);
    for subresource in resource.subresources {
        let (group, version) = subresource.group_version.unwrap_or((resource.group, resource.version));
        let is_object = subresource.name != "log";
        let message = schema::kind(group, version, subresource.kind).filter(|_| is_object);
        let kind = subresource.kind;
        let subject = Subject { subresource: Some(subresource), group, version, kind, message, ..subject };
        let all = [Verb::Get, Verb::Create, Verb::Update, Verb::Patch, Verb::Delete];
        subject.path(&format!("{one}/{}", subresource.name), &all, subresource.verbs, components, paths);
    }
}

impl Subject<'_> {
    /// Adds one path with those of its verbs that are served.
    fn path(
        &self,
        path: &str,
        verbs: &[Verb],
        served: &[Verb],
        components: &mut Components<'_>,
        paths: &mut Map<String, Value>,
    ) {
        let mut item = Map::new();
        for verb in verbs.iter().filter(|verb| served.contains(verb)) {
            item.insert(method(*verb).to_owned(), self.operation(*verb, false, components));
        }
        if item.is_empty() {
            return;
        }
        let mut shared = Vec::new();
        if path.contains("{name}") {
            shared.push(parameters::name(self.resource.kind));
        }
        if path.contains("{namespace}") {
            shared.push(parameters::namespace());
        }
        shared.push(parameters::pretty());
        item.insert("parameters".to_owned(), shared.into());
        paths.insert(path.to_owned(), item.into());
    }

    fn operation(&self, verb: Verb, all_namespaces: bool, components: &mut Components<'_>) -> Value {
        let mut operation = Map::new();
        operation.insert("description".into(), self.description(verb).into());
        operation.insert("operationId".into(), self.id(verb, all_namespaces).into());
        operation.insert("tags".into(), json!([tag(self.resource.group, self.resource.version)]));
        let parameters = self.parameters(verb);
        if !parameters.is_empty() {
            operation.insert("parameters".into(), parameters.into());
        }
        if let Some(body) = self.body(verb, components) {
            operation.insert("requestBody".into(), body);
        }
        operation.insert("responses".into(), self.responses(verb, components));
        let action = if self.is_stream() { "connect" } else { action(verb) };
        operation.insert("x-kubernetes-action".into(), action.into());
        let gvk = group_version_kind(self.group, self.version, self.kind);
        operation.insert("x-kubernetes-group-version-kind".into(), gvk);
        Value::Object(operation)
    }

    /// Neither an object nor text: an upgraded connection.
    fn is_stream(&self) -> bool {
        self.message.is_none() && self.subresource.is_some_and(|subresource| subresource.name != "log")
    }

    fn description(&self, verb: Verb) -> String {
        let target = match self.subresource {
            Some(subresource) => format!("{} of the specified {}", subresource.name, self.resource.kind),
            None if verb == Verb::Create => format!("a {}", self.kind),
            None if matches!(verb, Verb::List | Verb::DeleteCollection) => format!("of {}", self.kind),
            None => format!("the specified {}", self.kind),
        };
        let doing = match verb {
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "delete collection",
            Verb::Get => "read",
            Verb::List => "list or watch objects",
            Verb::Patch => "partially update",
            Verb::Update => "replace",
            Verb::Watch => "watch",
        };
        format!("{doing} {target}")
    }

    /// As Kubernetes composes it: `createCoreV1NamespacedPodBinding`.
    fn id(&self, verb: Verb, all_namespaces: bool) -> String {
        let doing = match verb {
            Verb::Create => "create",
            Verb::Delete | Verb::DeleteCollection => "delete",
            Verb::Get => "read",
            Verb::List => "list",
            Verb::Patch => "patch",
            Verb::Update => "replace",
            Verb::Watch => "watch",
        };
        let place = camel(self.resource.group, self.resource.version);
        let collection = if verb == Verb::DeleteCollection { "Collection" } else { "" };
        let namespaced = if self.resource.namespaced && !all_namespaces { "Namespaced" } else { "" };
        let subresource =
            self.subresource.map(|subresource| capitalised(subresource.name)).unwrap_or_default();
        let everywhere = if all_namespaces { "ForAllNamespaces" } else { "" };
        let kind = self.resource.kind;
        format!("{doing}{place}{collection}{namespaced}{kind}{subresource}{everywhere}")
    }

    fn parameters(&self, verb: Verb) -> Vec<Value> {
        let options = |kind: &str| parameters::options(kind, self.descriptions);
        match verb {
            Verb::Get if self.message.is_none() && !self.is_stream() => parameters::log(),
            _ if self.message.is_none() => Vec::new(),
            Verb::Get => Vec::new(),
            Verb::List | Verb::Watch => options("ListOptions"),
            Verb::Create => options("CreateOptions"),
            Verb::Update => options("UpdateOptions"),
            Verb::Patch => options("PatchOptions"),
            Verb::Delete => options("DeleteOptions"),
            Verb::DeleteCollection => {
                let mut parameters = options("DeleteOptions");
                // What is deleted is selected as what is listed; nothing is watched.
                let unfit = ["allowWatchBookmarks", "watch"];
                parameters.extend(options("ListOptions").into_iter().filter(|parameter| {
                    let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default();
                    !unfit.contains(&name)
                }));
                parameters
            }
        }
    }

    fn body(&self, verb: Verb, components: &mut Components<'_>) -> Option<Value> {
        let message = self.message?;
        match verb {
            Verb::Create | Verb::Update => {
                let schema = components.reference(message);
                Some(json!({"content": {"*/*": {"schema": schema}}, "required": true}))
            }
            Verb::Patch => {
                let schema = reference(&format!("{META}.Patch"), components);
                let apply = Some(&APPLY_PATCH).filter(|_| self.features.server_side_apply);
                let media = PATCHES.iter().chain(apply);
                Some(json!({"content": content(media, &schema), "required": true}))
            }
            Verb::Delete | Verb::DeleteCollection => {
                let schema = reference(&format!("{META}.DeleteOptions"), components);
                Some(json!({"content": {"*/*": {"schema": schema}}}))
            }
            Verb::Get | Verb::List | Verb::Watch => None,
        }
    }

    fn responses(&self, verb: Verb, components: &mut Components<'_>) -> Value {
        let Some(message) = self.message else {
            let media = if self.is_stream() { "*/*" } else { "text/plain" };
            return responses(200, "OK", &json!({"type": "string"}), &[media]);
        };
        match verb {
            Verb::List | Verb::Watch => {
                let list = reference(&format!("{}List", message.name), components);
                // Events of a watch come in the same operation.
                components.reference_by_name(&format!("{META}.WatchEvent"));
                responses(200, "OK", &list, &[ANSWERS, STREAMS].concat())
            }
            Verb::Delete | Verb::DeleteCollection => {
                let status = reference(&format!("{META}.Status"), components);
                let mut answers = responses(200, "OK", &status, ANSWERS);
                if verb == Verb::Delete {
                    add_response(&mut answers, 202, "Accepted", &status);
                }
                answers
            }
            Verb::Get | Verb::Create | Verb::Update | Verb::Patch => {
                let object = components.reference(message);
                let mut answers = responses(200, "OK", &object, ANSWERS);
                if verb != Verb::Get {
                    add_response(&mut answers, 201, "Created", &object);
                }
                if verb == Verb::Create {
                    add_response(&mut answers, 202, "Accepted", &object);
                }
                answers
            }
        }
    }
}

fn reference(name: &str, components: &mut Components<'_>) -> Value {
    components.reference_by_name(name).unwrap_or_else(|| json!({"type": "object"}))
}

fn responses(code: u16, description: &str, schema: &Value, media: &[&str]) -> Value {
    json!({
        code.to_string(): {"description": description, "content": content(media, schema)},
        "401": {"description": "Unauthorized"},
    })
}

fn add_response(responses: &mut Value, code: u16, description: &str, schema: &Value) {
    if let Value::Object(responses) = responses {
        let response = json!({"description": description, "content": content(ANSWERS, schema)});
        responses.insert(code.to_string(), response);
    }
}

fn content<'m>(media: impl IntoIterator<Item = &'m &'m str>, schema: &Value) -> Map<String, Value> {
    media.into_iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect()
}

fn method(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "post",
        Verb::Delete | Verb::DeleteCollection => "delete",
        Verb::Get | Verb::List | Verb::Watch => "get",
        Verb::Patch => "patch",
        Verb::Update => "put",
    }
}

/// `x-kubernetes-action`.
fn action(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "post",
        Verb::Update => "put",
        other => other.as_str(),
    }
}

/// `core_v1`, `rbacAuthorization_v1`.
fn tag(group: &str, version: &str) -> String {
    let name = group_camel(group);
    let mut letters = name.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).chain(['_']).chain(version.chars()).collect()
}

/// `CoreV1`, `RbacAuthorizationV1`.
fn camel(group: &str, version: &str) -> String {
    format!("{}{}", group_camel(group), capitalised(version))
}

fn group_camel(group: &str) -> String {
    let group = if group.is_empty() { "core" } else { group.trim_end_matches(".k8s.io") };
    group.split('.').map(capitalised).collect()
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|letter| letter.to_ascii_uppercase()).into_iter().chain(letters).collect()
}
