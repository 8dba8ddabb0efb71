//! The list of fields that are pointers in Kubernetes' Go types.

use std::collections::BTreeSet;

use crate::error::Error;

/// `(field, group, type)`, and which of them met a field of the table.
#[derive(Debug, Default)]
pub(crate) struct Pointers {
    all: BTreeSet<(String, String, String)>,
    met: BTreeSet<(String, String, String)>,
}

impl Pointers {
    /// Whether this field of this type is a pointer.
    pub(crate) fn meet(&mut self, field: &str, group: &str, message: &str) -> bool {
        let key = (field.to_owned(), group.to_owned(), message.to_owned());
        let known = self.all.contains(&key);
        if known {
            self.met.insert(key);
        }
        known
    }

    /// Entries that met no field: the list is wrong about them.
    pub(crate) fn strays(&self) -> Vec<String> {
        self.all
            .difference(&self.met)
            .map(|(field, group, message)| format!("{group}.{message}.{field}"))
            .collect()
    }
}

/// Reads lines of the form `field: group.Type group.Type …`.
pub(crate) fn read(text: &str) -> Result<Pointers, Error> {
    let mut pointers = Pointers::default();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let fail = || Error::Shape(format!("pointer-fields.txt: {line:?} is not `field: group.Type …`"));
        let (field, types) = line.split_once(": ").ok_or_else(fail)?;
        for entry in types.split_whitespace() {
            let (group, message) = entry.split_once('.').ok_or_else(fail)?;
            pointers.all.insert((field.to_owned(), group.to_owned(), message.to_owned()));
        }
    }
    Ok(pointers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_pointers_by_type_and_strays_are_named() {
        let mut pointers = read("# words\nreplicas: apps.DeploymentSpec apps.NoSuchSpec\n").unwrap();
        assert!(pointers.meet("replicas", "apps", "DeploymentSpec"));
        assert!(!pointers.meet("replicas", "apps", "DeploymentStatus"));
        assert_eq!(pointers.strays(), ["apps.NoSuchSpec.replicas"]);
    }

    #[test]
    fn lines_of_another_shape_are_refused() {
        assert!(read("replicas apps.DeploymentSpec").is_err());
        assert!(read("replicas: DeploymentSpec").is_err());
    }
}
