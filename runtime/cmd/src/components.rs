//! Components start in order and stop in reverse: whoever is used outlives its users.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Component {
    name: &'static str,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    patience: Duration,
}

/// The running components, in the order in which they were started.
#[derive(Default)]
pub(crate) struct Components {
    running: Vec<Component>,
}

impl Components {
    /// Starts a component. It ends when its token is cancelled; when it is stopped, it is given
    /// `patience` to do so.
    pub(crate) fn start<Fut>(
        &mut self,
        name: &'static str,
        patience: Duration,
        component: impl FnOnce(CancellationToken) -> Fut,
    ) where
        Fut: Future<Output = ()> + Send + 'static,
    {
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(component(shutdown.clone()));
        self.running.push(Component { name, shutdown, task, patience });
    }

    /// Waits until some component ends by itself (which none should); returns its name.
    pub(crate) async fn failed(&mut self) -> &'static str {
        std::future::poll_fn(|cx| {
            for component in &mut self.running {
                if std::pin::Pin::new(&mut component.task).poll(cx).is_ready() {
                    return std::task::Poll::Ready(component.name);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// Stops everything, last started first.
    pub(crate) async fn stop(self) {
        for mut component in self.running.into_iter().rev() {
            component.shutdown.cancel();
            if component.task.is_finished() {
                continue;
            }
            tracing::debug!(component = component.name, "stopping");
            if tokio::time::timeout(component.patience, &mut component.task).await.is_err() {
                tracing::warn!(component = component.name, "did not stop in time; going on without it");
                component.task.abort();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn components_stop_in_reverse_order() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut components = Components::default();
        for name in ["first", "second", "third"] {
            let order = order.clone();
            components.start(name, SOON, move |shutdown| async move {
                shutdown.cancelled().await;
                order.lock().unwrap().push(name);
            });
        }
        components.stop().await;
        assert_eq!(*order.lock().unwrap(), ["third", "second", "first"]);
    }

    #[tokio::test]
    async fn a_component_that_ends_by_itself_is_named_and_one_that_hangs_is_left_behind() {
        let mut components = Components::default();
        components.start("hangs", Duration::from_millis(20), |_| std::future::pending());
        components.start("ends", SOON, |_| async {});
        assert_eq!(components.failed().await, "ends");
        components.stop().await;
    }
}
