//! The compiler's process and the cache of compiled code; what a crash does to an import.
//!
//! These tests start this test program again, as the compiler or as an importer.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sampan_wasm::artifact::{
    ArtifactCache, ArtifactError, Compiler, CompilerProcess, Digest, Flavor, ModuleBytes, ModuleSource,
    compile_child, detect,
};
use sampan_wasm::engine::Engines;
use sampan_wasm::images::Library;

use super::images::module;

/// Says what the program is started again for.
const ROLE: &str = "SAMPAN_TEST_ROLE";
const MEMORY: u64 = 4 << 30;

/// No test of its own: what the program does when it is started again.
#[test]
fn as_another_process() {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match std::env::var(ROLE).as_deref() {
        Ok("compile") => {
            let own = &arguments[arguments.len() - 3..];
            std::process::exit(compile_child(own).into());
        }
        Ok("import") => import_for_ever(Path::new(arguments.last().unwrap())),
        _ => {}
    }
}

/// Arguments that lead to [`as_another_process`].
fn own_arguments() -> Vec<OsString> {
    ["--exact", "compile::as_another_process", "--nocapture"].map(OsString::from).into()
}

struct Bench {
    directory: tempfile::TempDir,
    engines: Engines,
}

impl Bench {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), engines: Engines::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn cache(&self, compiler: Compiler) -> ArtifactCache {
        ArtifactCache::open(&self.path("cache"), self.engines.clone(), compiler).unwrap()
    }

    fn source(&self, bytes: &[u8]) -> ModuleSource {
        let path = self.path("module.wasm");
        fs::write(&path, bytes).unwrap();
        ModuleSource { digest: Digest::of(bytes), flavor: Flavor::CoreP1, bytes: ModuleBytes::File(path) }
    }

    /// A compiler that notes each start in a file.
    fn counted(&self) -> Compiler {
        let script = format!(
            "echo started >>{}; exec {} \"$@\"",
            self.path("starts").display(),
            std::env::current_exe().unwrap().display()
        );
        let mut arguments: Vec<OsString> = vec!["-c".into(), script.into(), "sh".into()];
        arguments.extend(own_arguments());
        process("/bin/sh", arguments, MEMORY)
    }

    fn starts(&self) -> usize {
        fs::read_to_string(self.path("starts")).unwrap_or_default().lines().count()
    }

    /// The file of the only compiled module.
    fn code(&self) -> PathBuf {
        let only = |path: PathBuf| fs::read_dir(path).unwrap().next().unwrap().unwrap().path();
        only(only(self.path("cache/code"))).join("code")
    }
}

fn process(program: &str, arguments: Vec<OsString>, memory: u64) -> Compiler {
    let environment = vec![(ROLE.into(), "compile".into())];
    Compiler::Process(CompilerProcess { program: program.into(), arguments, environment, memory })
}

fn shell(script: &str) -> Compiler {
    process("/bin/sh", vec!["-c".into(), script.into()], MEMORY)
}

#[tokio::test]
async fn a_module_is_compiled_once_by_a_process_and_found_ever_after() {
    let bench = Bench::new();
    let source = bench.source(&module(1));
    let cache = bench.cache(bench.counted());
    let loads = (0..16).map(|_| cache.load(&source));
    for loaded in futures::future::join_all(loads).await {
        loaded.unwrap();
    }
    assert_eq!(bench.starts(), 1);
    cache.load(&source).await.unwrap();
    drop(cache);
    // Also after a restart, and then no compiler is needed.
    bench.cache(shell("exit 1")).load(&source).await.unwrap();
    assert_eq!(bench.starts(), 1);
}

#[tokio::test]
async fn embedded_bytes_reach_the_compiler_too() {
    let bench = Bench::new();
    let bytes: &'static [u8] = Vec::leak(module(3));
    let source = ModuleSource {
        digest: Digest::of(bytes),
        flavor: Flavor::CoreP1,
        bytes: ModuleBytes::Embedded(bytes),
    };
    bench.cache(bench.counted()).load(&source).await.unwrap();
    assert_eq!(bench.starts(), 1);
}

