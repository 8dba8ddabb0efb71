//! What messages and fields are for, in the words of Kubernetes' documentation.

use std::borrow::Cow;
use std::collections::HashMap;

/// The generated text, compressed by the build script.
pub(super) static COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.zst"));

/// The generated text. It is unpacked for each document and not kept.
pub(super) fn text() -> String {
    // The bytes are part of the program, and the tests unpack them.
    let bytes = zstd::stream::decode_all(COMPRESSED).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// Descriptions by message and field.
#[derive(Debug, Default)]
pub(super) struct Descriptions<'t> {
    messages: HashMap<&'t str, Message<'t>>,
}

#[derive(Debug, Default)]
struct Message<'t> {
    text: &'t str,
    fields: HashMap<&'t str, &'t str>,
}

impl<'t> Descriptions<'t> {
    /// Reads `= message text` and `field text` lines.
    pub(super) fn parse(text: &'t str) -> Self {
        let mut descriptions = Self::default();
        let mut current = "";
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(rest) = line.strip_prefix("= ") {
                let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
                current = name;
                descriptions.messages.insert(name, Message { text, fields: HashMap::new() });
            } else if let (Some((field, text)), Some(message)) =
                (line.split_once(' '), descriptions.messages.get_mut(current))
            {
                message.fields.insert(field, text);
            }
        }
        descriptions
    }

    /// A message's description; empty if there is none.
    pub(super) fn message(&self, name: &str) -> Cow<'t, str> {
        unescape(self.messages.get(name).map_or("", |message| message.text))
    }

    /// A field's description; empty if there is none.
    pub(super) fn field(&self, message: &str, field: &str) -> Cow<'t, str> {
        let text = self.messages.get(message).and_then(|message| message.fields.get(field).copied());
        unescape(text.unwrap_or(""))
    }
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => plain.push('\n'),
                Some(other) => plain.push(other),
                None => {}
            },
            other => plain.push(other),
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_found_and_their_line_breaks_restored() {
        let descriptions =
            Descriptions::parse("# words\n= a.B What it is.\nname Its name.\nx A\\nB \\\\d\n= a.C\n");
        assert_eq!(descriptions.message("a.B"), "What it is.");
        assert_eq!(descriptions.field("a.B", "name"), "Its name.");
        assert_eq!(descriptions.field("a.B", "x"), "A\nB \\d");
        assert_eq!(descriptions.message("a.C"), "");
        assert_eq!(descriptions.field("a.C", "name"), "");
    }

    #[test]
    fn the_generated_text_unpacks_and_tells_of_every_kind() {
        let text = text();
        let descriptions = Descriptions::parse(&text);
        for message in crate::schema::messages().iter().filter(|message| message.kind.is_some()) {
            assert_ne!(descriptions.message(message.name), "", "{}", message.name);
        }
        assert!(
            descriptions.field("io.k8s.api.core.v1.PodSpec", "containers").starts_with("List of containers")
        );
        assert_ne!(descriptions.message("io.k8s.apimachinery.pkg.api.resource.Quantity"), "");
    }
}
