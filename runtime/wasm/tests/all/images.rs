//! Images: importing, naming, keeping and removing them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sampan_cri::{ImageError, ImageService as _, PullCredentials};
use sampan_wasm::artifact::{Compiler, Digest, Flavor};
use sampan_wasm::engine::Engines;
use sampan_wasm::images::{Held, ImageStore, Library, LibraryError, Reference, RegistryClient};
use serde_json::{Value, json};

use super::oci::{self, Layout, tar, with};

/// A command that differs from others by its number.
pub(crate) fn module(number: u32) -> Vec<u8> {
    let text = format!(
        "(module (memory (export \"memory\") 1) (data (i32.const 0) \"{number}\") (func (export \"_start\")))"
    );
    wat::parse_str(text).unwrap()
}

fn component() -> Vec<u8> {
    wat::parse_str("(component (instance $i) (export \"wasi:cli/run@0.2.3\" (instance $i)))").unwrap()
}

struct Place {
    directory: tempfile::TempDir,
    library: Library,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let library = Library::open(&directory.path().join("images")).unwrap();
        Self { directory, library }
    }

    fn images(&self) -> PathBuf {
        self.directory.path().join("images")
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn import(&self, name: &str, path: &Path) -> Result<Held, String> {
        self.library.import(name, path).map_err(|error| error.full())
    }

    fn imported(&self) -> Vec<String> {
        let all = self.library.list().unwrap().into_iter().flat_map(|held| held.info.names);
        all.filter(|name| !name.starts_with("docker.io/sampan/")).collect()
    }

    fn blobs(&self) -> usize {
        fs::read_dir(self.images().join("blobs/sha256")).unwrap().count()
    }

    fn store(&self) -> ImageStore {
        ImageStore::open(&self.images(), Engines::new().unwrap(), Compiler::InProcess).unwrap()
    }
}

#[test]
fn embedded_images_are_there_under_all_spellings_of_their_names() {
    let place = Place::new();
    for (name, flavor) in [("sampan/hello", Flavor::CommandP2), ("sampan/hello-http", Flavor::HttpP2)] {
        let short = place.library.find(name).unwrap().unwrap();
        assert_eq!(short.module.flavor, flavor);
        assert_eq!(short.info.names, [format!("docker.io/{name}:latest")]);
        for other in [format!("{name}:latest"), format!("docker.io/{name}:latest"), short.info.id.clone()] {
            assert_eq!(place.library.find(&other).unwrap().unwrap().info, short.info, "{other}");
        }
        assert!(place.library.find(&format!("{name}:v9")).unwrap().is_none());
        for refused in [
            place.import(name, &place.file("a.wasm", &module(1))).unwrap_err(),
            place.library.remove(name).unwrap_err().to_string(),
            place.library.remove(&short.info.id).unwrap_err().to_string(),
        ] {
            assert!(refused.contains(&format!("docker.io/{name}:latest is built into sampan")), "{refused}");
        }
    }
}

#[test]
fn a_module_is_imported_kept_and_removed() {
    let place = Place::new();
    let bytes = component();
    let held = place.import("my/app:v1", &place.file("app.wasm", &bytes)).unwrap();
    assert_eq!(held.info.id, Digest::of(&bytes).to_string());
    assert_eq!(held.info.size_bytes, bytes.len() as u64);
    assert_eq!((held.module.flavor, &*held.module.bytes.read().unwrap()), (Flavor::CommandP2, &bytes[..]));

    let again = Library::open(&place.images()).unwrap();
    assert_eq!(again.find("docker.io/my/app:v1").unwrap().unwrap().info, held.info);
    assert_eq!(again.find(&held.info.id).unwrap().unwrap().info, held.info);
    assert!(again.find("my/app").unwrap().is_none());

    // What one process removes, the other misses at once.
    assert!(again.remove("my/app:v1").unwrap());
    assert!(place.library.find("my/app:v1").unwrap().is_none());
    assert!(!again.remove("my/app:v1").unwrap());
    assert_eq!(place.blobs(), 0);
}

