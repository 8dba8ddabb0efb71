//! What a module is, told from its bytes before any of it is compiled.

use wasmparser::{ComponentExternalKind, Encoding, ExternalKind, Parser, Payload, Validator, WasmFeatures};

use super::Flavor;

/// The module of preview 1's functions.
const PREVIEW_1: &str = "wasi_snapshot_preview1";
/// How many names an error lists.
const LISTED: usize = 5;

/// Why bytes cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unrunnable {
    /// Something else than WebAssembly.
    #[error("it is not WebAssembly")]
    NotWebAssembly,
    /// The text format.
    #[error("it is WebAssembly's text format; assemble it first (wasm-tools parse)")]
    Text,
    /// Compiled elsewhere; running it would mean running somebody's native code unchecked.
    #[error("it is native code; precompiled modules are refused, give the .wasm that it was made from")]
    Native,
    /// Broken, or of a proposal that is not known here.
    #[error("it is not valid WebAssembly: {0}")]
    Invalid(String),
    /// A component without an entry.
    #[error(
        "the component exports neither an HTTP handler (wasi:http/incoming-handler@0.2, \
         wasi:http/handler@0.3) nor a command (wasi:cli/run@0.2 or @0.3); it exports {exports}"
    )]
    NoEntry {
        /// What it exports.
        exports: String,
    },
    /// A core module without an entry.
    #[error("the core module exports no function _start, as a command does; it exports {exports}")]
    NoStart {
        /// What it exports.
        exports: String,
    },
    /// A core module that needs what only its own host has.
    #[error("the core module imports {imports}; only {PREVIEW_1} is provided")]
    Imports {
        /// What it imports.
        imports: String,
    },
}

/// Validates a module and tells how it is run.
///
/// # Errors
/// When it cannot be run here.
pub fn detect(bytes: &[u8]) -> Result<Flavor, Unrunnable> {
    recognise(bytes)?;
    let outline = Outline::read(bytes).map_err(invalid)?;
    // The engine has the last word, as to proposals; this catches what is broken.
    Validator::new_with_features(WasmFeatures::all()).validate_all(bytes).map_err(invalid)?;
    outline.flavor()
}

/// Tells WebAssembly from what is often mistaken for it.
fn recognise(bytes: &[u8]) -> Result<(), Unrunnable> {
    let text = bytes.trim_ascii_start();
    match bytes {
        [0, b'a', b's', b'm', ..] => Ok(()),
        [0x7f, b'E', b'L', b'F', ..] => Err(Unrunnable::Native),
        _ if text.starts_with(b"(module") || text.starts_with(b"(component") || text.starts_with(b";;") => {
            Err(Unrunnable::Text)
        }
        _ => Err(Unrunnable::NotWebAssembly),
    }
}

fn invalid(error: wasmparser::BinaryReaderError) -> Unrunnable {
    Unrunnable::Invalid(error.to_string())
}

/// The outermost names of a module or component.
#[derive(Default)]
struct Outline {
    component: bool,
    /// Exported instances of a component, exported functions of a module.
    entries: Vec<String>,
    /// Other exports.
    others: Vec<String>,
    /// Imports of a core module: module and name.
    imports: Vec<(String, String)>,
}

impl Outline {
    fn read(bytes: &[u8]) -> wasmparser::Result<Self> {
        let mut outline = Self::default();
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::Version { encoding, .. } if depth == 0 => {
                    outline.component = encoding == Encoding::Component;
                }
                Payload::ExportSection(exports) if depth == 0 => {
                    for export in exports {
                        let export = export?;
                        outline.export(export.name, export.kind == ExternalKind::Func);
                    }
                }
                Payload::ComponentExportSection(exports) if depth == 0 => {
                    for export in exports {
                        let export = export?;
                        outline.export(export.name.name, export.kind == ComponentExternalKind::Instance);
                    }
                }
                Payload::ImportSection(imports) if depth == 0 => {
                    for import in imports.into_imports() {
                        let import = import?;
                        outline.imports.push((import.module.to_owned(), import.name.to_owned()));
                    }
                }
                _ => {}
            }
        }
        Ok(outline)
    }

    fn export(&mut self, name: &str, entry: bool) {
        if entry { &mut self.entries } else { &mut self.others }.push(name.to_owned());
    }

    fn flavor(&self) -> Result<Flavor, Unrunnable> {
        if self.component { self.component_flavor() } else { self.core_flavor() }
    }

    fn component_flavor(&self) -> Result<Flavor, Unrunnable> {
        let entries = [
            ("wasi:http/handler", "0.3", Flavor::HttpP3),
            ("wasi:http/incoming-handler", "0.2", Flavor::HttpP2),
            ("wasi:cli/run", "0.3", Flavor::CommandP3),
            ("wasi:cli/run", "0.2", Flavor::CommandP2),
        ];
        let found = entries.into_iter().find(|(interface, series, _)| {
            self.entries.iter().any(|export| is_version_of(export, interface, series))
        });
        found.map(|(_, _, flavor)| flavor).ok_or_else(|| Unrunnable::NoEntry { exports: self.exports() })
    }

    fn core_flavor(&self) -> Result<Flavor, Unrunnable> {
        let foreign = self.imports.iter().filter(|(module, _)| module != PREVIEW_1);
        let foreign: Vec<_> = foreign.map(|(module, name)| format!("{module}.{name}")).collect();
        if !foreign.is_empty() {
            return Err(Unrunnable::Imports { imports: listed(&foreign) });
        }
        if self.entries.iter().any(|name| name == "_start") {
            return Ok(Flavor::CoreP1);
        }
        Err(Unrunnable::NoStart { exports: self.exports() })
    }

    fn exports(&self) -> String {
        let names: Vec<_> = self.entries.iter().chain(&self.others).cloned().collect();
        listed(&names)
    }
}

