//! `--config FILE`: the same names as on the command line, in YAML. What the file says is put
//! before the command line's own options; an option given on the command line replaces the file's.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{CommandError, Doing};

/// Read, if it is there, by `sampan server` and `sampan agent` without `--config`.
const DEFAULT: &str = "/etc/sampan/config.yaml";

/// Puts the options of the configuration file, if one is named, behind the subcommand.
pub(crate) fn expand(
    mut arguments: Vec<OsString>,
    command: &clap::Command,
) -> Result<Vec<OsString>, CommandError> {
    let Some((at, subcommand)) = subcommand(&arguments, command) else { return Ok(arguments) };
    if subcommand.get_arguments().all(|arg| arg.get_long() != Some("config")) {
        return Ok(arguments);
    }
    let Some(file) = named_file(arguments.get(at + 1..).unwrap_or_default(), subcommand.get_name()) else {
        return Ok(arguments);
    };
    let text = std::fs::read_to_string(&file)
        .doing(|| format!("the configuration file {} cannot be read", file.display()))?;
    let given: Vec<OsString> = arguments.split_off(at + 1);
    arguments.extend(options(&text, &file, subcommand, &given)?);
    arguments.extend(given);
    Ok(arguments)
}

fn subcommand<'a>(arguments: &[OsString], command: &'a clap::Command) -> Option<(usize, &'a clap::Command)> {
    let at = arguments.iter().skip(1).position(|a| !a.to_string_lossy().starts_with('-'))? + 1;
    Some((at, command.find_subcommand(arguments.get(at)?)?))
}

/// The file that `--config` (or the environment) names.
fn named_file(given: &[OsString], subcommand: &str) -> Option<PathBuf> {
    let mut arguments = given.iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        if text == "--config" || text == "-c" {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(file) = text.strip_prefix("--config=") {
            return Some(PathBuf::from(file));
        }
    }
    if let Some(file) = std::env::var_os("SAMPAN_CONFIG_FILE") {
        return Some(PathBuf::from(file));
    }
    (["server", "agent"].contains(&subcommand) && Path::new(DEFAULT).exists()).then(|| PathBuf::from(DEFAULT))
}

/// The file's options as arguments, less those that the command line gives itself.
fn options(
    text: &str,
    file: &Path,
    command: &clap::Command,
    given: &[OsString],
) -> Result<Vec<OsString>, CommandError> {
    let wrong = |what: String| CommandError::new(format!("configuration file {}: {what}", file.display()));
    let content: Value = serde_saphyr::from_str(text).map_err(|error| {
        wrong(format!("not YAML: {}", error.to_string().lines().next().unwrap_or_default()))
    })?;
    let content = match content {
        Value::Object(content) => content,
        Value::Null => return Ok(Vec::new()),
        _ => return Err(wrong("must be a mapping of option names to values".to_owned())),
    };
    let mut options = Vec::new();
    for (key, value) in content {
        let known = command.get_arguments().find(|arg| arg.get_long() == Some(&key));
        let Some(argument) = known.filter(|_| key != "config") else {
            return Err(wrong(format!(
                "unknown option {key:?}; 'sampan {} --help' lists them",
                command.get_name()
            )));
        };
        if given.iter().any(|word| names(word, argument)) {
            continue;
        }
        let takes_value = argument.get_action().takes_values();
        let values = match value {
            Value::Array(values) => values,
            single => vec![single],
        };
        for value in values {
            match (takes_value, value) {
                (false, Value::Bool(true)) => options.push(format!("--{key}").into()),
                (false, Value::Bool(false)) => {}
                (false, _) => return Err(wrong(format!("{key}: must be true or false"))),
                (true, Value::String(text)) => options.push(format!("--{key}={text}").into()),
                (true, Value::Number(number)) => options.push(format!("--{key}={number}").into()),
                (true, _) => {
                    return Err(wrong(format!("{key}: must be a text or a number, or a list of them")));
                }
            }
        }
    }
    Ok(options)
}

/// Whether a word of the command line is this option.
fn names(word: &OsStr, argument: &clap::Arg) -> bool {
    let word = word.to_string_lossy();
    let long = argument.get_long().map(|name| format!("--{name}"));
    let short = argument.get_short().map(|name| format!("-{name}"));
    let name = word.split('=').next().unwrap_or_default();
    long.as_deref() == Some(name)
        || short.is_some_and(|short| word.starts_with(&short) && !word.starts_with("--"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(yaml: &str, given: &[&str]) -> Result<Vec<String>, String> {
        let command = crate::args::command();
        let server = command.find_subcommand("server").unwrap();
        let given: Vec<OsString> = given.iter().map(OsString::from).collect();
        options(yaml, Path::new("f.yaml"), server, &given)
            .map(|all| all.into_iter().map(|o| o.into_string().unwrap()).collect())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn the_file_gives_options_by_their_names() {
        let yaml = "https-listen-port: 7443\nnode-label: [a=b, c=d]\ndisable-agent: true\n";
        let options = expanded(yaml, &[]).unwrap();
        for wanted in ["--https-listen-port=7443", "--node-label=a=b", "--node-label=c=d", "--disable-agent"]
        {
            assert!(options.iter().any(|o| o == wanted), "{wanted}: {options:?}");
        }
        assert_eq!(expanded("", &[]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn the_command_line_replaces_the_file() {
        let yaml = "https-listen-port: 7443\ndata-dir: /a\nnode-label: [a=b]\n";
        assert_eq!(expanded(yaml, &["--https-listen-port", "1", "-d", "/b"]).unwrap(), ["--node-label=a=b"]);
    }

    #[test]
    fn mistakes_name_the_file_and_the_option() {
        for (yaml, part) in [
            ("wrong: 1", "unknown option \"wrong\""),
            ("disable-agent: 5", "must be true or false"),
            ("node-name: {a: b}", "must be a text or a number"),
            ("- a", "must be a mapping"),
            ("a: [", "not YAML"),
        ] {
            let text = expanded(yaml, &[]).unwrap_err();
            assert!(text.contains(part) && text.contains("f.yaml"), "{yaml}: {text}");
        }
    }
}
