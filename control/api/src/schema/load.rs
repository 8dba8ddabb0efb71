//! Reads the table's text: one line per message, one indented line per field.
//!
//! ```text
//! message io.k8s.api.core.v1.Pod kind=/v1/Pod
//!   metadata 1 apimachinery.pkg.apis.meta.v1.ObjectMeta
//!   spec 2 .PodSpec
//! message io.k8s.api.core.v1.Volume
//!   + 2 .VolumeSource
//!   name 1 string required
//! ```
//!
//! Types that start with `.` are of the message's own package, other message types follow `io.k8s.`;
//! `[]` and `map:` stand before the type of lists and maps. `+` inlines a message: its fields become
//! the message's own. The generator writes messages by name, so that they are found by bisection.

use super::types::{Field, Kind, ListType, MapType, Message, MessageRef, Patch, Shape, Wire};

/// What stands before every message's name.
const PREFIX: &str = "io.k8s.";

/// Inlined messages may inline others, this deep.
const MAX_INLINE_DEPTH: usize = 4;

/// What a message is where the table has none: only a broken table refers to it.
static NOTHING: Message = Message { name: "", kind: None, atomic: false, fields: &[], wire: &[] };

type GroupVersionKind = (&'static str, &'static str, &'static str);

/// The table, ready for lookups.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// By name.
    pub(super) messages: Vec<Message>,
    /// By group, version and kind.
    kinds: Vec<(GroupVersionKind, u16)>,
}

impl Table {
    pub(super) fn by_name(&self, name: &str) -> Option<&Message> {
        let index = self.messages.binary_search_by(|message| message.name.cmp(name)).ok()?;
        self.messages.get(index)
    }

    pub(super) fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Message> {
        let index = self.kinds.binary_search_by(|(gvk, _)| gvk.cmp(&(group, version, kind))).ok()?;
        let (_, message) = self.kinds.get(index)?;
        self.messages.get(usize::from(*message))
    }

    pub(super) fn by_index(&self, index: u16) -> &Message {
        self.messages.get(usize::from(index)).unwrap_or(&NOTHING)
    }
}

/// A line that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schema table, line {line}: {what}")]
pub(super) struct LoadError {
    line: usize,
    what: &'static str,
}

/// A message as its lines say, before inlined messages are resolved.
struct Draft {
    name: &'static str,
    kind: Option<GroupVersionKind>,
    atomic: bool,
    fields: Vec<Field>,
    inlines: Vec<(u32, MessageRef)>,
}

/// Reads the text.
pub(super) fn load(source: &'static str) -> Result<Table, LoadError> {
    let names = message_names(source);
    let mut drafts: Vec<Draft> = Vec::with_capacity(names.len());
    for (index, text) in source.lines().enumerate() {
        let fail = |what| LoadError { line: index + 1, what };
        if let Some(rest) = text.strip_prefix("message ") {
            drafts.push(read_message(rest).map_err(fail)?);
        } else if let Some(rest) = text.strip_prefix("  ") {
            let draft = drafts.last_mut().ok_or_else(|| fail("a field before any message"))?;
            read_field(rest, draft, &names).map_err(fail)?;
        } else if !text.is_empty() && !text.starts_with('#') {
            return Err(fail("neither a message nor a field"));
        }
    }
    Ok(assemble(&drafts))
}

