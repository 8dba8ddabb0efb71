//! The administrator's kubeconfig, written when the API answers.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::{CommandError, Doing};
use crate::server::SERVER_FILE;
use crate::settings::Settings;

/// Writes the kubeconfig, and notes the API's URL for `sampan kubeconfig`.
pub(crate) fn write(settings: &Settings, url: &str, text: &str) -> Result<(), CommandError> {
    let path = &settings.kubeconfig;
    let cannot = || {
        format!(
            "the kubeconfig {} cannot be written; name another file with --write-kubeconfig",
            path.display()
        )
    };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).doing(cannot)?;
    }
    replace(path, text, settings.kubeconfig_mode).doing(cannot)?;
    let note = settings.node.data_dir.join(SERVER_FILE);
    replace(&note, url, 0o600).doing(|| format!("{} cannot be written", note.display()))
}

/// Puts a new file in the place of the old one, which nobody sees half written. A file that
/// holds the text already is left alone.
fn replace(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let permissions = std::fs::Permissions::from_mode(mode);
    if std::fs::read_to_string(path).is_ok_and(|held| held == text) {
        return std::fs::set_permissions(path, permissions);
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file =
        std::fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
    file.set_permissions(permissions)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_the_text_and_the_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("k");
        for (text, mode) in [("a", 0o600), ("b", 0o644), ("b", 0o600)] {
            replace(&path, text, mode).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        }
    }
}
