//! Files.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::Outcome;

/// Writes a line to a new file, or in place of an old one.
pub fn write(path: &str, text: &str) -> Outcome {
    Ok(fs::write(path, format!("{text}\n"))?)
}

/// Adds a line.
pub fn append(path: &str, text: &str) -> Outcome {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    Ok(writeln!(file, "{text}")?)
}

/// Writes a file of a size.
pub fn fill(path: &str, kibibytes: usize) -> Outcome {
    let mut file = File::create(path)?;
    for _ in 0..kibibytes {
        file.write_all(&[b'x'; 1024])?;
    }
    Ok(file.sync_all()?)
}

/// Prints a file.
pub fn read(path: &str) -> Outcome {
    print!("{}", fs::read_to_string(path)?);
    Ok(())
}

/// Prints the names in a directory, sorted; those of directories end in a slash.
pub fn list(path: &str) -> Outcome {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    names.iter().for_each(|name| println!("{name}"));
    Ok(())
}

/// Makes a directory and those above it.
pub fn make_directory(path: &str) -> Outcome {
    Ok(fs::create_dir_all(path)?)
}

/// Removes a file or an empty directory.
pub fn remove(path: &str) -> Outcome {
    if fs::symlink_metadata(path)?.is_dir() {
        return Ok(fs::remove_dir(path)?);
    }
    Ok(fs::remove_file(path)?)
}

/// Renames.
pub fn rename(from: &str, to: &str) -> Outcome {
    Ok(fs::rename(from, to)?)
}

/// Makes a hard link.
pub fn link(target: &str, path: &str) -> Outcome {
    Ok(fs::hard_link(target, path)?)
}

/// Looks at a file until it contains a text.
pub fn wait_for(path: &str, text: &str) -> Outcome {
    loop {
        if Path::new(path).exists() && fs::read_to_string(path)?.contains(text) {
            println!("{path} contains {text}");
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