fn message_names(source: &'static str) -> Vec<&'static str> {
    let messages = source.lines().filter_map(|line| line.strip_prefix("message "));
    messages.filter_map(|rest| rest.split(' ').next()).collect()
}

fn read_message(rest: &'static str) -> Result<Draft, &'static str> {
    let mut words = rest.split(' ');
    let name = words.next().ok_or("a message without a name")?;
    let mut draft = Draft { name, kind: None, atomic: false, fields: Vec::new(), inlines: Vec::new() };
    for word in words {
        match word.split_once('=') {
            Some(("kind", kind)) => {
                let (group_version, kind) = kind.rsplit_once('/').ok_or("a kind without a version")?;
                let (group, version) = group_version.rsplit_once('/').ok_or("a kind without a group")?;
                draft.kind = Some((group, version, kind));
            }
            None if word == "atomic" => draft.atomic = true,
            _ => return Err("an unknown word after the message's name"),
        }
    }
    Ok(draft)
}

fn read_field(rest: &'static str, draft: &mut Draft, names: &[&'static str]) -> Result<(), &'static str> {
    let mut words = rest.split(' ');
    let (Some(name), Some(tag), Some(ty)) = (words.next(), words.next(), words.next()) else {
        return Err("a field needs name, tag and type");
    };
    let tag = tag.parse().map_err(|_| "a tag that is no number")?;
    let (shape, kind) = read_type(ty, draft.name, names)?;
    if name == "+" {
        let Kind::Message(message) = kind else { return Err("only messages can be inlined") };
        draft.inlines.push((tag, message));
        return Ok(());
    }
    let mut field = Field {
        name,
        tag,
        kind,
        shape,
        required: false,
        pointer: false,
        inline: false,
        list_type: None,
        map_type: None,
        patch: Patch::default(),
        default: None,
    };
    for word in words {
        read_flag(word, &mut field)?;
    }
    draft.fields.push(field);
    Ok(())
}

