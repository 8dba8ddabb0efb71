//! `sampan image`: the images of this machine's node. Works beside a running node, which sees
//! the change at once, and without one.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use sampan_wasm::images::{Held, Library};

use crate::args::{ImageArgs, ImageCommand};
use crate::data_dir;
use crate::error::{CommandError, Doing};
use crate::settings::Mode;

pub(super) fn run(args: ImageArgs) -> Result<ExitCode, CommandError> {
    let library = open(args.data.data_dir)?;
    let text = match args.command {
        ImageCommand::Import { name, file } => import(&library, &name, &file)?,
        ImageCommand::Ls => table(&library.list().doing(cannot_read)?),
        ImageCommand::Rm { names } => remove(&library, &names)?,
    };
    super::print(&text);
    Ok(ExitCode::SUCCESS)
}

fn cannot_read() -> String {
    "the images cannot be read".to_owned()
}

/// The images of the data directory named, or of the one that a cluster was started in before.
fn open(given: Option<PathBuf>) -> Result<Library, CommandError> {
    let data_dir = match data_dir::existing(given.clone()) {
        Ok(found) => found,
        // Images may be imported before the first start.
        Err(_) => {
            let mode = if rustix::process::geteuid().is_root() { Mode::Server } else { Mode::Dev };
            data_dir::choose(mode, given)?
        }
    };
    data_dir::prepare(&data_dir)?;
    let path = data_dir.join("images");
    Library::open(&path).doing(|| format!("the images in {} cannot be used", path.display()))
}

fn import(library: &Library, name: &str, file: &std::path::Path) -> Result<String, CommandError> {
    let held = library
        .import(name, file)
        .map_err(|error| CommandError::new(sampan_client::informer::chain(&error)))?;
    let name = held.info.names.first().map_or(name, String::as_str);
    Ok(format!("{name} {}\n", short(&held.info.id)))
}

fn remove(library: &Library, names: &[String]) -> Result<String, CommandError> {
    let mut text = String::new();
    for name in names {
        let removed = library
            .remove(name)
            .map_err(|error| CommandError::new(sampan_client::informer::chain(&error)))?;
        if !removed {
            return Err(CommandError::new(format!("no image {name:?}; 'sampan image ls' lists them")));
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}");
    }
    Ok(text)
}

fn table(images: &[Held]) -> String {
    let mut rows = vec![["IMAGE".to_owned(), "ID".to_owned(), "SIZE".to_owned()]];
    for image in images {
        for name in &image.info.names {
            rows.push([name.clone(), short(&image.info.id), size(image.info.size_bytes)]);
        }
    }
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    rows.iter().map(|[name, id, size]| format!("{name:first$}   {id:second$}   {size}\n")).collect()
}

/// The first twelve digits of an identity.
fn short(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}

fn size(bytes: u64) -> String {
    match bytes {
        0..=999 => format!("{bytes} B"),
        1_000..=999_999 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ids_are_short() {
        assert_eq!(size(12), "12 B");
        assert_eq!(size(132_767), "132.8 kB");
        assert_eq!(size(33_000_000), "33.0 MB");
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
    }
}
