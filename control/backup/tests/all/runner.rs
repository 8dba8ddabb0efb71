//! Backups by schedule.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sampan_backup::{Listed, Location, Origin, Place, Runner, SaveOptions, list, save, status};
use sampan_store::Storage;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::s3;
use crate::s3_server::{Server, Trouble};
use crate::support::*;

/// A runner whose wall clock begins on 21 November 2026 and goes with tokio's, which is paused.
fn runner(storage: Arc<dyn Storage>, place: Place, schedule: &str) -> (Runner, watch::Sender<bool>) {
    let (leads, receiver) = watch::channel(true);
    let begin: Timestamp = "2026-11-21T00:00:30Z".parse().unwrap();
    let origin = Instant::now();
    let clock = move || begin + jiff::SignedDuration::try_from(origin.elapsed()).unwrap();
    let runner = Runner {
        private: None,
        storage,
        places: vec![place],
        schedule: schedule.parse().unwrap(),
        retention: "3".parse().unwrap(),
        origin: self::origin(),
        seal: None,
        leads: receiver,
        clock: Arc::new(clock),
    };
    (runner, leads)
}

fn start(runner: Runner) -> CancellationToken {
    let cancel = CancellationToken::new();
    tokio::spawn(runner.run(cancel.clone()));
    cancel
}

fn directory(path: &Path) -> Place {
    Place::Directory(path.to_owned())
}

async fn times(place: &Place) -> Vec<String> {
    list(place)
        .await
        .unwrap()
        .iter()
        .rev()
        .map(|one: &Listed| one.time.strftime("%d %H:%M").to_string())
        .collect()
}

async fn hours(hours: u64) {
    tokio::time::sleep(Duration::from_secs(hours * 3_600)).await;
}

#[tokio::test(start_paused = true)]
async fn backups_come_at_their_times_and_the_oldest_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(store(10, 100).await);
    let place = directory(&dir.path().join("made/by/it"));
    let (runner, _leads) = runner(store.clone(), place.clone(), "0 */6 * * *");
    let cancel = start(runner);
    hours(5).await;
    assert_eq!(times(&place).await, Vec::<String>::new(), "the first is made at the next time");
    hours(8).await;
    assert_eq!(times(&place).await, ["21 06:00", "21 12:00"]);
    hours(24).await;
    assert_eq!(times(&place).await, ["22 00:00", "22 06:00", "22 12:00"]);
    let newest = list(&place).await.unwrap().remove(0);
    assert_eq!(newest.name, format!("sampan-edge-1-20261122T120000Z-{}.snapshot", store.revision()));
    let location = Location { place: place.clone(), name: newest.name };
    assert_eq!(restored(&location, None).await, contents(&*store).await);
    cancel.cancel();
    hours(24).await;
    assert_eq!(times(&place).await.last().unwrap(), "22 12:00", "nothing after the end");
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_makes_backups_and_missed_times_are_made_up_for_once() {
    let dir = tempfile::tempdir().unwrap();
    let place = directory(dir.path());
    let (runner, leads) = runner(Arc::new(store(10, 100).await), place.clone(), "@hourly");
    let _cancel = start(runner);
    hours(2).await;
    assert_eq!(times(&place).await, ["21 01:00", "21 02:00"]);
    leads.send(false).unwrap();
    hours(5).await;
    assert_eq!(times(&place).await.len(), 2);
    leads.send(true).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(times(&place).await, ["21 01:00", "21 02:00", "21 07:00"], "one for five");
}

#[tokio::test(start_paused = true)]
async fn other_files_and_other_clusters_backups_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let place = directory(dir.path());
    let store = Arc::new(store(10, 100).await);
    let other = Origin { cluster: "other".into(), ..origin() };
    let foreign = SaveOptions { origin: other, ..options() };
    let mut names = Vec::new();
    for day in 1..=4 {
        let name = format!("sampan-edge-9-202611{day:02}T000000Z-{day}.snapshot");
        let location = Location { place: place.clone(), name: name.clone() };
        save(&*store, &location, &foreign).await.unwrap();
        names.push(name);
    }
    std::fs::write(dir.path().join("sampan-edge-1-20200101T000000Z-1.snapshot"), "not one").unwrap();
    std::fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    names.extend(["sampan-edge-1-20200101T000000Z-1.snapshot".to_owned(), "notes.txt".to_owned()]);
    let (runner, _leads) = runner(store, place, "@hourly");
    let _cancel = start(runner);
    hours(8).await;
    let left = self::names(dir.path());
    assert!(names.iter().all(|name| left.contains(name)), "{left:?}");
    assert_eq!(left.len(), names.len() + 3);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_tried_again_before_the_next_time() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("blocked");
    let place = directory(&blocked);
    let (runner, _leads) = runner(Arc::new(store(10, 100).await), place.clone(), "@daily");
    let _cancel = start(runner);
    hours(1).await;
    std::fs::write(&blocked, "a file where the directory should be").unwrap();
    hours(24).await;
    assert!(blocked.is_file(), "the backup of midnight failed");
    std::fs::remove_file(&blocked).unwrap();
    hours(1).await;
    let times = times(&place).await;
    assert_eq!(times.len(), 1, "{times:?}");
    assert!(times[0].starts_with("22 0"), "{times:?}");
}

#[tokio::test]
async fn retention_works_in_a_bucket_too() {
    let dir = tempfile::tempdir().unwrap();
    let (server, address) = Server::start().await;
    let place = s3::bucket(address, dir.path());
    let store = Arc::new(store(10, 100).await);
    for day in 1..=5 {
        let name = format!("sampan-edge-2-202611{day:02}T000000Z-{day}.snapshot");
        save(&*store, &Location { place: place.clone(), name }, &options()).await.unwrap();
    }
    server.fail(|what, count| (what == "put" && count == 1).then_some(Trouble::Answer(500)));
    // The last was on the fifth, and now it is the twenty-first: one is due.
    let (mut runner, _leads) = runner(store, place.clone(), "@daily");
    runner.seal = Some(seal());
    let _cancel = start(runner);
    for _ in 0..200 {
        if list(&place).await.unwrap().len() == 3
            && server.requests().iter().any(|one| one.starts_with("delete "))
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(times(&place).await, ["04 00:00", "05 00:00", "21 00:00"]);
    let newest = Location { place: place.clone(), name: list(&place).await.unwrap().remove(0).name };
    assert!(status(&newest, Some(&passphrase())).await.unwrap().opened);
    assert_eq!(server.unfinished(), 0);
}
