//! Reads k8s-pb: messages as prost generated them, with tags, types and doc comments.

use std::path::Path;

use syn::{Attribute, Expr, Fields, GenericArgument, Item, Lit, Meta, PathArguments, Type};

use crate::error::Error;
use crate::sources;

/// A message.
pub(crate) struct Message {
    /// Its package: `api.core.v1`.
    pub(crate) package: String,
    /// Its name as prost spells it: `AwsElasticBlockStoreVolumeSource`.
    pub(crate) name: String,
    pub(crate) docs: Vec<String>,
    pub(crate) fields: Vec<Field>,
}

impl Message {
    pub(crate) fn full_name(&self) -> String {
        format!("{}.{}", self.package, self.name)
    }
}

/// A field.
pub(crate) struct Field {
    /// Its name as prost spells it: `volume_id`.
    pub(crate) name: String,
    pub(crate) tag: u32,
    pub(crate) shape: Shape,
    pub(crate) kind: Kind,
    pub(crate) docs: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    One,
    List,
    Map,
}

/// The type of a value.
pub(crate) enum Kind {
    /// `string`, `bool`, `int32`, `int64`, `double` or `bytes`.
    Scalar(String),
    /// A message by its full name.
    Message(String),
}

/// Reads all messages.
pub(crate) fn read(directory: &Path) -> Result<Vec<Message>, Error> {
    let mut messages = Vec::new();
    for path in sources::rust_files(directory)? {
        let package = package_of(directory, &path);
        for item in sources::parse(&path)?.items {
            if let Item::Struct(item) = item {
                let name = item.ident.to_string();
                let fields = read_fields(&package, &name, &item.fields)?;
                messages.push(Message { package: package.clone(), name, docs: docs(&item.attrs), fields });
            }
        }
    }
    Ok(messages)
}

fn package_of(root: &Path, file: &Path) -> String {
    let directory = file.parent().and_then(|directory| directory.strip_prefix(root).ok());
    let parts = directory.into_iter().flat_map(|directory| directory.iter());
    parts.map(|part| part.to_string_lossy()).collect::<Vec<_>>().join(".")
}

fn read_fields(package: &str, message: &str, fields: &Fields) -> Result<Vec<Field>, Error> {
    let mut read = Vec::new();
    for field in fields {
        let name = field.ident.as_ref().map(ToString::to_string).unwrap_or_default();
        let name = name.trim_start_matches("r#").to_owned();
        let fail = |what: &str| Error::Shape(format!("k8s-pb: {package}.{message}.{name}: {what}"));
        let prost = prost_attribute(&field.attrs).ok_or_else(|| fail("no prost attribute"))?;
        let tag = prost.tag.ok_or_else(|| fail("no tag"))?;
        let value = prost.value.as_deref().ok_or_else(|| fail("no type"))?;
        let kind = if value == "message" {
            let path = innermost(&field.ty).ok_or_else(|| fail("no message type"))?;
            Kind::Message(resolve(package, &path))
        } else {
            Kind::Scalar(value.to_owned())
        };
        read.push(Field { tag, shape: prost.shape, kind, docs: docs(&field.attrs), name });
    }
    Ok(read)
}

/// What `#[prost(…)]` says.
struct Prost {
    tag: Option<u32>,
    shape: Shape,
    value: Option<String>,
}

fn prost_attribute(attributes: &[Attribute]) -> Option<Prost> {
    let attribute = attributes.iter().find(|attribute| attribute.path().is_ident("prost"))?;
    let mut prost = Prost { tag: None, shape: Shape::One, value: None };
    attribute
        .parse_nested_meta(|meta| {
            let word = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
            let argument = if meta.input.peek(syn::Token![=]) {
                meta.value()?.parse::<syn::LitStr>()?.value()
            } else {
                String::new()
            };
            match word.as_str() {
                "tag" => prost.tag = argument.parse().ok(),
                "repeated" => prost.shape = Shape::List,
                "btree_map" | "hash_map" | "map" => {
                    prost.shape = Shape::Map;
                    prost.value = argument.split_once(',').map(|(_, value)| value.trim().to_owned());
                }
                "optional" | "boxed" | "packed" => {}
                _ => prost.value = Some(word),
            }
            Ok(())
        })
        .ok()?;
    Some(prost)
}

/// The path inside all the options, boxes, vectors and maps.
fn innermost(ty: &Type) -> Option<Vec<String>> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    if let PathArguments::AngleBracketed(arguments) = &last.arguments {
        let types = arguments.args.iter().filter_map(|argument| match argument {
            GenericArgument::Type(ty) => Some(ty),
            _ => None,
        });
        return innermost(types.last()?);
    }
    Some(path.path.segments.iter().map(|segment| segment.ident.to_string()).collect())
}

/// A path relative to a package as a full name.
fn resolve(package: &str, path: &[String]) -> String {
    let mut parts: Vec<&str> = package.split('.').collect();
    for segment in path {
        if segment == "super" {
            parts.pop();
        } else {
            parts.push(segment);
        }
    }
    parts.join(".")
}

/// Doc comments, a line each.
pub(crate) fn docs(attributes: &[Attribute]) -> Vec<String> {
    let texts = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(meta) if meta.path.is_ident("doc") => match &meta.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    texts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_resolved_against_the_package() {
        let path = ["super", "super", "super", "apimachinery", "pkg", "Time"].map(str::to_owned);
        assert_eq!(resolve("api.core.v1", &path), "apimachinery.pkg.Time");
        assert_eq!(resolve("api.core.v1", &["Pod".to_owned()]), "api.core.v1.Pod");
    }

    #[test]
    fn prost_attributes_tell_shape_tag_and_type() {
        let text = r#"
            struct S {
                /// Says hello.
                /// +optional
                #[prost(message, repeated, tag = "3")]
                pub a: ::prost::alloc::vec::Vec<super::B>,
                #[prost(btree_map = "string, message", tag = "4")]
                pub r#b: ::prost::alloc::collections::BTreeMap<::prost::alloc::string::String, C>,
                #[prost(bytes = "vec", optional, tag = "5")]
                pub c: ::core::option::Option<::prost::alloc::vec::Vec<u8>>,
            }
        "#;
        let item: syn::ItemStruct = syn::parse_str(text).unwrap();
        let fields = read_fields("api.x", "S", &item.fields).unwrap();
        let told: Vec<_> = fields
            .iter()
            .map(|field| {
                let kind = match &field.kind {
                    Kind::Scalar(scalar) => scalar.clone(),
                    Kind::Message(message) => format!("message {message}"),
                };
                (field.name.as_str(), field.tag, field.shape, kind)
            })
            .collect();
        assert_eq!(
            told,
            [
                ("a", 3, Shape::List, "message api.B".to_owned()),
                ("b", 4, Shape::Map, "message api.x.C".to_owned()),
                ("c", 5, Shape::One, "bytes".to_owned()),
            ]
        );
        assert_eq!(fields.first().unwrap().docs, ["Says hello.", "+optional"]);
    }
}