#[tokio::test]
async fn a_gibibyte_is_enough_for_what_is_shipped() {
    let bench = Bench::new();
    for file in ["hello-http.wasm", "testguest.wasm"] {
        let bytes = fs::read(super::node::modules().join(file)).unwrap();
        let source = ModuleSource { flavor: detect(&bytes).unwrap(), ..bench.source(&bytes) };
        let program = std::env::current_exe().unwrap();
        let compiler = process(program.to_str().unwrap(), own_arguments(), 1 << 30);
        bench.cache(compiler).load(&source).await.unwrap();
    }
}

#[tokio::test]
async fn compiled_code_that_was_changed_is_compiled_again() {
    let bench = Bench::new();
    let source = bench.source(&module(1));
    let cache = bench.cache(bench.counted());
    cache.load(&source).await.unwrap();
    let mut code = fs::read(bench.code()).unwrap();
    let middle = code.len() / 2;
    code[middle] ^= 1;
    fs::write(bench.code(), &code).unwrap();
    cache.load(&source).await.unwrap();
    assert_eq!(bench.starts(), 2);
    assert_ne!(fs::read(bench.code()).unwrap(), code);
}

#[tokio::test]
async fn a_compiler_that_crashes_is_an_error_and_leaves_nothing() {
    let bench = Bench::new();
    let source = bench.source(&module(1));
    for (compiler, part) in [
        (shell("kill -9 $$"), "ended by signal 9"),
        (shell("echo thread panicked >&2; exit 101"), "exit code 101: thread panicked"),
        (shell("exit 0"), "keeping compiled code"),
        (shell("head -c 1000 /dev/zero >$2"), "its code does not load"),
        (process("/no/such/compiler", vec![], MEMORY), "starting /no/such/compiler"),
        (
            process(std::env::current_exe().unwrap().to_str().unwrap(), own_arguments(), 1 << 20),
            "the compiler failed: ",
        ),
    ] {
        let error = bench.cache(compiler).load(&source).await.err().unwrap().to_string();
        assert!(error.contains(part), "{part}: {error}");
        let drafts = fs::read_dir(bench.path("cache/tmp")).unwrap().count();
        assert_eq!(drafts, 0, "{part}");
    }
    bench.cache(bench.counted()).load(&source).await.unwrap();
}

#[tokio::test]
async fn what_the_engine_refuses_is_told_apart_from_a_broken_compiler() {
    let bench = Bench::new();
    let odd = wat::parse_str("(module (memory 1 (pagesize 1)) (func (export \"_start\")))").unwrap();
    let refused = bench.cache(bench.counted()).load(&bench.source(&odd)).await.err().unwrap();
    assert!(matches!(&refused, ArtifactError::Refused(why) if why.contains("page")), "{refused}");
}

#[test]
fn the_compiler_takes_only_what_it_was_told_to_expect() {
    let bench = Bench::new();
    let output = bench.path("code");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(own_arguments())
        .args([Digest::of(b"something else").to_string(), MEMORY.to_string()])
        .arg(&output)
        .env(ROLE, "compile")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &module(1)).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&ended.stderr).contains("the module is not sha256:"));
    assert!(!ended.status.success() && !output.exists());
}

/// Imports modules under changing names until it is killed.
fn import_for_ever(directory: &Path) {
    let library = Library::open(&directory.join("images")).unwrap();
    for number in (0..10).cycle() {
        let file = directory.join(format!("{number}.wasm"));
        library.import(&format!("app:{number}"), &file).unwrap();
        library.remove(&format!("app:{}", (number + 5) % 10)).unwrap();
    }
}

#[test]
fn imports_that_are_killed_leave_a_library_in_order() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..10 {
        fs::write(directory.path().join(format!("{number}.wasm")), module(number)).unwrap();
    }
    for round in 0..25 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(own_arguments())
            .arg(directory.path())
            .env(ROLE, "import")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20 + round * 7 % 40));
        child.kill().unwrap();
        child.wait().unwrap();
        let library = Library::open(&directory.path().join("images")).unwrap();
        for held in library.list().unwrap() {
            assert_eq!(Digest::of(&held.module.bytes.read().unwrap()), held.module.digest);
        }
        library.import("own", &directory.path().join("0.wasm")).unwrap();
    }
}