fn read_type(ty: &str, within: &str, names: &[&'static str]) -> Result<(Shape, Kind), &'static str> {
    let (shape, ty) = match (ty.strip_prefix("[]"), ty.strip_prefix("map:")) {
        (Some(element), _) => (Shape::List, element),
        (None, Some(value)) => (Shape::Map, value),
        (None, None) => (Shape::One, ty),
    };
    let kind = match ty {
        "bool" => Kind::Bool,
        "int32" => Kind::Int32,
        "int64" => Kind::Int64,
        "double" => Kind::Double,
        "string" => Kind::String,
        "bytes" => Kind::Bytes,
        "quantity" => Kind::Quantity,
        "intOrString" => Kind::IntOrString,
        "time" => Kind::Time,
        "microTime" => Kind::MicroTime,
        "rawExtension" => Kind::RawExtension,
        "fieldsV1" => Kind::FieldsV1,
        "json" => Kind::Json,
        "schemaOrArray" => Kind::SchemaOrArray,
        "schemaOrBool" => Kind::SchemaOrBool,
        "schemaOrStrings" => Kind::SchemaOrStrings,
        "strings" => Kind::Strings,
        reference => Kind::Message(read_reference(reference, within, names)?),
    };
    Ok((shape, kind))
}

fn read_reference(reference: &str, within: &str, names: &[&'static str]) -> Result<MessageRef, &'static str> {
    let name = if reference.starts_with('.') {
        let package = within.rsplit_once('.').map_or("", |(package, _)| package);
        format!("{package}{reference}")
    } else {
        format!("{PREFIX}{reference}")
    };
    let index = names.binary_search(&name.as_str()).map_err(|_| "a type that is not in the table")?;
    u16::try_from(index).map(MessageRef).map_err(|_| "too many messages")
}

fn read_flag(word: &'static str, field: &mut Field) -> Result<(), &'static str> {
    match word.split_once('=') {
        None => match word {
            "required" => field.required = true,
            "pointer" => field.pointer = true,
            _ => return Err("an unknown flag"),
        },
        Some(("list", "atomic")) => field.list_type = Some(ListType::Atomic),
        Some(("list", "set")) => field.list_type = Some(ListType::Set),
        Some(("list", keys)) => {
            let keys = keys.strip_prefix("map:").ok_or("an unknown list type")?;
            // Once per associative list, for the life of the process, as the table itself.
            field.list_type = Some(ListType::Map(keys.split(',').collect::<Vec<_>>().leak()));
        }
        Some(("map", "atomic")) => field.map_type = Some(MapType::Atomic),
        Some(("map", "granular")) => field.map_type = Some(MapType::Granular),
        Some(("patch", strategies)) => {
            for strategy in strategies.split(',') {
                match strategy {
                    "merge" => field.patch.merge = true,
                    "retainKeys" => field.patch.retain_keys = true,
                    "replace" => field.patch.replace = true,
                    _ => return Err("an unknown patch strategy"),
                }
            }
        }
        Some(("key", key)) => field.patch.merge_key = Some(key),
        Some(("default", default)) => field.default = Some(default),
        Some(_) => return Err("an unknown flag"),
    }
    Ok(())
}

fn assemble(drafts: &[Draft]) -> Table {
    let mut messages = Vec::with_capacity(drafts.len());
    let mut kinds = Vec::new();
    for (index, draft) in (0u16..).zip(drafts) {
        let mut fields = draft.fields.clone();
        flatten(draft, drafts, &mut fields, MAX_INLINE_DEPTH);
        fields.sort_unstable_by_key(|field| field.name);
        fields.shrink_to_fit();
        kinds.extend(draft.kind.map(|kind| (kind, index)));
        let wire = wire_view(draft, &fields);
        let (name, kind, atomic) = (draft.name, draft.kind, draft.atomic);
        // The table lives as long as the process; leaking gives its parts that lifetime.
        messages.push(Message { name, kind, atomic, fields: fields.leak(), wire: wire.leak() });
    }
    kinds.sort_unstable();
    Table { messages, kinds }
}

/// Adds the fields of inlined messages.
fn flatten(draft: &Draft, drafts: &[Draft], fields: &mut Vec<Field>, depth: usize) {
    for (_, message) in &draft.inlines {
        let Some(inlined) = drafts.get(usize::from(message.0)) else { continue };
        fields.extend(inlined.fields.iter().map(|field| Field { inline: true, ..*field }));
        if let Some(depth) = depth.checked_sub(1) {
            flatten(inlined, drafts, fields, depth);
        }
    }
}

fn wire_view(draft: &Draft, fields: &[Field]) -> Vec<(u32, Wire)> {
    let own = (0u16..).zip(fields).filter(|(_, field)| field.tag != 0 && !field.inline);
    let mut wire: Vec<_> = own.map(|(index, field)| (field.tag, Wire::Field(index))).collect();
    wire.extend(draft.inlines.iter().map(|(tag, message)| (*tag, Wire::Inline(*message))));
    wire.sort_unstable_by_key(|(tag, _)| *tag);
    wire.shrink_to_fit();
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_refused_with_its_line() {
        let cases = [
            ("  name 1 string\n", 1, "a field before any message"),
            ("message a.B\n  name 1\n", 2, "a field needs name, tag and type"),
            ("message a.B\n  name x string\n", 2, "a tag that is no number"),
            ("message a.B\n  name 1 .C\n", 2, "a type that is not in the table"),
            ("message a.B\n  name 1 string shiny\n", 2, "an unknown flag"),
            ("message a.B\n  + 1 string\n", 2, "only messages can be inlined"),
            ("message a.B shiny\n", 1, "an unknown word after the message's name"),
            ("what\n", 1, "neither a message nor a field"),
        ];
        for (text, line, what) in cases {
            assert_eq!(load(text).unwrap_err(), LoadError { line, what }, "{text}");
        }
    }

    #[test]
    fn a_table_is_read() {
        let table = load(
            "# words\nmessage io.k8s.a.B kind=g/v1/B atomic\n  + 2 .C\n  x 1 []string required list=set patch=merge\n\
             message io.k8s.a.C\n  b 1 a.B\n  y 3 map:int32 pointer map=atomic default=1\n",
        )
        .unwrap();
        let b = table.by_name("io.k8s.a.B").unwrap();
        assert!(b.atomic);
        assert_eq!(table.by_kind("g", "v1", "B").unwrap().name, b.name);
        let names: Vec<_> = b.fields.iter().map(|field| (field.name, field.inline)).collect();
        assert_eq!(names, [("b", true), ("x", false), ("y", true)]);
        assert_eq!(b.wires(), [(1, Wire::Field(1)), (2, Wire::Inline(MessageRef(1)))]);
        let y = b.field("y").unwrap();
        assert_eq!((y.shape, y.kind, y.pointer, y.default), (Shape::Map, Kind::Int32, true, Some("1")));
        assert_eq!(b.field("b").unwrap().kind, Kind::Message(MessageRef(0)));
    }
}
