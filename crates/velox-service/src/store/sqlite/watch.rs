//! Who wants to hear of which build.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt as _, stream, stream::BoxStream};
use tokio::sync::watch;

use velox_api::BuildId;

/// Who wants to hear of which build.
#[derive(Default)]
pub(super) struct Watches {
    by_build: Mutex<HashMap<BuildId, watch::Sender<()>>>,
}

/// One who listens.
struct Listener {
    watches: Arc<Watches>,
    id: BuildId,
    changes: watch::Receiver<()>,
}

impl Watches {
    /// Tells all who listen for this build.
    pub(super) fn tell(&self, id: BuildId) {
        let by_build = self.by_build.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = by_build.get(&id) {
            sender.send_replace(());
        }
    }

    /// An item at once, and then whenever [`Watches::tell`] is called.
    pub(super) fn listen(self: &Arc<Self>, id: BuildId) -> BoxStream<'static, ()> {
        let mut changes = {
            let mut by_build = self.by_build.lock().unwrap_or_else(PoisonError::into_inner);
            by_build.entry(id).or_insert_with(|| watch::Sender::new(())).subscribe()
        };
        changes.mark_changed();
        let listener = Listener { watches: Arc::clone(self), id, changes };
        stream::unfold(listener, |mut listener| async move {
            // The sender lives as long as there is a listener.
            listener.changes.changed().await.ok()?;
            Some(((), listener))
        })
        .boxed()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut by_build = self.watches.by_build.lock().unwrap_or_else(PoisonError::into_inner);
        // This one counts still.
        if by_build.get(&self.id).is_some_and(|sender| sender.receiver_count() <= 1) {
            by_build.remove(&self.id);
        }
    }
}
