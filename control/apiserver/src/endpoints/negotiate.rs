//! Which form an answer takes: from the `Accept` header.

use sampan_api::status::Status;

/// What of an object goes into a table's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    Metadata,
    /// All of it.
    Object,
}

/// The shape of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Objects as they are.
    Plain,
    /// A `Table` of this version of `meta.k8s.io`.
    Table(&'static str),
    /// `PartialObjectMetadata` of this version of `meta.k8s.io`.
    Partial(&'static str),
}

/// The text of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
}

/// How to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) form: Form,
    pub(crate) format: Format,
}

impl Output {
    /// Objects as JSON.
    pub(crate) const JSON: Self = Self { form: Form::Plain, format: Format::Json };

    /// The value of `Content-Type`.
    pub(crate) fn content_type(self) -> &'static str {
        match self.format {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
        }
    }
}

/// The best form that a client accepts.
pub(crate) fn negotiate(accept: &str) -> Result<Output, Status> {
    if accept.trim().is_empty() {
        return Ok(Output::JSON);
    }
    let mut ranges: Vec<(u32, Output)> = accept.split(',').filter_map(range).collect();
    // Stable: of equal weights the first wins.
    ranges.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    ranges.first().map(|(_, output)| *output).ok_or_else(|| {
        Status::failure(
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json, application/yaml",
        )
    })
}

/// One range of the header, if we can answer it: its weight in thousandths, and the answer.
fn range(text: &str) -> Option<(u32, Output)> {
    let mut parts = text.split(';').map(str::trim);
    let format = match parts.next()?.to_ascii_lowercase().as_str() {
        "application/json" | "application/*" | "*/*" => Format::Json,
        "application/yaml" => Format::Yaml,
        _ => return None,
    };
    let (mut weight, mut shape, mut group, mut version) = (1.0, "", "", "");
    for (name, value) in parts.filter_map(|p| p.split_once('=')) {
        match name {
            "q" => weight = value.parse::<f32>().ok()?,
            "as" => shape = value,
            "g" => group = value,
            "v" => version = value,
            _ => {}
        }
    }
    let version = match version {
        "v1" | "" => "v1",
        "v1beta1" => "v1beta1",
        _ if shape.is_empty() => "v1",
        _ => return None,
    };
    let form = match shape {
        "" => Form::Plain,
        _ if group != "meta.k8s.io" => return None,
        "Table" => Form::Table(version),
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Form::Partial(version),
        _ => return None,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000")]
    let thousandths = (weight.clamp(0.0, 1.0) * 1000.0) as u32;
    (thousandths > 0).then_some((thousandths, Output { form, format }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_we_can_give_is_given() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        let cases = [
            ("", Form::Plain, Format::Json),
            ("*/*", Form::Plain, Format::Json),
            ("application/json", Form::Plain, Format::Json),
            ("application/vnd.kubernetes.protobuf,application/json", Form::Plain, Format::Json),
            ("application/json, */*", Form::Plain, Format::Json),
            (kubectl, Form::Table("v1"), Format::Json),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Form::Table("v1beta1"), Format::Json),
            (metadata, Form::Partial("v1"), Format::Json),
            ("application/yaml", Form::Plain, Format::Yaml),
            ("application/yaml;q=0.5, application/json;q=0.8", Form::Plain, Format::Json),
            ("application/json;as=Nonsense;v=v1;g=meta.k8s.io, application/json", Form::Plain, Format::Json),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Form::Plain, Format::Json),
        ];
        for (accept, form, format) in cases {
            assert_eq!(negotiate(accept).unwrap(), Output { form, format }, "{accept}");
        }
    }

    #[test]
    fn what_we_cannot_give_is_refused() {
        for accept in ["application/vnd.kubernetes.protobuf", "text/html", "application/json;q=0"] {
            assert_eq!(negotiate(accept).unwrap_err().code, 406, "{accept}");
        }
    }
}
