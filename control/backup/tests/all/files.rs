//! Backups as files.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use sampan_backup::{
    BackupError, Existing, KeyFiles, Location, Place, SaveOptions, Shape, list, save, save_stream, status,
};
use sampan_store::Storage;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use crate::support::*;

#[tokio::test]
async fn a_backup_gives_back_what_the_store_had_whatever_its_size_and_seal() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing, less than a chunk, many chunks with a frame larger than one.
    for (keys, size) in [(0, 0), (3, 100), (900, 3_000), (2, 400_000)] {
        let store = store(keys, size).await;
        for (name, options) in [("plain", options()), ("sealed", sealed())] {
            let location = Location::file(&dir.path().join(format!("{name}-{keys}"))).unwrap();
            let saved = save(&store, &location, &options).await.unwrap();
            let passphrase = options.seal.map(|seal| seal.passphrase);
            let found = status(&location, passphrase.as_ref()).await.unwrap();
            assert_eq!(saved, found, "{location}");
            assert_eq!((found.keys, found.revision), (u64::from(keys), store.revision()));
            assert_eq!(found.size, std::fs::metadata(location.to_string()).unwrap().len());
            assert_eq!(found.sealed, name == "sealed");
            assert_eq!(found.cluster.as_deref(), Some("0123abcd"));
            assert_eq!(read_out(&location, passphrase.as_ref()).await.unwrap(), plain(&store).await);
            assert_eq!(restored(&location, passphrase.as_ref()).await, contents(&store).await, "{location}");
        }
    }
    assert_eq!(names(dir.path()).len(), 8, "and no other files");
}

#[tokio::test]
async fn a_sealed_backup_carries_private_files_and_an_open_one_never_does() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| Location::file(&dir.path().join(name)).unwrap();
    let files = KeyFiles::new([
        ("server-ca.key".to_owned(), "private-text".to_owned()),
        ("authorities.json".to_owned(), "x".repeat(150_000)),
    ]);
    let with = SaveOptions { private: Some(files.clone()), ..sealed() };
    for (keys, size) in [(0, 0), (3, 100), (900, 3_000)] {
        let store = store(keys, size).await;
        let location = at(&format!("sealed-{keys}"));
        let saved = save(&store, &location, &with).await.unwrap();
        assert_eq!((saved.shape, saved.private), (Shape::Backup(2), true));
        assert_eq!(status(&location, Some(&passphrase())).await.unwrap(), saved);
        let shut = status(&location, None).await.unwrap();
        assert_eq!((shut.private, shut.opened, shut.keys), (true, false, u64::from(keys)));
        let contents_of = sampan_backup::open(&location, Some(&passphrase())).await.unwrap();
        assert_eq!(contents_of.private(), Some(&files));
        assert_eq!(read_out(&location, Some(&passphrase())).await.unwrap(), plain(&store).await);
        assert_eq!(restored(&location, Some(&passphrase())).await, contents(&store).await);
        let bytes = std::fs::read(location.to_string()).unwrap();
        assert!(!bytes.windows(12).any(|window| window == b"private-text"));
    }
    let store = store(3, 100).await;
    let open = SaveOptions { private: Some(files), ..options() };
    let refusal = save(&store, &at("open"), &open).await.unwrap_err().to_string();
    assert!(refusal.contains("only carried by a sealed backup"), "{refusal}");
    assert!(!std::fs::exists(dir.path().join("open")).unwrap());
    // Without them the format is that of older programs.
    let saved = save(&store, &at("plain"), &sealed()).await.unwrap();
    assert_eq!((saved.shape, saved.private), (Shape::Backup(1), false));
    let read = sampan_backup::open(&at("plain"), Some(&passphrase())).await.unwrap();
    assert_eq!(read.private(), None);
}