#[test]
fn what_is_no_module_is_refused_and_nothing_changes() {
    let place = Place::new();
    let engine = wasmtime::Engine::default();
    for (content, part) in [
        (b"#!/bin/sh\n".to_vec(), "is not WebAssembly"),
        (b"(module)".to_vec(), "text format"),
        (engine.precompile_module(&module(1)).unwrap(), "precompiled modules are refused"),
        (wat::parse_str("(module (func (export \"go\")))").unwrap(), "exports go"),
        (component()[..20].to_vec(), "not valid WebAssembly"),
    ] {
        let error = place.import("a", &place.file("file", &content)).unwrap_err();
        assert!(error.contains(part) && error.contains("/file: "), "{error}");
    }
    let missing = place.import("a", Path::new("/no/such/file")).unwrap_err();
    assert!(missing.contains("/no/such/file: No such file"), "{missing}");
    let empty = place.import("a", place.directory.path()).unwrap_err();
    assert!(empty.contains("has no index.json"), "{empty}");
    assert!(place.imported().is_empty());
    assert!(!place.images().join("index.json").exists());
}

#[test]
fn names_must_be_names() {
    let place = Place::new();
    let file = place.file("a.wasm", &module(1));
    let upper = place.library.import("my/App", &file).unwrap_err();
    assert!(matches!(upper, LibraryError::Name { .. }));
    assert_eq!(
        upper.to_string(),
        "couldn't parse image name \"my/App\": invalid reference format: repository name (my/App) must be lowercase"
    );
    let digest = format!("a@{}", Digest::of(b""));
    assert!(place.import(&digest, &file).unwrap_err().contains("names a digest"));
}

#[test]
fn a_wasm_artifact_is_known_by_tag_and_digest() {
    let place = Place::new();
    let layout = Layout::new();
    let manifest = layout.artifact(&component());
    let digest = manifest["digest"].as_str().unwrap();
    let archive = place.file("image.tar", &layout.archive());
    let zipped = place.file("image.tgz", &oci::gzip(&layout.archive()));
    for path in [layout.path(), &archive, &zipped] {
        let held = place.import("x.io/app:v1", path).unwrap();
        assert_eq!((held.info.id.as_str(), held.module.flavor), (digest, Flavor::CommandP2));
        assert_eq!(held.info.digests, [format!("x.io/app@{digest}")]);
        for reference in ["x.io/app:v1".to_owned(), format!("x.io/app@{digest}"), digest.to_owned()] {
            assert_eq!(place.library.find(&reference).unwrap().unwrap().info, held.info, "{reference}");
        }
        assert!(place.library.find(&format!("y.io/app@{digest}")).unwrap().is_none());
        assert_eq!(place.blobs(), 3);
    }
}

#[test]
fn a_container_image_gives_its_module_and_how_it_is_run() {
    let place = Place::new();
    let (old, new) = (module(1), module(2));
    let lower = tar(&[("app/", b""), ("app/main.wasm", &old), ("app/notes.txt", b"x")]);
    let middle = tar(&[("app/main.wasm", &new)]);
    let upper = tar(&[("app/.wh.notes.txt", b"")]);
    let execution = json!({
        "Entrypoint": ["main.wasm", "serve"], "Cmd": ["--all"], "Env": ["A=b"], "WorkingDir": "/app",
    });
    let layout = Layout::new();
    layout.container(("wasi", "wasm"), &execution, &[&lower, &middle, &upper]);
    for path in [layout.path(), &place.file("image.tar", &layout.archive())] {
        let held = place.import("app", path).unwrap();
        assert_eq!(held.module.digest, Digest::of(&new));
        assert_eq!(held.config.entrypoint, ["main.wasm", "serve"]);
        assert_eq!((held.config.cmd, held.config.env), (vec!["--all".to_owned()], vec!["A=b".to_owned()]));
        assert_eq!(held.config.working_dir.as_deref(), Some("/app"));
    }
    let extra = Layout::new();
    extra.container(("wasi", "wasm"), &execution, &[&lower]);
    let error = place.import("app", extra.path()).unwrap_err();
    assert!(error.contains("holds files beside its module (/app/notes.txt)"), "{error}");
}

