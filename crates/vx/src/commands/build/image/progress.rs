use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use velox_build::{Event, Note, Phase, Reporter};
use velox_oci::{Descriptor, RegistryEvent};

/// Reports the progress of transfers as events of a phase.
pub(super) struct ImageProgress {
    reporter: Arc<dyn Reporter>,
    is_push: AtomicBool,
    done: AtomicU64,
    total: AtomicU64,
    bytes: AtomicU64,
}

impl ImageProgress {
    pub(super) fn new(reporter: Arc<dyn Reporter>) -> Self {
        let (done, total, bytes) = Default::default();
        Self { reporter, is_push: false.into(), done, total, bytes }
    }

    pub(super) fn start(&self, phase: Phase) -> Instant {
        self.is_push.store(phase == Phase::Push, Ordering::Relaxed);
        for counter in [&self.done, &self.total, &self.bytes] {
            counter.store(0, Ordering::Relaxed);
        }
        self.reporter.report(Event::Started(phase));
        Instant::now()
    }

    pub(super) fn finish(&self, phase: Phase, started: Instant) {
        self.reporter.report(Event::Finished(phase, started.elapsed()));
    }

    pub(super) fn expect(&self, blobs: u64) {
        self.total.fetch_add(blobs, Ordering::Relaxed);
    }

    pub(super) fn blob(&self, blob: &Descriptor) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.progress(blob.digest.as_str());
    }

    fn progress(&self, item: &str) {
        let total = self.total.load(Ordering::Relaxed);
        if total == 0 {
            return;
        }
        self.reporter.report(Event::Progress {
            phase: if self.is_push.load(Ordering::Relaxed) { Phase::Push } else { Phase::Image },
            done: self.done.load(Ordering::Relaxed),
            total: Some(total),
            item: item.to_owned(),
            bytes: Some(self.bytes.load(Ordering::Relaxed)),
        });
    }

    pub(super) fn registry(&self, event: RegistryEvent<'_>) {
        let (digest, bytes) = match event {
            RegistryEvent::RateLimited { host, seconds } => {
                let host = host.to_owned();
                return self.reporter.report(Event::Note(Note::RateLimitWait { host, seconds }));
            }
            RegistryEvent::Transferred { digest, bytes } => (digest, bytes),
        };
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // An event for each MiB is enough.
        if before >> 20 != (before + bytes) >> 20 {
            self.progress(digest.as_str());
        }
    }
}