#[tokio::test]
async fn snapshots_from_elsewhere_are_backed_up_if_they_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(400, 2_000).await;
    let bytes = plain(&store).await;
    let at = |name: &str| Location::file(&dir.path().join(name)).unwrap();
    save_stream(&bytes[..], &at("whole"), &sealed()).await.unwrap();
    assert_eq!(restored(&at("whole"), Some(&passphrase())).await, contents(&store).await);
    let mut flipped = bytes.clone();
    flipped[500_000] ^= 4;
    let bad: [(&[u8], &str); 5] = [
        (&bytes[..bytes.len() - 1], "it is cut off"),
        (&bytes[..300_000], "it is cut off"),
        (&flipped, "it is damaged"),
        (b"{\"kind\":\"Status\"}", "it is not a snapshot of a sampan store"),
        (b"", "it is cut off"),
    ];
    for (snapshot, why) in bad {
        let refusal = save_stream(snapshot, &at("bad"), &options()).await.unwrap_err();
        assert_eq!(refusal.to_string(), format!("the backup cannot be used: {why}"));
    }
    let broken = (&bytes[..300_000]).chain(Broken);
    let refusal = save_stream(broken, &at("bad"), &options()).await.unwrap_err();
    assert!(matches!(refusal, BackupError::Incoming(_)), "{refusal:?}");
    assert_eq!(names(dir.path()), ["whole"]);
}

/// A connection that was cut.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

#[tokio::test]
async fn a_backup_is_of_its_owner_and_takes_the_place_of_another_only_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(10, 10).await;
    let location = Location::file(&dir.path().join("b")).unwrap();
    let first = save(&store, &location, &options()).await.unwrap();
    let mode = std::fs::metadata(dir.path().join("b")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    put(&store, "/more", b"x").await;
    let refusal = save(&store, &location, &options()).await.unwrap_err();
    assert_eq!(refusal.to_string(), format!("{location} exists already"));
    assert_eq!(status(&location, None).await.unwrap(), first);
    let replace = SaveOptions { existing: Existing::Replace, ..options() };
    assert_eq!(save(&store, &location, &replace).await.unwrap().keys, 11);
    std::fs::create_dir(dir.path().join("d")).unwrap();
    let directory = Location::file(&dir.path().join("d")).unwrap();
    assert!(save(&store, &directory, &replace).await.is_err(), "a directory is not replaced");
    let nowhere = Location::file(&dir.path().join("no/where")).unwrap();
    let refusal = save(&store, &nowhere, &options()).await.unwrap_err().to_string();
    assert_eq!(refusal, format!("the directory {} does not exist", dir.path().join("no").display()));
    assert_eq!(names(dir.path()), ["b", "d"]);
}

#[tokio::test]
async fn of_two_that_write_the_same_name_at_once_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let location = Location::file(&dir.path().join("b")).unwrap();
    let (few, many) = (store(300, 3_000).await, store(301, 3_000).await);
    let options = options();
    let (one, other) = tokio::join!(save(&few, &location, &options), save(&many, &location, &options));
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    let kept = status(&location, None).await.unwrap();
    assert!([one, other].into_iter().flatten().any(|saved| saved == kept));
    assert_eq!(names(dir.path()), ["b"]);
}

