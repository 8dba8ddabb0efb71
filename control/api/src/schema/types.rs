//! What the table is made of. Plain data, shared for the life of the process.

use super::table;

/// An object type of the API.
#[derive(Debug)]
pub struct Message {
    /// Full name, as OpenAPI has it: `io.k8s.api.core.v1.Pod`.
    pub name: &'static str,
    /// Group, version and kind, if objects of this type stand alone.
    pub kind: Option<(&'static str, &'static str, &'static str)>,
    /// Whether server-side apply owns it as a whole (`structType=atomic`).
    pub atomic: bool,
    /// Fields by JSON name, sorted. Those of inlined messages are among them.
    pub fields: &'static [Field],
    /// The protobuf view: tags, sorted.
    pub(super) wire: &'static [(u32, Wire)],
}

/// Where a protobuf tag leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// To the field with this index in [`Message::fields`].
    Field(u16),
    /// To a message whose fields stand in this object's JSON directly.
    Inline(MessageRef),
}

impl Message {
    /// A field by its JSON name.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        let index = self.fields.binary_search_by(|field| field.name.cmp(name)).ok()?;
        self.fields.get(index)
    }

    /// Where a protobuf tag leads.
    pub fn wire(&self, tag: u32) -> Option<Wire> {
        let index = self.wire.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        self.wire.get(index).map(|(_, wire)| *wire)
    }

    /// All protobuf tags and where they lead, in ascending order.
    pub fn wires(&self) -> &'static [(u32, Wire)] {
        self.wire
    }

    /// The last part of the name: `Pod`.
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// The name as Go prints the type: `v1.Pod`.
    pub fn go_name(&self) -> &'static str {
        let mut dots = self.name.rmatch_indices('.').map(|(at, _)| at);
        let start = dots.nth(1).map_or(0, |at| at + 1);
        self.name.get(start..).unwrap_or(self.name)
    }
}

/// A message by its place in the table (messages refer to each other, also in circles).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageRef(pub(super) u16);

impl MessageRef {
    /// The message itself.
    pub fn get(self) -> &'static Message {
        table().by_index(self.0)
    }
}

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// JSON name.
    pub name: &'static str,
    /// Protobuf tag; 0 for fields that only JSON has (`apiVersion`, `kind`).
    pub tag: u32,
    /// The type of the value, of a list's elements or of a map's values.
    pub kind: Kind,
    /// Whether there is one value, a list or a map with string keys.
    pub shape: Shape,
    /// Whether Kubernetes always writes the field, even when it is empty.
    pub required: bool,
    /// Whether the field is a pointer in Kubernetes' types, so that zero, `false` and `""` differ
    /// from absence.
    pub pointer: bool,
    /// Whether the field comes from an inlined message.
    pub inline: bool,
    /// How a list merges in server-side apply; lists without one are atomic.
    pub list_type: Option<ListType>,
    /// How a map (or an object) merges in server-side apply.
    pub map_type: Option<MapType>,
    /// What strategic merge patch does with it.
    pub patch: Patch,
    /// The default that Kubernetes documents, as JSON text.
    pub default: Option<&'static str>,
}

/// One value, many, or many with names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// One value.
    One,
    /// A list.
    List,
    /// A map with string keys.
    Map,
}

/// The type of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// 32-bit integer.
    Int32,
    /// 64-bit integer.
    Int64,
    /// Floating point number.
    Double,
    /// Text.
    String,
    /// Bytes; base64 in JSON.
    Bytes,
    /// Amount with a suffix: `100m`, `64Mi`. A number is accepted too.
    Quantity,
    /// Integer or text: ports, percentages.
    IntOrString,
    /// Time to the second, RFC 3339.
    Time,
    /// Time to the microsecond, RFC 3339.
    MicroTime,
    /// Any object (`RawExtension`).
    RawExtension,
    /// A set of field paths, kept as it came (`FieldsV1`).
    FieldsV1,
    /// Any JSON value.
    Json,
    /// `JSONSchemaPropsOrArray`: a schema or a list of schemas.
    SchemaOrArray,
    /// `JSONSchemaPropsOrBool`: a schema or a boolean.
    SchemaOrBool,
    /// `JSONSchemaPropsOrStringArray`: a schema or a list of strings.
    SchemaOrStrings,
    /// A list of strings that is a message of its own on the wire (`Verbs`, `ExtraValue`).
    Strings,
    /// An object.
    Message(MessageRef),
}

