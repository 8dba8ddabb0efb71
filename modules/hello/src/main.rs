//! Prints what it was given: arguments, environment and mounted files. Then it ends.
//!
//! Whoever reads a pod's log may not be one who may read its secrets: what looks like one is
//! named with its size and never shown.

use std::fs;
use std::path::Path;

use wasip2::filesystem::preopens;

/// Where configuration is mounted by custom, looked at even if it is no mount of its own.
const CONFIG: &str = "/etc/config";
/// How deep directories are entered.
const MAX_DEPTH: usize = 4;
/// Longest text of a file that is printed.
const MAX_TEXT: u64 = 4096;

fn main() {
    let greeting = std::env::var("GREETING").unwrap_or_else(|_| "Hello".to_owned());
    let name = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME"));
    println!("{greeting} from {}", name.as_deref().unwrap_or("WebAssembly"));

    println!("\narguments");
    for (position, argument) in std::env::args().enumerate() {
        println!("  {position}: {argument}");
    }

    println!("\nenvironment");
    let mut variables: Vec<_> = std::env::vars().collect();
    variables.sort();
    for (name, value) in variables {
        if is_secret(&name) {
            println!("  {name}: {} bytes, not shown", value.len());
        } else {
            println!("  {name}={value}");
        }
    }

    println!("\nfiles");
    let mut mounts: Vec<String> = preopens::get_directories().into_iter().map(|(_, path)| path).collect();
    mounts.push(CONFIG.to_owned());
    mounts.retain(|path| path != "/" && path != ".");
    mounts.sort();
    mounts.dedup();
    for mount in mounts {
        show(Path::new(&mount), 0);
    }
}

/// Whether a name looks like that of a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["PASSWORD", "SECRET", "TOKEN"].iter().any(|word| name.contains(word))
}

/// Whether a file or a directory on the way to it is named like a secret, as are the ones below
/// `/var/run/secrets`, where a pod's token is.
fn leads_to_secret(path: &Path) -> bool {
    path.components().any(|part| is_secret(&part.as_os_str().to_string_lossy()))
}

fn show(path: &Path, depth: usize) {
    let Ok(metadata) = fs::metadata(path) else { return };
    if metadata.is_dir() {
        let Ok(entries) = fs::read_dir(path) else { return };
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        // Names with two dots are how volumes are updated at one stroke; the files show twice.
        let names = names.iter().filter(|name| !name.to_string_lossy().starts_with(".."));
        if depth < MAX_DEPTH {
            names.for_each(|name| show(&path.join(name), depth + 1));
        }
        return;
    }
    let shown = path.display();
    if leads_to_secret(path) {
        println!("  {shown}: {} bytes, not shown", metadata.len());
        return;
    }
    if metadata.len() > MAX_TEXT {
        println!("  {shown}: {} bytes", metadata.len());
        return;
    }
    match fs::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => {
            println!("  {shown}");
            text.lines().for_each(|line| println!("    {line}"));
        }
        Ok(Err(_)) => println!("  {shown}: {} bytes", metadata.len()),
        Err(error) => println!("  {shown}: {error}"),
    }
}