fn listed(names: &[String]) -> String {
    match names.len().checked_sub(LISTED) {
        _ if names.is_empty() => "nothing".to_owned(),
        Some(more) if more > 0 => {
            format!("{} and {more} more", names.get(..LISTED).unwrap_or_default().join(", "))
        }
        _ => names.join(", "),
    }
}

/// Whether a name is the interface in any released version of a series (`0.2` has `0.2.7`;
/// release candidates are interfaces of their own).
fn is_version_of(name: &str, interface: &str, series: &str) -> bool {
    let version = name.strip_prefix(interface).and_then(|rest| rest.strip_prefix('@'));
    let patch = version.and_then(|version| version.strip_prefix(series)?.strip_prefix('.'));
    patch.is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(exports: &[&str]) -> Vec<u8> {
        let mut text = "(component (instance $i)".to_owned();
        exports.iter().for_each(|name| text.push_str(&format!("(export \"{name}\" (instance $i))")));
        wat::parse_str(text + ")").unwrap()
    }

    #[test]
    fn an_entry_makes_the_flavor_and_handlers_come_before_commands() {
        let (http, command) = ("wasi:http/incoming-handler@0.2.12", "wasi:cli/run@0.2.0");
        for (exports, expected) in [
            (&[command][..], Flavor::CommandP2),
            (&["wasi:cli/run@0.2.12"], Flavor::CommandP2),
            (&["wasi:cli/run@0.3.0"], Flavor::CommandP3),
            (&[command, http], Flavor::HttpP2),
            (&[http, "wasi:http/handler@0.3.2"], Flavor::HttpP3),
        ] {
            assert_eq!(detect(&component(exports)), Ok(expected), "{exports:?}");
        }
    }

    #[test]
    fn a_component_without_a_released_entry_is_refused_with_its_exports() {
        for exports in [&[][..], &["wasi:cli/run@0.3.0-rc-2026-03-15"], &["wasi:cli/run@1.0.0"], &["a:b/c"]] {
            let error = detect(&component(exports)).unwrap_err().to_string();
            let expected = exports.first().copied().unwrap_or("nothing");
            assert!(error.ends_with(&format!("it exports {expected}")), "{error}");
        }
    }

    #[test]
    fn an_entry_of_an_inner_component_does_not_count() {
        let text = "(component (component (instance $i) (export \"wasi:cli/run@0.2.0\" (instance $i))))";
        assert!(matches!(detect(&wat::parse_str(text).unwrap()), Err(Unrunnable::NoEntry { .. })));
    }

    #[test]
    fn core_modules_need_start_and_preview_1_alone() {
        let import = "(import \"wasi_snapshot_preview1\" \"sched_yield\" (func (result i32)))";
        for (body, expected) in [
            ("(func (export \"_start\"))".to_owned(), Ok(Flavor::CoreP1)),
            (format!("{import} (func (export \"_start\"))"), Ok(Flavor::CoreP1)),
            (
                "(func (export \"_initialize\"))".to_owned(),
                Err("no function _start, as a command does; it exports _initialize"),
            ),
            ("(memory (export \"_start\") 1)".to_owned(), Err("no function _start")),
            (
                "(import \"env\" \"go\" (func)) (func (export \"_start\"))".to_owned(),
                Err("imports env.go; only"),
            ),
        ] {
            let found = detect(&wat::parse_str(format!("(module {body})")).unwrap());
            match expected {
                Ok(flavor) => assert_eq!(found, Ok(flavor), "{body}"),
                Err(part) => assert!(found.clone().unwrap_err().to_string().contains(part), "{found:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_module_is_named() {
        let whole = component(&["wasi:cli/run@0.2.0"]);
        let truncated = whole.get(..whole.len() - 3).unwrap();
        for (bytes, part) in [
            (&b""[..], "is not WebAssembly"),
            (b"#!/bin/sh", "is not WebAssembly"),
            (b"\x7fELF\x02\x01\x01", "precompiled"),
            (b"  (module)", "text format"),
            (truncated, "not valid WebAssembly"),
            (b"\0asm\x01\0\0\0\xff", "not valid WebAssembly"),
        ] {
            let error = detect(bytes).unwrap_err().to_string();
            assert!(error.contains(part), "{bytes:?}: {error}");
        }
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<_> = (0..8).map(|n| n.to_string()).collect();
        assert_eq!(listed(&names), "0, 1, 2, 3, 4 and 3 more");
        assert_eq!(listed(&names[..5]), "0, 1, 2, 3, 4");
    }
}