#[test]
fn an_image_from_docker_save_is_imported() {
    let place = Place::new();
    let wasm = module(1);
    let layer = tar(&[("app.wasm", &wasm)]);
    let config = json!({
        "os": "wasi", "architecture": "wasm", "config": {"Cmd": ["/app.wasm"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).to_string()]},
    })
    .to_string();
    let digest = Digest::of(config.as_bytes());
    let name = format!("{}.json", digest.hex());
    let manifest = json!([{"Config": name, "RepoTags": ["app:v1"], "Layers": ["abc/layer.tar"]}]).to_string();
    let archive = |config: &str| {
        tar(&[("manifest.json", manifest.as_bytes()), (&name, config.as_bytes()), ("abc/layer.tar", &layer)])
    };
    let held = place.import("mine:v2", &place.file("saved.tar", &archive(&config))).unwrap();
    assert_eq!((held.info.id, held.module.digest), (digest.to_string(), Digest::of(&wasm)));
    assert_eq!(held.config.cmd, ["/app.wasm"]);
    let changed =
        place.import("mine:v2", &place.file("changed.tar", &archive(&format!("{config} ")))).unwrap_err();
    assert!(changed.contains("has the content of"), "{changed}");
}

#[test]
fn the_image_for_webassembly_is_chosen_from_many() {
    let place = Place::new();
    let layout = Layout::new();
    let (wasm, linux) = (module(1), tar(&[("bin/sh", b"\x7fELF")]));
    let for_wasm =
        with(layout.artifact(&wasm), &json!({"platform": {"os": "wasip1", "architecture": "wasm"}}));
    let for_linux = layout.container(("linux", "amd64"), &json!({"Cmd": ["/bin/sh"]}), &[&linux]);
    let for_linux = with(for_linux, &json!({"platform": {"os": "linux", "architecture": "amd64"}}));
    let attestation = with(
        layout.document(oci::MANIFEST, &json!({})),
        &json!({
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        }),
    );
    let inner = layout
        .document(oci::INDEX, &json!({"schemaVersion": 2, "manifests": [for_linux, attestation, for_wasm]}));
    layout.index(std::slice::from_ref(&inner));
    let held = place.import("x.io/app", layout.path()).unwrap();
    assert_eq!(
        (&held.info.id, held.module.digest),
        (&for_wasm["digest"].as_str().unwrap().to_owned(), Digest::of(&wasm))
    );
    // Registries call it by the index's digest.
    let by_index = format!("x.io/app@{}", inner["digest"].as_str().unwrap());
    assert_eq!(place.library.find(&by_index).unwrap().unwrap().info, held.info);
}

#[test]
fn the_name_chooses_among_images_of_one_kind() {
    let place = Place::new();
    let layout = Layout::new();
    let named = |number, name: &str| {
        with(
            layout.artifact(&module(number)),
            &json!({"annotations": {"org.opencontainers.image.ref.name": name}}),
        )
    };
    let (one, two) = (named(1, "v1"), named(2, "docker.io/my/app:v2"));
    layout.index(&[one, two]);
    for (name, number) in [("app:v1", 1), ("my/app:v2", 2)] {
        let held = place.import(name, layout.path()).unwrap();
        assert_eq!(held.module.digest, Digest::of(&module(number)), "{name}");
    }
    let error = place.import("app:v3", layout.path()).unwrap_err();
    assert!(error.contains("holds several images (") && error.contains("v1"), "{error}");
}

