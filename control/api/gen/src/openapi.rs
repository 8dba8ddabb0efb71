//! Reads k8s-openapi: the JSON schema that each type can give, and the kind it stands for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use serde_json::{Map, Value};
use syn::{Expr, ImplItem, Item, ItemImpl, Lit, Stmt};

use crate::error::Error;
use crate::sources;

/// A type.
#[derive(Debug, Default)]
pub(crate) struct Type {
    /// Full name: `io.k8s.api.core.v1.Pod`.
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) properties: BTreeMap<String, Property>,
    pub(crate) required: BTreeSet<String>,
    /// Group, version and kind.
    pub(crate) kind: Option<(String, String, String)>,
}

/// A property.
#[derive(Debug, Default)]
pub(crate) struct Property {
    pub(crate) description: String,
    /// What the type looks like, in the words of [`shape_of`].
    pub(crate) shape: String,
}

/// Reads all types, by name in lower case (prost changes the case of acronyms).
pub(crate) fn read(directory: &Path) -> Result<BTreeMap<String, Type>, Error> {
    let mut types = BTreeMap::new();
    for path in sources::rust_files(directory)? {
        let file = sources::parse(&path)?;
        let implementations = file.items.iter().filter_map(|item| match item {
            Item::Impl(item) => Some(item),
            _ => None,
        });
        let mut read = Type::default();
        for item in implementations {
            match trait_name(item).as_deref() {
                Some("JsonSchema") => read_schema(item, &mut read)
                    .map_err(|what| Error::Shape(format!("{}: {what}", path.display())))?,
                Some("Resource") => read.kind = read_kind(item),
                _ => {}
            }
        }
        if !read.name.is_empty() {
            types.insert(read.name.to_lowercase(), read);
        }
    }
    Ok(types)
}

fn trait_name(item: &ItemImpl) -> Option<String> {
    let (path, ..) = item.trait_.as_ref()?;
    path.segments.last().map(|segment| segment.ident.to_string())
}

fn read_kind(item: &ItemImpl) -> Option<(String, String, String)> {
    let constant = |name: &str| {
        item.items.iter().find_map(|item| match item {
            ImplItem::Const(constant) if constant.ident == name => literal(&constant.expr),
            _ => None,
        })
    };
    Some((constant("GROUP")?, constant("VERSION")?, constant("KIND")?))
}

fn literal(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(text) => Some(text.value()),
            _ => None,
        },
        Expr::MethodCall(call) => literal(&call.receiver),
        _ => None,
    }
}

fn read_schema(item: &ItemImpl, into: &mut Type) -> Result<(), String> {
    for function in item.items.iter().filter_map(|item| match item {
        ImplItem::Fn(function) => Some(function),
        _ => None,
    }) {
        match (function.sig.ident.to_string().as_str(), function.block.stmts.first()) {
            ("schema_name", Some(Stmt::Expr(expression, None))) => {
                // Generic types compose their names; none of them is in the table.
                into.name = literal(expression).unwrap_or_default();
            }
            ("json_schema", Some(statement)) => {
                let tokens = match statement {
                    Stmt::Macro(statement) => statement.mac.tokens.clone(),
                    Stmt::Expr(Expr::Macro(expression), _) => expression.mac.tokens.clone(),
                    _ => continue,
                };
                read_object(&value(tokens)?, into);
            }
            _ => {}
        }
    }
    Ok(())
}

fn read_object(schema: &Value, into: &mut Type) {
    into.description = text(schema, "description");
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    into.required = required.filter_map(Value::as_str).map(str::to_owned).collect();
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let property = Property { description: text(property, "description"), shape: shape_of(property) };
        into.properties.insert(name.clone(), property);
    }
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A property's type in a few words: `string`, `integer/int32`, `[]string`, `map:integer/int64`,
/// `ref`, or nothing where the schema says nothing.
fn shape_of(property: &Value) -> String {
    if property.get("$ref").is_some() {
        return "ref".to_owned();
    }
    if let Some(items) = property.get("items") {
        return format!("[]{}", shape_of(items));
    }
    if let Some(values) = property.get("additionalProperties") {
        return format!("map:{}", shape_of(values));
    }
    match (text(property, "type"), text(property, "format")) {
        (ty, format) if format.is_empty() => ty,
        (ty, format) => format!("{ty}/{format}"),
    }
}

