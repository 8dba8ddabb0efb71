//! Container images whose layers are files: the module is the file that the entrypoint names.
//! Nothing else is taken from the layers; an image with other files is refused, because its
//! program would not find them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use tar::{Archive, EntryType};

use super::super::error::Fault;
use super::archive::{broken, inside, is_regular};
use super::limits::{self, Bounded};
use super::oci::Config;
use super::{layout, source};
use crate::artifact::Hashing;

/// Marks a removed file.
const WHITEOUT: &str = ".wh.";
/// Marks a directory whose content below is removed.
const OPAQUE: &str = ".wh..wh..opq";
/// How many links are followed.
const LINKS: usize = 8;
/// How many files an error names.
const LISTED: usize = 3;

/// Refuses images for other machines before their layers are read, unless they run a module
/// for all that: images built for WebAssembly by common tools often say `linux`.
pub(super) fn refuse_other_platforms(config: &Config) -> Result<(), Fault> {
    let platform = config.platform();
    let program = program(config).unwrap_or_default();
    if platform.is_wasm() || platform.is_unknown() || program.ends_with(".wasm") {
        return Ok(());
    }
    Err(layout::not_wasm(&platform.to_string()))
}

/// The first word of what the image runs.
fn program(config: &Config) -> Option<String> {
    let config = config.image_config();
    config.entrypoint.into_iter().chain(config.cmd).next()
}

/// Unpacks the module to `staging` and returns its path.
pub(super) fn module(layers: &[PathBuf], config: &Config, staging: &Path) -> Result<PathBuf, Fault> {
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != layers.len() {
        let (named, found) = (diff_ids.len(), layers.len());
        return Err(Fault::broken(format!("the configuration names {named} layers, the image has {found}")));
    }
    let mut files = Files::default();
    for (number, (path, diff_id)) in layers.iter().zip(diff_ids).enumerate() {
        let found = files.apply(path, number)?;
        if found != *diff_id {
            return Err(Fault::broken(format!("the layer {diff_id} has the content of {found}")));
        }
    }
    let chosen =
        files.choose(program(config).as_deref(), &config.image_config().working_dir.unwrap_or_default())?;
    let Some(layer) = layers.get(chosen.layer) else { return Err(Fault::broken("a layer is missing")) };
    let to = staging.join("module.wasm");
    extract(layer, &chosen, &to)?;
    Ok(to)
}

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    /// A file, in which layer.
    File(usize),
    /// Another name for something, from the root.
    Link(PathBuf),
    /// A device or the like.
    Special,
}

/// A file in a layer.
#[derive(Debug, PartialEq, Eq)]
struct Chosen {
    path: PathBuf,
    layer: usize,
}

/// What all layers together hold, but for directories.
#[derive(Default)]
struct Files(BTreeMap<PathBuf, Node>);

impl Files {
    /// Puts a layer on top; returns its digest when unpacked.
    fn apply(&mut self, layer: &Path, number: usize) -> Result<String, Fault> {
        let reader = source::decompressed(layer).map_err(Fault::io("reading", layer))?;
        let mut reader = Hashing::new(Bounded::new(reader, limits::UNPACKED));
        let mut archive = Archive::new(&mut reader);
        let mut added = Vec::new();
        for (count, entry) in archive.entries().map_err(broken)?.enumerate() {
            if count >= limits::FILES {
                return Err(Fault::broken("a layer holds too many files"));
            }
            let entry = entry.map_err(broken)?;
            let path = inside(&entry.path_bytes())?;
            let link = entry.link_name_bytes().map(|name| name.into_owned());
            if let Some(change) = change(path, entry.header().entry_type(), link, number)? {
                added.push(change);
            }
        }
        // Whatever lies behind the archive's end belongs to the layer's digest too.
        io::copy(&mut reader, &mut io::sink()).map_err(broken)?;
        self.change(added);
        Ok(reader.finish().to_string())
    }

    /// What a layer removes lies in the layers below, so removals come first.
    fn change(&mut self, changes: Vec<Change>) {
        for change in &changes {
            match change {
                Change::Remove(path) => self.0.retain(|known, _| !known.starts_with(path)),
                Change::Empty(path) => self.0.retain(|known, _| !known.starts_with(path) || known == path),
                Change::Add(..) => {}
            }
        }
        for change in changes {
            if let Change::Add(path, node) = change {
                self.0.insert(path, node);
            }
        }
    }

