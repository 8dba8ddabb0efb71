//! Tables: what `kubectl get` prints.

use jiff::Timestamp;
use sampan_api::scheme::Resource;
use serde_json::{Map, Value, json};

use super::negotiate::Include;
use crate::conversion;
use crate::registry::strategy::Strategy;

/// A table of objects (in the stored shape), without its list metadata.
pub(crate) struct TableMaker<'a> {
    pub(crate) strategy: &'a dyn Strategy,
    pub(crate) requested: &'static Resource,
    pub(crate) version: &'static str,
    pub(crate) include: Include,
    pub(crate) now: Timestamp,
}

impl TableMaker<'_> {
    /// The table of some objects.
    pub(crate) fn table(
        &self,
        objects: impl Iterator<Item = Value>,
        metadata: Value,
        headers: bool,
    ) -> Value {
        let rows: Vec<Value> = objects.map(|object| self.row(object)).collect();
        let columns: Vec<Value> = if headers { self.columns() } else { Vec::new() };
        json!({
            "kind": "Table",
            "apiVersion": format!("meta.k8s.io/{}", self.version),
            "metadata": metadata,
            "columnDefinitions": columns,
            "rows": rows,
        })
    }

    fn columns(&self) -> Vec<Value> {
        self.strategy
            .columns()
            .iter()
            .map(|c| {
                json!({
                    "name": c.name, "type": c.kind, "format": c.format,
                    "description": c.description, "priority": c.priority,
                })
            })
            .collect()
    }

    fn row(&self, mut object: Value) -> Value {
        let cells = self.strategy.cells(&object, self.now);
        let object = match self.include {
            Include::None => None,
            Include::Metadata => Some(partial(object, self.version)),
            Include::Object => {
                conversion::from_stored(self.requested, &mut object);
                Some(object)
            }
        };
        match object {
            Some(object) => json!({"cells": cells, "object": object}),
            None => json!({"cells": cells}),
        }
    }
}

/// An object's metadata alone.
pub(crate) fn partial(mut object: Value, version: &str) -> Value {
    let metadata = object.get_mut("metadata").map(Value::take).unwrap_or_else(|| Value::Object(Map::new()));
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata})
}