#[test]
fn a_spin_application_of_one_component_is_a_module_with_an_environment() {
    let place = Place::new();
    let layout = Layout::new();
    let locked = |components: Value| json!({"spin_lock_version": 1, "components": components});
    let build = |locked: &Value, assets: usize| {
        let config = layout.document(oci::SPIN, locked);
        let mut layers = vec![layout.blob("application/vnd.wasm.content.layer.v1+wasm", &component())];
        layers.extend((0..assets).map(|_| layout.blob("application/vnd.wasm.content.layer.v1+data", b"x")));
        let manifest = layout.manifest(&config, &layers);
        layout.index(&[manifest]);
    };
    let one = locked(json!([{"id": "web", "env": {"A": "b"}, "source": {}}]));
    build(&one, 0);
    let held = place.import("spin", layout.path()).unwrap();
    assert_eq!((held.config.entrypoint, held.config.env), (vec!["web".to_owned()], vec!["A=b".to_owned()]));
    build(&one, 1);
    let error = place.import("spin", layout.path()).unwrap_err();
    assert!(error.contains("layer.v1+data"), "{error}");
    build(&locked(json!([{"id": "a"}, {"id": "b"}])), 0);
    let error = place.import("spin", layout.path()).unwrap_err();
    assert!(error.contains("Spin application of 2 components"), "{error}");
}

#[test]
fn images_for_other_machines_are_refused_by_the_name_of_their_platform() {
    let place = Place::new();
    let layout = Layout::new();
    let shell = tar(&[("bin/sh", b"\x7fELF")]);
    layout.container(("linux", "arm64"), &json!({"Cmd": ["/bin/sh"]}), &[&shell]);
    let single = place.import("busybox", layout.path()).unwrap_err();
    assert!(single.contains("container image for linux/arm64; this node runs WebAssembly"), "{single}");

    let images: Vec<_> = ["amd64", "arm64"]
        .map(|arch| {
            let image = layout.container(("linux", arch), &json!({"Cmd": ["/bin/sh"]}), &[&shell]);
            with(image, &json!({"platform": {"os": "linux", "architecture": arch}}))
        })
        .into();
    layout.index(&images);
    let several = place.import("busybox", layout.path()).unwrap_err();
    assert!(several.contains("container image for linux/amd64, linux/arm64"), "{several}");

    // What common tools build says linux too.
    let wasm = tar(&[("app.wasm", &module(1))]);
    layout.container(("linux", "amd64"), &json!({"Entrypoint": ["/app.wasm"]}), &[&wasm]);
    assert_eq!(place.import("app", layout.path()).unwrap().module.digest, Digest::of(&module(1)));
}

#[test]
fn blobs_that_are_not_what_they_are_called_are_refused() {
    let place = Place::new();
    let other = module(9);
    let break_by = |damage: &dyn Fn(&Layout, &Value)| {
        let layout = Layout::new();
        let manifest = layout.artifact(&module(1));
        damage(&layout, &manifest);
        place.import("app", layout.path()).unwrap_err()
    };
    let layer = |layout: &Layout| layout.blob_path(&json!({"digest": Digest::of(&module(1)).to_string()}));
    for (error, part) in [
        (break_by(&|layout, _| fs::write(layer(layout), &other).unwrap()), "has the content of"),
        (break_by(&|layout, _| fs::remove_file(layer(layout)).unwrap()), "is missing"),
        (
            break_by(&|layout, manifest| layout.index(&[with(manifest.clone(), &json!({"size": 7}))])),
            "not 7 as stated",
        ),
        (
            break_by(&|layout, manifest| {
                layout.index(&[with(manifest.clone(), &json!({"digest": "sha512:00"}))])
            }),
            "unsupported digest algorithm",
        ),
        (
            break_by(&|layout, manifest| {
                layout.index(&[with(manifest.clone(), &json!({"digest": "sha256:../../../../etc/passwd"}))]);
            }),
            "malformed digest",
        ),
        (break_by(&|layout, _| layout.index(&[])), "names no image"),
        (break_by(&|layout, _| fs::write(layout.path().join("index.json"), "{").unwrap()), "index.json: EOF"),
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }

    let layout = Layout::new();
    let manifest = layout.container(("wasi", "wasm"), &json!({}), &[&tar(&[("a.wasm", &module(1))])]);
    let read: Value = serde_json::from_slice(&fs::read(layout.blob_path(&manifest)).unwrap()).unwrap();
    let lies = layout.blob(&format!("{}+gzip", oci::TAR), &tar(&[("a.wasm", &other)]));
    let manifest = layout.manifest(&read["config"], &[lies]);
    layout.index(&[manifest]);
    let error = place.import("app", layout.path()).unwrap_err();
    assert!(error.contains("the layer sha256:") && error.contains("has the content of"), "{error}");
    assert!(place.imported().is_empty());
}