    /// The module: the file that the program's name leads to; without a name, the only file.
    fn choose(&self, program: Option<&str>, working_dir: &str) -> Result<Chosen, Fault> {
        let named = match program {
            Some(program) => {
                if let Some((module, function)) = program.split_once('#') {
                    return Err(Fault::unsupported(format!(
                        "the entrypoint asks for the function {function:?} of {module}; only the default entry is supported"
                    )));
                }
                inside(Path::new(working_dir).join(program).as_os_str().as_encoded_bytes())?
            }
            None => self.only()?,
        };
        let chosen = self.follow(&named)?;
        let other = |path: &&PathBuf| **path != chosen.path && **path != named;
        let others: Vec<_> = self.0.keys().filter(other).collect();
        if others.is_empty() {
            return Ok(chosen);
        }
        let listed: Vec<_> = others.iter().take(LISTED).map(|path| format!("/{}", path.display())).collect();
        let more = if others.len() > LISTED { ", …" } else { "" };
        Err(Fault::unsupported(format!(
            "it holds files beside its module ({}{more}); files of images are not supported yet",
            listed.join(", ")
        )))
    }

    fn only(&self) -> Result<PathBuf, Fault> {
        match self.0.keys().collect::<Vec<_>>().as_slice() {
            [only] => Ok((*only).clone()),
            [] => Err(Fault::broken("the image holds no file")),
            _ => Err(Fault::unsupported("the image has neither entrypoint nor command to name its module")),
        }
    }

    fn follow(&self, path: &Path) -> Result<Chosen, Fault> {
        let mut at = path.to_owned();
        for _ in 0..LINKS {
            match self.0.get(&at) {
                Some(Node::File(layer)) => return Ok(Chosen { path: at, layer: *layer }),
                Some(Node::Link(to)) => at.clone_from(to),
                Some(Node::Special) => {
                    return Err(Fault::broken(format!("/{} is no regular file", at.display())));
                }
                None => {
                    return Err(Fault::broken(format!(
                        "its program /{} is not in the image",
                        path.display()
                    )));
                }
            }
        }
        Err(Fault::broken(format!("/{} links in a circle", path.display())))
    }
}

/// What an entry of a layer does.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// Something is there now.
    Add(PathBuf, Node),
    /// It, and what is in it, is there no more.
    Remove(PathBuf),
    /// What was in it is there no more.
    Empty(PathBuf),
}

fn change(
    path: PathBuf,
    kind: EntryType,
    link: Option<Vec<u8>>,
    layer: usize,
) -> Result<Option<Change>, Fault> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let parent = path.parent().map(Path::to_owned).unwrap_or_default();
    if name == OPAQUE {
        return Ok(Some(Change::Empty(parent)));
    }
    if let Some(removed) = name.strip_prefix(WHITEOUT) {
        return Ok(Some(Change::Remove(parent.join(removed))));
    }
    Ok(match kind {
        _ if is_regular(kind) => Some(Change::Add(path, Node::File(layer))),
        EntryType::Link => Some(Change::Add(path, Node::Link(inside(&link.unwrap_or_default())?))),
        EntryType::Symlink => {
            let target = PathBuf::from(String::from_utf8_lossy(&link.unwrap_or_default()).into_owned());
            Some(Change::Add(path, symlink(&parent.join(target))))
        }
        EntryType::Directory | EntryType::XGlobalHeader => None,
        _ => Some(Change::Add(path, Node::Special)),
    })
}

/// Where a symbolic link leads. One that leads out is no attack, in an image, but useless.
fn symlink(target: &Path) -> Node {
    let mut at = PathBuf::new();
    for part in target.components() {
        match part {
            std::path::Component::Normal(part) => at.push(part),
            std::path::Component::ParentDir => {
                at.pop();
            }
            _ => {}
        }
    }
    Node::Link(at)
}

