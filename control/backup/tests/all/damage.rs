//! Every part of a backup, damaged: nothing whole ever comes out of it.

use std::path::Path;

use sampan_backup::{BackupError, Location, open, save, status};
use sampan_store::{MemoryStore, Storage};

use crate::support::*;

async fn written(dir: &Path, sealed_one: bool) -> (Location, Vec<u8>) {
    let location = Location::file(&dir.join("b")).unwrap();
    let options = if sealed_one { sealed() } else { options() };
    save(&store(120, 2_000).await, &location, &options).await.unwrap();
    let bytes = std::fs::read(location.to_string()).unwrap();
    (location, bytes)
}

/// The store that is told to restore keeps what it has; the error is one of this crate, on one line.
async fn refused(location: &Location, sealed_one: bool, what: &str) -> String {
    let passphrase = sealed_one.then(passphrase);
    let status = status(location, passphrase.as_ref()).await.expect_err(what).to_string();
    let store = MemoryStore::new();
    put(&store, "/kept", b"kept").await;
    let before = contents(&store).await;
    match open(location, passphrase.as_ref()).await {
        Err(error) => assert_eq!(error.to_string(), status, "{what}"),
        Ok(mut backup) => {
            store.restore(&mut backup).await.map(drop).expect_err(what);
        }
    }
    assert_eq!(contents(&store).await, before, "{what}");
    assert!(!status.contains('\n'), "{status}");
    status
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    for sealed_one in [false, true] {
        let (location, bytes) = written(dir.path(), sealed_one).await;
        let length = bytes.len();
        // All of the beginning, where the header is, and of the end; samples of the rest, with the
        // frames around the chunks among them.
        let header = 22 + u32::from_le_bytes(bytes[18..22].try_into().unwrap()) as usize + 32;
        let chunk = header + 4 + (64 << 10) + if sealed_one { 16 } else { 0 };
        let places = (0..header + 40)
            .chain((header..length - 80).step_by(10_007))
            .chain(chunk - 20..chunk + 8)
            .chain(length - 80..length);
        for at in places {
            for bit in if at < 30 { vec![0x01, 0x80] } else { vec![0x10] } {
                let mut flipped = bytes.clone();
                flipped[at] ^= bit;
                std::fs::write(location.to_string(), &flipped).unwrap();
                let what = format!("bit {bit:#x} of byte {at} of {length}, sealed: {sealed_one}");
                let why = refused(&location, sealed_one, &what).await;
                let expected = match at {
                    0..16 => "the backup cannot be used: it is not a backup of sampan",
                    16..18 => "the backup ",
                    _ => "the backup cannot be used: ",
                };
                assert!(why.starts_with(expected), "{what}: {why}");
                if sealed_one && at >= 18 && !why.ends_with("it is cut off") {
                    assert_eq!(why, "the backup cannot be used: it is damaged", "{what}");
                }
            }
        }
        std::fs::remove_file(location.to_string()).unwrap();
    }
}

#[tokio::test]
async fn a_backup_that_is_cut_off_or_longer_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    for sealed_one in [false, true] {
        let (location, bytes) = written(dir.path(), sealed_one).await;
        for keep in [1, 15, 17, 21, 100, 400, 70_000, bytes.len() - 60, bytes.len() - 33, bytes.len() - 1] {
            std::fs::write(location.to_string(), &bytes[..keep]).unwrap();
            let why = refused(&location, sealed_one, &format!("{keep} bytes")).await;
            assert_eq!(why, "the backup cannot be used: it is cut off", "{keep} bytes");
        }
        std::fs::write(location.to_string(), b"").unwrap();
        let why = refused(&location, sealed_one, "nothing").await;
        assert_eq!(why, "the backup cannot be used: it is empty");
        std::fs::write(location.to_string(), [&bytes[..], b"\n"].concat()).unwrap();
        let why = refused(&location, sealed_one, "longer").await;
        assert_eq!(why, "the backup cannot be used: something follows its end");
        std::fs::remove_file(location.to_string()).unwrap();
    }
}

#[tokio::test]
async fn chunks_of_a_sealed_backup_cannot_change_places_nor_its_end_be_forged() {
    use sha2::{Digest, Sha256};
    let dir = tempfile::tempdir().unwrap();
    let (location, bytes) = written(dir.path(), true).await;
    let header = 22 + u32::from_le_bytes(bytes[18..22].try_into().unwrap()) as usize + 32;
    let chunk = 4 + (64 << 10) + 16;
    let (first, second) = (header..header + chunk, header + chunk..header + 2 * chunk);
    // Whoever can write the file can make its hash right: what they cannot make is the seal.
    let rehash = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() - 32);
        let hash = Sha256::digest(&bytes);
        bytes.extend_from_slice(&hash);
        bytes
    };
    let swapped = [&bytes[..header], &bytes[second.clone()], &bytes[first.clone()], &bytes[second.end..]];
    let removed = [&bytes[..header], &bytes[second.start..]];
    let mut keys = bytes.clone();
    let at = keys.len() - 48;
    keys[at] ^= 1;
    let mut payload = bytes.clone();
    payload[header + 1_000] ^= 1;
    for (what, forged) in [
        ("swapped", swapped.concat()),
        ("removed", removed.concat()),
        ("another number of keys", keys),
        ("a changed payload", payload),
    ] {
        std::fs::write(location.to_string(), rehash(forged)).unwrap();
        let why = refused(&location, true, what).await;
        assert_eq!(why, "the backup cannot be used: it is damaged", "{what}");
    }
    std::fs::write(location.to_string(), rehash(bytes)).unwrap();
    status(&location, Some(&passphrase())).await.unwrap();
}

#[tokio::test]
async fn newer_and_foreign_files_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (location, bytes) = written(dir.path(), false).await;
    let mut newer = bytes;
    newer[16..18].copy_from_slice(&9_999_u16.to_le_bytes());
    std::fs::write(location.to_string(), &newer).unwrap();
    let refusal = status(&location, None).await.unwrap_err();
    assert!(matches!(refusal, BackupError::Newer { format: 9_999, known: 2 }));
    assert_eq!(refusal.to_string(), "the backup has format 9999; this program knows up to 2");
    for foreign in ["PK\x03\x04 a zip archive, for all we know", "SQLite format 3\0", "x"] {
        std::fs::write(location.to_string(), foreign).unwrap();
        let refusal = status(&location, None).await.unwrap_err().to_string();
        assert_eq!(refusal, "the backup cannot be used: it is not a backup of sampan", "{foreign}");
    }
}