#[test]
fn archives_that_are_cut_short_change_nothing() {
    let place = Place::new();
    let layout = Layout::new();
    layout.artifact(&module(1));
    let archive = oci::gzip(&layout.archive());
    for cut in [10, archive.len() / 2, archive.len() - 20] {
        let error = place.import("app", &place.file("cut.tgz", &archive[..cut])).unwrap_err();
        assert!(error.contains("the archive"), "{error}");
    }
    assert!(place.imported().is_empty());
    assert_eq!((place.blobs(), fs::read_dir(place.images().join("tmp")).unwrap().count()), (0, 0));
}

#[test]
fn imports_at_the_same_time_all_arrive() {
    let place = Place::new();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let file = place.file(&format!("{number}.wasm"), &module(number));
            // As processes do, each opens the library for itself.
            let images = place.images();
            scope.spawn(move || {
                let library = Library::open(&images).unwrap();
                library.import(&format!("app:{number}"), &file).unwrap();
                library.import("app:shared", &file).unwrap();
            });
        }
    });
    assert_eq!((place.imported().len(), place.blobs()), (9, 8));
}

#[test]
fn what_a_crash_left_is_cleared_with_the_next_change() {
    let place = Place::new();
    place.import("one", &place.file("1.wasm", &module(1))).unwrap();
    let stray = place.images().join("blobs/sha256").join(Digest::of(b"stray").hex());
    fs::write(&stray, b"half").unwrap();
    fs::create_dir_all(place.images().join("tmp/left/archive")).unwrap();
    place.import("two", &place.file("2.wasm", &module(2))).unwrap();
    assert!(!stray.exists() && !place.images().join("tmp/left").exists());
    assert_eq!(place.imported().len(), 2);
}

#[test]
fn a_damaged_list_of_images_is_said_to_be_damaged() {
    let place = Place::new();
    place.import("one", &place.file("1.wasm", &module(1))).unwrap();
    for content in ["", "{\"version\": 1}", "{\"version\": 99, \"images\": []}"] {
        fs::write(place.images().join("index.json"), content).unwrap();
        let library = Library::open(&place.images()).unwrap();
        let error = library.find("one").unwrap_err().to_string();
        assert!(
            error.contains("index.json is damaged") && error.contains("import the images again"),
            "{error}"
        );
        assert!(library.find("sampan/hello").unwrap().is_some(), "what is embedded is still there");
        place.store();
    }
}

#[tokio::test]
async fn the_kubelet_learns_what_is_wrong_with_a_reference() {
    let place = Place::new();
    let store = place.store();
    let absent = store.pull("no/such:v1", &[]).await.unwrap_err();
    assert_eq!(
        absent.to_string(),
        "failed to pull image \"no/such:v1\": registry pulls are not supported yet; \
         import it with `sampan image import NAME FILE`"
    );
    assert!(store.status("no/such:v1").await.unwrap().is_none());
    let invalid = store.status("UPPER").await.unwrap_err();
    assert!(matches!(&invalid, ImageError::InvalidName { .. }));
    assert_eq!(
        invalid.to_string(),
        "couldn't parse image name \"UPPER\": invalid reference format: repository name (library/UPPER) must be lowercase"
    );
    assert!(matches!(store.pull("UPPER", &[]).await, Err(ImageError::InvalidName { .. })));
}

