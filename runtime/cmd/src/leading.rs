//! What only one server may do at a time runs while this one leads.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long work may take to stop when leadership is lost. What it writes meanwhile is refused
/// or ordered behind the new leader's writes like anybody's.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs `work` whenever `leading` is true, until `shutdown`. Work that ends by itself is started
/// again after a pause.
pub(crate) async fn while_leading<Work, Fut>(
    mut leading: watch::Receiver<bool>,
    shutdown: CancellationToken,
    mut work: Work,
) where
    Work: FnMut(CancellationToken) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    const PAUSE: Duration = Duration::from_secs(1);
    loop {
        tokio::select! {
            changed = leading.wait_for(|mine| *mine) => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
        let reign = CancellationToken::new();
        let mut running = tokio::spawn(work(reign.clone()));
        let ended = tokio::select! {
            ended = &mut running => Some(ended),
            _ = leading.wait_for(|mine| !*mine) => None,
            () = shutdown.cancelled() => None,
        };
        match ended {
            Some(ended) => {
                if let Err(error) = ended {
                    tracing::error!(%error, "work of the leader failed; it is started again");
                }
                let _ = tokio::time::timeout(PAUSE, shutdown.cancelled()).await;
            }
            None => {
                reign.cancel();
                if tokio::time::timeout(PATIENCE, &mut running).await.is_err() {
                    running.abort();
                }
            }
        }
        if shutdown.is_cancelled() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn work_runs_only_while_this_server_leads() {
        let (lead, leading) = watch::channel(false);
        let shutdown = CancellationToken::new();
        let (started, running) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (starts, runs) = (started.clone(), running.clone());
        let task = tokio::spawn(while_leading(leading, shutdown.clone(), move |reign| {
            let runs = runs.clone();
            starts.fetch_add(1, Ordering::SeqCst);
            async move {
                runs.fetch_add(1, Ordering::SeqCst);
                reign.cancelled().await;
                runs.fetch_sub(1, Ordering::SeqCst);
            }
        }));
        let until = |wanted: usize| {
            let running = running.clone();
            async move {
                while running.load(Ordering::SeqCst) != wanted {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        };
        for round in 1..=3 {
            lead.send_replace(true);
            until(1).await;
            assert_eq!(started.load(Ordering::SeqCst), round);
            lead.send_replace(false);
            until(0).await;
        }
        lead.send_replace(true);
        until(1).await;
        shutdown.cancel();
        task.await.unwrap();
        assert_eq!(running.load(Ordering::SeqCst), 0);
    }
}
