//! Images that are ready in memory: each once, however many containers run it, for as long as
//! somebody holds it, and the last few a little longer.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::artifact::{Artifact, Digest};

/// How many images stay ready that nobody runs.
const RECENT: usize = 4;

#[derive(Default)]
struct Tables {
    all: HashMap<Digest, Weak<Artifact>>,
    recent: VecDeque<(Digest, Arc<Artifact>)>,
}

/// The images in memory, by identity.
#[derive(Default)]
pub(crate) struct Loaded(Mutex<Tables>);

impl Loaded {
    /// An image if it is in memory.
    pub(crate) fn get(&self, id: &Digest) -> Option<Arc<Artifact>> {
        self.0.lock().all.get(id).and_then(Weak::upgrade)
    }

    /// Keeps an image, or gives the one that is there.
    pub(crate) fn keep(&self, id: Digest, artifact: Artifact) -> Arc<Artifact> {
        let mut tables = self.0.lock();
        let known = tables.all.get(&id).and_then(Weak::upgrade);
        let artifact = known.unwrap_or_else(|| Arc::new(artifact));
        tables.all.retain(|_, known| known.strong_count() > 0);
        tables.all.insert(id, Arc::downgrade(&artifact));
        tables.recent.retain(|(other, _)| *other != id);
        tables.recent.push_back((id, artifact.clone()));
        if tables.recent.len() > RECENT {
            tables.recent.pop_front();
        }
        artifact
    }

    /// Lets go of images that the node no longer holds.
    pub(crate) fn retain(&self, held: impl Fn(&Digest) -> bool) {
        self.0.lock().recent.retain(|(id, _)| held(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{ArtifactKind, Flavor, ImageConfig};

    fn artifact() -> Artifact {
        let engine = wasmtime::Engine::default();
        let module = wasmtime::Module::new(&engine, b"\0asm\x01\0\0\0").unwrap();
        Artifact {
            kind: ArtifactKind::CoreCommand(module),
            flavor: Flavor::CoreP1,
            config: ImageConfig::default(),
        }
    }

    #[test]
    fn an_image_is_there_while_it_is_held_or_recent() {
        let loaded = Loaded::default();
        let ids: Vec<_> = (0..=RECENT).map(|n| Digest::of(n.to_string().as_bytes())).collect();
        let first = loaded.keep(ids[0], artifact());
        assert!(Arc::ptr_eq(&first, &loaded.keep(ids[0], artifact())));
        ids[1..].iter().for_each(|id| drop(loaded.keep(*id, artifact())));
        assert!(loaded.get(&ids[0]).is_some(), "still held");
        drop(first);
        assert!(loaded.get(&ids[0]).is_none());
        assert!(loaded.get(&ids[1]).is_some(), "recent");
        loaded.retain(|id| *id != ids[1]);
        assert!(loaded.get(&ids[1]).is_none());
    }
}