#[tokio::test]
async fn images_imported_while_the_node_runs_can_be_started_and_removed() {
    let place = Place::new();
    let store = place.store();
    let file = place.file("a.wasm", &module(1));
    place.import("my/app", &file).unwrap();
    let info = store.pull("my/app:latest", &[]).await.unwrap();
    assert_eq!(store.status("my/app").await.unwrap(), Some(info.clone()));
    assert!(store.list().await.unwrap().contains(&info));
    let (first, second) = (store.load(&info.id).await.unwrap(), store.load(&info.id).await.unwrap());
    assert!(Arc::ptr_eq(&first, &second), "one image in memory, however many containers");

    let code = place.images().join("compiled/code");
    let compiled =
        || fs::read_dir(fs::read_dir(&code).unwrap().next().unwrap().unwrap().path()).unwrap().count();
    assert_eq!(compiled(), 1);
    store.remove("my/app").await.unwrap();
    store.remove("my/app").await.unwrap();
    assert_eq!(compiled(), 0);
    drop((first, second));
    assert!(store.load(&info.id).await.is_err());
}

#[tokio::test]
async fn a_module_that_the_engine_refuses_is_unsupported_when_it_is_pulled() {
    let place = Place::new();
    let text = "(module (memory 1 (pagesize 1)) (func (export \"_start\")))";
    place.import("odd", &place.file("odd.wasm", &wat::parse_str(text).unwrap())).unwrap();
    let error = place.store().pull("odd", &[]).await.unwrap_err();
    assert!(matches!(error, ImageError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("does not compile"), "{error}");
}

#[tokio::test]
async fn a_module_that_rotted_on_disk_is_noticed() {
    let place = Place::new();
    let held = place.import("app", &place.file("a.wasm", &module(1))).unwrap();
    let blob = place.images().join("blobs/sha256").join(held.module.digest.hex());
    fs::write(&blob, module(2)).unwrap();
    let error = place.store().pull("app", &[]).await.unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
    // Importing it again heals it.
    place.import("app", &place.file("a.wasm", &module(1))).unwrap();
    place.store().pull("app", &[]).await.unwrap();
}

/// A registry that has one image.
struct OneImage(Vec<u8>);

#[async_trait::async_trait]
impl RegistryClient for OneImage {
    async fn fetch(&self, reference: &Reference, _: &[PullCredentials], to: &Path) -> Result<(), String> {
        if reference.repository() != "x.io/app" {
            return Err(format!("{reference}: not found"));
        }
        let layout = Layout::new();
        layout.artifact(&self.0);
        fs::rename(layout.path().join("blobs"), to.join("blobs")).unwrap();
        fs::rename(layout.path().join("index.json"), to.join("index.json")).unwrap();
        Ok(())
    }
}

#[tokio::test]
async fn a_registrys_images_are_checked_and_kept() {
    let place = Place::new();
    let store = place.store().with_registry(Arc::new(OneImage(module(1))));
    let info = store.pull("x.io/app:v1", &[]).await.unwrap();
    let by_digest = format!("x.io/app@{}", info.id);
    assert_eq!(store.pull(&by_digest, &[]).await.unwrap().id, info.id);
    assert_eq!(store.status(&by_digest).await.unwrap().unwrap().names, ["x.io/app:v1"]);
    let other = format!("x.io/app@{}", Digest::of(b"other"));
    let wrong = store.pull(&other, &[]).await.unwrap_err();
    assert!(matches!(&wrong, ImageError::Pull { why, .. } if why.contains("it is not sha256:")), "{wrong}");
    let absent = store.pull("x.io/other", &[]).await.unwrap_err().to_string();
    assert_eq!(absent, "failed to pull image \"x.io/other\": x.io/other:latest: not found");
    let left = fs::read_dir(place.images()).unwrap().flatten();
    let left: Vec<_> =
        left.filter(|entry| entry.file_name().to_string_lossy().starts_with("pull-")).collect();
    assert!(left.is_empty(), "{left:?}");
}