#[tokio::test]
async fn a_backup_that_is_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = plain(&store(400, 2_000).await).await;
    let (mut to, from) = tokio::io::duplex(1_000);
    let location = Location::file(&dir.path().join("b")).unwrap();
    let options = options();
    let saving = async { save_stream(from, &location, &options).await };
    let feeding = async {
        tokio::io::AsyncWriteExt::write_all(&mut to, &bytes[..600_000]).await.unwrap();
        assert_eq!(names(dir.path()).len(), 1, "it is being written");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    tokio::select! {
        saved = saving => panic!("{saved:?}"),
        () = feeding => {}
    }
    assert_eq!(names(dir.path()), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs the right to mount: .ci/run tries whether it has it"]
async fn a_full_disk_is_said_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mount = |program: &str, args: &[&str]| {
        let run = std::process::Command::new(program).args(args).arg(dir.path()).output();
        run.is_ok_and(|output| output.status.success())
    };
    assert!(mount("mount", &["-t", "tmpfs", "-o", "size=256k", "tmpfs"]), "no right to mount");
    let location = Location::file(&dir.path().join("b")).unwrap();
    std::fs::write(dir.path().join("kept"), "kept").unwrap();
    let result = save(&store(400, 2_000).await, &location, &options()).await;
    let left = names(dir.path());
    let small = save(&store(4, 2_000).await, &location, &options()).await;
    assert!(mount("umount", &[]));
    assert_eq!(result.unwrap_err().to_string(), format!("no space is left for {location}"));
    assert_eq!(left, ["kept"]);
    small.unwrap();
}

#[tokio::test]
async fn a_sealed_backup_says_what_it_is_without_its_passphrase_but_gives_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(300, 1_000).await;
    put(&store, "/secret", b"very-secret-value").await;
    let location = Location::file(&dir.path().join("b")).unwrap();
    let saved = save(&store, &location, &sealed()).await.unwrap();
    let shut = status(&location, None).await.unwrap();
    assert!(!shut.opened && saved.opened);
    assert_eq!(sampan_backup::Summary { opened: true, ..shut }, saved);
    let bytes = std::fs::read(dir.path().join("b")).unwrap();
    assert!(!bytes.windows(17).any(|window| window == b"very-secret-value"));
    let wrong = sampan_backup::Passphrase::new("correct house").unwrap();
    let refused = |result: Result<_, BackupError>| result.map(|_: sampan_backup::Summary| ()).unwrap_err();
    assert!(matches!(refused(status(&location, Some(&wrong)).await), BackupError::PassphraseWrong));
    assert_eq!(read_out(&location, Some(&wrong)).await.unwrap_err(), "the passphrase is wrong");
    let refusal = read_out(&location, None).await.unwrap_err();
    assert_eq!(refusal, "the backup is sealed; its passphrase is needed");
    // Who expects a sealed one does not get one that somebody put there in its place.
    let plain = Location::file(&dir.path().join("plain")).unwrap();
    save(&store, &plain, &options()).await.unwrap();
    let refusal = status(&plain, Some(&passphrase())).await.unwrap_err();
    assert!(matches!(refusal, BackupError::NotSealed));
}

#[tokio::test]
async fn a_bare_snapshot_of_the_store_is_taken_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(300, 1_000).await;
    let bytes = plain(&store).await;
    std::fs::write(dir.path().join("last-good"), &bytes).unwrap();
    let location = Location::file(&dir.path().join("last-good")).unwrap();
    let found = status(&location, None).await.unwrap();
    assert_eq!((found.shape, found.created), (Shape::Bare, None));
    assert_eq!((found.keys, found.revision, found.size), (300, store.revision(), bytes.len() as u64));
    assert_eq!(restored(&location, None).await, contents(&store).await);
    for cut in [10, 16, 1_000, bytes.len() - 1] {
        std::fs::write(dir.path().join("last-good"), &bytes[..cut]).unwrap();
        let refusal = read_out(&location, None).await.unwrap_err();
        assert_eq!(refusal, "the backup cannot be used: it is cut off", "{cut} bytes");
    }
    let missing = Location::file(&dir.path().join("none")).unwrap();
    let refusal = status(&missing, None).await.unwrap_err().to_string();
    assert_eq!(refusal, format!("{missing} does not exist"));
}

#[tokio::test]
async fn only_names_of_a_schedule_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "sampan-a-20261121T000000Z-7.snapshot",
        "sampan-b-20261122T000000Z-9.snapshot",
        "mine.snapshot",
        ".sampan-a-20261121T000000Z-7.snapshot.00.partial",
    ] {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    std::fs::create_dir(dir.path().join("sampan-a-20261120T000000Z-7.snapshot")).unwrap();
    let listed = list(&Place::Directory(dir.path().to_owned())).await.unwrap();
    let shown: Vec<_> = listed.iter().map(|one| (one.node.as_str(), one.revision.0, one.size)).collect();
    assert_eq!(shown, [("b", 9, 1), ("a", 7, 1)]);
    assert_eq!(list(&Place::Directory(dir.path().join("none"))).await.unwrap(), []);
}
