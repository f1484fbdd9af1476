//! Notifications of changed builds.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt as _, stream, stream::BoxStream};
use tokio::sync::watch;

use velox_api::BuildId;

/// The listeners of each build.
#[derive(Debug, Default)]
pub(super) struct Watches {
    by_build: Mutex<HashMap<BuildId, watch::Sender<()>>>,
}

/// A subscription, unregistered on drop.
struct Listener {
    watches: Arc<Watches>,
    id: BuildId,
    changes: watch::Receiver<()>,
}

impl Watches {
    /// Notifies the listeners of this build.
    pub(super) fn tell(&self, id: BuildId) {
        let by_build = self.by_build.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = by_build.get(&id) {
            sender.send_replace(());
        }
    }

    /// Notifies all listeners.
    pub(super) fn tell_all(&self) {
        let by_build = self.by_build.lock().unwrap_or_else(PoisonError::into_inner);
        by_build.values().for_each(|sender| sender.send_replace(()));
    }

    /// Yields an item at once, and one for all changes since the last item.
    pub(super) fn listen(self: &Arc<Self>, id: BuildId) -> BoxStream<'static, ()> {
        let mut changes = {
            let mut by_build = self.by_build.lock().unwrap_or_else(PoisonError::into_inner);
            by_build.entry(id).or_insert_with(|| watch::Sender::new(())).subscribe()
        };
        changes.mark_changed();
        let listener = Listener { watches: Arc::clone(self), id, changes };
        stream::unfold(listener, |mut listener| async move {
            // The sender lives as long as any listener.
            listener.changes.changed().await.ok()?;
            Some(((), listener))
        })
        .boxed()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut by_build = self.watches.by_build.lock().unwrap_or_else(PoisonError::into_inner);
        // The count still includes this one.
        if by_build.get(&self.id).is_some_and(|sender| sender.receiver_count() <= 1) {
            by_build.remove(&self.id);
        }
    }
}