/// Unpacks one file from a layer: its last version there.
fn extract(layer: &Path, chosen: &Chosen, to: &Path) -> Result<(), Fault> {
    let reader = source::decompressed(layer).map_err(Fault::io("reading", layer))?;
    let mut archive = Archive::new(Bounded::new(reader, limits::UNPACKED));
    let mut done = false;
    for entry in archive.entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        if !is_regular(entry.header().entry_type()) || inside(&entry.path_bytes())? != chosen.path {
            continue;
        }
        let size = entry.size();
        let mut file = File::create(to).map_err(Fault::io("writing", to))?;
        let copied =
            io::copy(&mut entry.take(limits::MODULE + 1), &mut file).map_err(Fault::io("writing", to))?;
        if copied != size {
            return Err(Fault::broken("a layer is cut short, or its module too large"));
        }
        done = true;
    }
    if done { Ok(()) } else { Err(Fault::broken("a layer changed while it was read")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: EntryType, link: &str, layer: usize) -> Option<Change> {
        change(path.into(), kind, Some(link.into()), layer).unwrap()
    }

    fn files(layers: &[&[(&str, EntryType, &str)]]) -> Files {
        let mut files = Files::default();
        for (number, layer) in layers.iter().enumerate() {
            files.change(
                layer.iter().filter_map(|(path, kind, link)| entry(path, *kind, link, number)).collect(),
            );
        }
        files
    }

    const FILE: EntryType = EntryType::Regular;

    #[test]
    fn the_entrypoint_names_the_module() {
        let plain: &[&[_]] = &[&[("app.wasm", FILE, "")]];
        let linked: &[&[_]] =
            &[&[("bin/real.wasm", FILE, "")], &[("app.wasm", EntryType::Symlink, "bin/real.wasm")]];
        let nested: &[&[_]] = &[&[("srv", EntryType::Directory, ""), ("srv/app.wasm", FILE, "")]];
        for (layers, program, directory, expected) in [
            (plain, Some("/app.wasm"), "", Ok(("app.wasm", 0))),
            (plain, Some("app.wasm"), "/", Ok(("app.wasm", 0))),
            (plain, Some("./app.wasm"), "", Ok(("app.wasm", 0))),
            (plain, None, "", Ok(("app.wasm", 0))),
            (nested, Some("app.wasm"), "/srv", Ok(("srv/app.wasm", 0))),
            (linked, Some("/app.wasm"), "", Ok(("bin/real.wasm", 0))),
            (plain, Some("/other.wasm"), "", Err("/other.wasm is not in the image")),
            (plain, Some("/app.wasm#go"), "", Err("function \"go\" of /app.wasm")),
            (plain, Some("../../etc/passwd"), "/srv", Err("leads out")),
            (&[&[]], None, "", Err("no file")),
        ] {
            let found = files(layers).choose(program, directory);
            match (found, expected) {
                (Ok(chosen), Ok((path, layer))) => assert_eq!(chosen, Chosen { path: path.into(), layer }),
                (Err(Fault::Broken(why) | Fault::Unsupported(why)), Err(part)) => {
                    assert!(why.contains(part), "{why}");
                }
                (other, _) => panic!("{program:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn layers_replace_and_remove_what_lies_below() {
        let replaced = files(&[&[("a.wasm", FILE, "")], &[("a.wasm", FILE, "")]]);
        assert_eq!(replaced.choose(Some("/a.wasm"), "").unwrap().layer, 1);
        let removed = files(&[&[("a.wasm", FILE, ""), ("d/x", FILE, "")], &[(".wh.d", FILE, "")]]);
        assert_eq!(removed.choose(Some("/a.wasm"), "").unwrap().layer, 0);
        let emptied = files(&[&[("d/x", FILE, "")], &[("d/a.wasm", FILE, ""), ("d/.wh..wh..opq", FILE, "")]]);
        assert_eq!(emptied.choose(Some("/d/a.wasm"), "").unwrap().layer, 1);
    }

    #[test]
    fn other_files_are_named_and_not_dropped_in_silence() {
        let layers: &[&[_]] = &[&[
            ("a.wasm", FILE, ""),
            ("data/one", FILE, ""),
            ("dev/null", EntryType::Char, ""),
            ("lib", EntryType::Symlink, "data"),
        ]];
        let Err(Fault::Unsupported(why)) = files(layers).choose(Some("/a.wasm"), "") else { panic!() };
        assert!(why.contains("(/data/one, /dev/null, /lib)"), "{why}");
    }

    #[test]
    fn links_that_lead_nowhere_end() {
        let circle: &[&[_]] = &[&[("a", EntryType::Symlink, "b"), ("b", EntryType::Symlink, "/a")]];
        assert!(
            matches!(files(circle).choose(Some("a"), ""), Err(Fault::Broken(why)) if why.contains("circle"))
        );
        let out: &[&[_]] = &[&[("a", EntryType::Symlink, "../../../etc/passwd")]];
        assert!(
            matches!(files(out).choose(Some("a"), ""), Err(Fault::Broken(why)) if why.contains("not in the image"))
        );
        assert!(change("a".into(), EntryType::Link, Some(b"../x".to_vec()), 0).is_err());
    }
}
