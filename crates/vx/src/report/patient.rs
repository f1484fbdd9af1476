use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use velox_build::{BuildSummary, Event, Goal, Reporter};

use super::{Change, Failure, Report, threshold};
use crate::{settings::Verbosity, signals::Signal};

/// Tells of a build only once it takes long, then all of it; warnings at once. For a build that is a means to an end.
pub(crate) struct Patient {
    inner: Arc<dyn Report>,
    held: Mutex<Option<Vec<Event>>>,
    /// Set where nothing is told any more.
    over: AtomicBool,
}

impl Patient {
    /// Holds back what is for `inner`, at most for this time.
    pub(crate) fn new(inner: Arc<dyn Report>, patience: Duration) -> Arc<Self> {
        let patient = Arc::new(Self {
            inner,
            held: Mutex::new((!patience.is_zero()).then(Vec::new)),
            over: AtomicBool::new(false),
        });
        let late = Arc::downgrade(&patient);
        tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            if let Some(patient) = late.upgrade() {
                patient.tell();
            }
        });
        patient
    }

    fn tell(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if self.over.load(Ordering::Relaxed) {
            return;
        }
        for event in held.take().into_iter().flatten() {
            self.inner.report(event);
        }
    }
}

impl Reporter for Patient {
    fn report(&self, event: Event) {
        // Held until the event is told too, so that none overtakes another.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *held {
            Some(events) if threshold(&event) > Verbosity::Warnings => events.push(event),
            _ => self.inner.report(event),
        }
    }
}

impl Report for Patient {
    fn interrupted(&self, signal: Signal) {
        self.inner.interrupted(signal);
    }

    fn answered(&self) {
        self.inner.answered();
    }

    fn edited(&self, file: &Path, changes: &[Change]) -> io::Result<()> {
        self.inner.edited(file, changes)
    }

    fn failed(&self, failure: &Failure<'_>) {
        self.over.store(true, Ordering::Relaxed);
        self.inner.failed(failure);
    }

    fn finished(&self, goal: &Goal, summary: &BuildSummary, elapsed: Duration) -> io::Result<()> {
        self.over.store(true, Ordering::Relaxed);
        let told = self.held.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        if told { self.inner.finished(goal, summary, elapsed) } else { Ok(()) }
    }
}