/// How server-side apply merges a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole.
    Atomic,
    /// Scalars, each at most once.
    Set,
    /// Objects, told apart by these keys (all of them together).
    Map(&'static [&'static str]),
}

impl ListType {
    /// As markers and OpenAPI spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Atomic => "atomic",
            Self::Set => "set",
            Self::Map(_) => "map",
        }
    }
}

/// How server-side apply merges a map or an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapType {
    /// Replaced as a whole.
    Atomic,
    /// Key by key.
    Granular,
}

impl MapType {
    /// As markers and OpenAPI spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Atomic => "atomic",
            Self::Granular => "granular",
        }
    }
}

/// What strategic merge patch does with a field. The default replaces lists and merges objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// Lists are merged, not replaced.
    pub merge: bool,
    /// A patch may name the keys that stay (`$retainKeys`).
    pub retain_keys: bool,
    /// The lists are replaced even where the default would differ (`patchStrategy=replace`).
    pub replace: bool,
    /// The one key by which elements of a merged list are told apart; none for scalars.
    pub merge_key: Option<&'static str>,
}

impl Patch {
    /// The strategy as markers and OpenAPI spell it, empty where nothing is said.
    pub fn strategy(&self) -> &'static str {
        match (self.merge, self.retain_keys, self.replace) {
            (true, true, _) => "merge,retainKeys",
            (true, false, _) => "merge",
            (false, true, _) => "retainKeys",
            (false, false, true) => "replace",
            (false, false, false) => "",
        }
    }
}

impl Field {
    /// The message of the value, of a list's elements or of a map's values.
    pub fn message(&self) -> Option<&'static Message> {
        match self.kind {
            Kind::Message(message) => Some(message.get()),
            _ => None,
        }
    }

    /// What one element of a list or one value of a map is; the field itself otherwise. Merge rules
    /// belong to the list and are not the element's.
    #[must_use]
    pub fn element(&self) -> Self {
        match self.shape {
            Shape::One => *self,
            Shape::List | Shape::Map => Self {
                shape: Shape::One,
                required: true,
                pointer: false,
                list_type: None,
                map_type: None,
                patch: Patch::default(),
                default: None,
                ..*self
            },
        }
    }

    /// Whether it is a list.
    pub fn is_list(&self) -> bool {
        self.shape == Shape::List
    }

    /// Whether it is a map.
    pub fn is_map(&self) -> bool {
        self.shape == Shape::Map
    }

    /// The keys that tell elements of an associative list apart in server-side apply.
    pub fn list_keys(&self) -> &'static [&'static str] {
        match self.list_type {
            Some(ListType::Map(keys)) => keys,
            _ => &[],
        }
    }

    /// Whether server-side apply owns the value as a whole.
    pub fn is_atomic(&self) -> bool {
        match self.shape {
            Shape::List => matches!(self.list_type, None | Some(ListType::Atomic)),
            Shape::Map => self.map_type == Some(MapType::Atomic),
            Shape::One => match self.kind {
                Kind::Message(message) => self.map_type == Some(MapType::Atomic) || message.get().atomic,
                _ => true,
            },
        }
    }

    /// The type as Go prints it in error messages: `[]v1.ContainerPort`, `map[string]string`.
    pub fn go_type(&self) -> String {
        let one = self.kind.go_type();
        match self.shape {
            Shape::One => one.to_owned(),
            Shape::List => format!("[]{one}"),
            Shape::Map if self.kind == Kind::Quantity => "v1.ResourceList".to_owned(),
            Shape::Map => format!("map[string]{one}"),
        }
    }
}

impl Kind {
    /// The type as Go prints it in error messages.
    pub fn go_type(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Double => "float64",
            Self::String => "string",
            Self::Bytes => "[]uint8",
            Self::Quantity => "resource.Quantity",
            Self::IntOrString => "intstr.IntOrString",
            Self::Time => "v1.Time",
            Self::MicroTime => "v1.MicroTime",
            Self::RawExtension => "runtime.RawExtension",
            Self::FieldsV1 => "v1.FieldsV1",
            Self::Json => "v1.JSON",
            Self::SchemaOrArray => "v1.JSONSchemaPropsOrArray",
            Self::SchemaOrBool => "v1.JSONSchemaPropsOrBool",
            Self::SchemaOrStrings => "v1.JSONSchemaPropsOrStringArray",
            Self::Strings => "[]string",
            Self::Message(message) => message.get().go_name(),
        }
    }
}
