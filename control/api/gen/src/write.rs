//! Writes the table as the two text files that `sampan-api` embeds.

use std::fmt::Write as _;

use crate::join::PREFIX;
use crate::protobuf::Shape;
use crate::table::{Field, Message, Table};

/// The structure: a line per message, an indented line per field (see `sampan_api::schema`).
pub(crate) fn schema(header: &str, table: &Table) -> String {
    let mut text = format!("# {header}\n");
    for (name, message) in &table.messages {
        text.push_str(&message_line(name, message));
        for (tag, inlined) in &message.inlines {
            let _ = writeln!(text, "  + {tag} {}", type_name(inlined, name));
        }
        for (json, field) in &message.fields {
            text.push_str(&field_line(json, field, name));
        }
    }
    text
}

fn message_line(name: &str, message: &Message) -> String {
    let mut line = format!("message {name}");
    if let Some((group, version, kind)) = &message.kind {
        let _ = write!(line, " kind={group}/{version}/{kind}");
    }
    if message.atomic {
        line.push_str(" atomic");
    }
    line.push('\n');
    line
}

fn field_line(json: &str, field: &Field, within: &str) -> String {
    let shape = match field.shape {
        Shape::One => "",
        Shape::List => "[]",
        Shape::Map => "map:",
    };
    let mut line = format!("  {json} {} {shape}{}", field.tag, type_name(&field.ty, within));
    if field.required {
        line.push_str(" required");
    }
    if field.pointer {
        line.push_str(" pointer");
    }
    let markers = &field.markers;
    match markers.list_type.as_deref() {
        Some("map") => {
            let _ = write!(line, " list=map:{}", markers.list_map_keys.join(","));
        }
        Some(other) => {
            let _ = write!(line, " list={other}");
        }
        None => {}
    }
    let words = [
        ("map", markers.map_type.as_ref().or(markers.struct_type.as_ref())),
        ("patch", markers.patch_strategy.as_ref()),
        ("key", markers.patch_merge_key.as_ref()),
        ("default", markers.default.as_ref()),
    ];
    for (word, value) in words {
        if let Some(value) = value {
            let _ = write!(line, " {word}={value}");
        }
    }
    line.push('\n');
    line
}

/// A type as the table spells it: `.Name` in the same package, without the common prefix elsewhere.
fn type_name<'a>(ty: &'a str, within: &str) -> &'a str {
    let package = within.rsplit_once('.').map_or("", |(package, _)| package);
    match ty.strip_prefix(package) {
        Some(rest) if rest.rfind('.') == Some(0) => rest,
        _ => ty.strip_prefix(PREFIX).unwrap_or(ty),
    }
}

/// The descriptions: a line per message (`= name text`), then a line per field (`name text`).
pub(crate) fn descriptions(header: &str, table: &Table) -> String {
    let mut text = format!("# {header}\n");
    for (name, message) in &table.messages {
        let _ = writeln!(text, "= {name} {}", escape(&message.description));
        for (json, description) in message.descriptions.iter().filter(|(_, text)| !text.is_empty()) {
            let _ = writeln!(text, "{json} {}", escape(description));
        }
    }
    for (name, description) in &table.specials {
        let _ = writeln!(text, "= {name} {}", escape(description));
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::markers::Markers;

    #[test]
    fn types_are_shortened_within_their_package() {
        let within = "io.k8s.api.core.v1.Pod";
        let cases = [
            ("io.k8s.api.core.v1.PodSpec", ".PodSpec"),
            ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "apimachinery.pkg.apis.meta.v1.ObjectMeta"),
            ("string", "string"),
        ];
        for (ty, expected) in cases {
            assert_eq!(type_name(ty, within), expected, "{ty}");
        }
    }

    #[test]
    fn a_field_is_one_line() {
        let field = Field {
            tag: 6,
            shape: Shape::List,
            ty: "io.k8s.api.core.v1.ContainerPort".to_owned(),
            required: true,
            pointer: false,
            markers: Markers {
                list_type: Some("map".to_owned()),
                list_map_keys: vec!["containerPort".to_owned(), "protocol".to_owned()],
                patch_strategy: Some("merge".to_owned()),
                patch_merge_key: Some("containerPort".to_owned()),
                ..Markers::default()
            },
        };
        assert_eq!(
            field_line("ports", &field, "io.k8s.api.core.v1.Container"),
            "  ports 6 []ContainerPort required list=map:containerPort,protocol patch=merge key=containerPort\n"
                .replace("[]C", "[].C")
        );
    }
}