/// Reads what stands in a `json_schema!` as JSON. Expressions in parentheses ask for another type's
/// schema and may add a description.
fn value(tokens: TokenStream) -> Result<Value, String> {
    match tokens.clone().into_iter().next().ok_or("an empty value")? {
        TokenTree::Group(group) => match group.delimiter() {
            Delimiter::Brace => object(group.stream()),
            Delimiter::Bracket => {
                split(group.stream()).into_iter().map(value).collect::<Result<_, _>>().map(Value::Array)
            }
            _ => Ok(reference(group.stream())),
        },
        TokenTree::Literal(literal) => match syn::parse_str(&literal.to_string()) {
            Ok(Lit::Str(text)) => Ok(Value::String(text.value())),
            _ => Err(format!("an unexpected literal {literal}")),
        },
        TokenTree::Ident(word) if word == "true" => Ok(Value::Bool(true)),
        TokenTree::Ident(_) => Ok(reference(tokens)),
        other => Err(format!("an unexpected {other}")),
    }
}

fn object(tokens: TokenStream) -> Result<Value, String> {
    let mut members = Map::new();
    for entry in split(tokens) {
        let mut entry = entry.into_iter();
        let Some(key) = entry.next() else { continue };
        // The colon.
        entry.next();
        let Ok(Value::String(key)) = value(key.into()) else { return Err("a key that is no text".into()) };
        members.insert(key, value(entry.collect())?);
    }
    Ok(Value::Object(members))
}

fn reference(tokens: TokenStream) -> Value {
    let mut members = Map::new();
    members.insert("$ref".to_owned(), Value::Bool(true));
    let texts = strings(tokens);
    if let [key, description] = texts.as_slice() {
        members.insert(key.clone(), Value::String(description.clone()));
    }
    Value::Object(members)
}

/// All string literals, at any depth.
fn strings(tokens: TokenStream) -> Vec<String> {
    let mut texts = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => texts.extend(strings(group.stream())),
            TokenTree::Literal(literal) => {
                if let Ok(Lit::Str(text)) = syn::parse_str(&literal.to_string()) {
                    texts.push(text.value());
                }
            }
            _ => {}
        }
    }
    texts
}

/// Splits at commas; a trailing one adds nothing.
fn split(tokens: TokenStream) -> Vec<TokenStream> {
    let mut parts = vec![Vec::new()];
    for token in tokens {
        match &token {
            TokenTree::Punct(punct) if punct.as_char() == ',' => parts.push(Vec::new()),
            _ => {
                if let Some(part) = parts.last_mut() {
                    part.push(token);
                }
            }
        }
    }
    parts.into_iter().filter(|part| !part.is_empty()).map(TokenStream::from_iter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_read_from_the_macro() {
        let tokens = r#"{
            "description": "A \"thing\".",
            "type": "object",
            "properties": {
                "list": { "type": "array", "items": (__gen.subschema_for::<crate::A>()), },
                "map": { "type": "object", "additionalProperties": { "type": "integer", "format": "int32", }, },
                "other": ({
                    let mut schema_obj = __gen.subschema_for::<crate::B>();
                    schema_obj.ensure_object().insert("description".into(), "The other.".into());
                    schema_obj
                }),
            },
            "required": [ "list", ],
        }"#;
        let mut read = Type::default();
        read_object(&value(tokens.parse().unwrap()).unwrap(), &mut read);
        assert_eq!(read.description, "A \"thing\".");
        assert_eq!(read.required, BTreeSet::from(["list".to_owned()]));
        let shapes: Vec<_> =
            read.properties.iter().map(|(name, p)| (name.as_str(), p.shape.as_str())).collect();
        assert_eq!(shapes, [("list", "[]ref"), ("map", "map:integer/int32"), ("other", "ref")]);
        assert_eq!(read.properties["other"].description, "The other.");
    }
}
