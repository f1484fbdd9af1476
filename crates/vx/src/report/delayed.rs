use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use velox_build::{BuildSummary, Event, Goal, Reporter};
use velox_manifest::Diagnostic;

use super::{Change, Report, threshold};
use crate::{settings::Verbosity, signals::Signal, status::ExitStatus};

/// Delays progress reports, which short builds don't need, but not warnings.
pub(crate) struct DelayedReport {
    inner: Arc<dyn Report>,
    state: Mutex<DelayState>,
}

enum DelayState {
    Buffering(Vec<Event>),
    Forwarding,
    /// The build finished before the delay.
    Silent,
}

impl DelayedReport {
    pub(crate) fn new(inner: Arc<dyn Report>, delay: Duration) -> Arc<Self> {
        let report = Arc::new(Self { inner, state: Mutex::new(DelayState::Buffering(Vec::new())) });
        if delay.is_zero() {
            report.forward();
            return report;
        }
        let weak = Arc::downgrade(&report);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            if let Some(report) = weak.upgrade() {
                report.forward();
            }
        });
        report
    }

    /// Locks the state until an event is written, so that events stay in order.
    fn state(&self) -> MutexGuard<'_, DelayState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forward(&self) {
        let mut state = self.state();
        if let DelayState::Buffering(events) = &mut *state {
            std::mem::take(events).into_iter().for_each(|event| self.inner.report(event));
            *state = DelayState::Forwarding;
        }
    }
}

impl Reporter for DelayedReport {
    fn report(&self, event: Event) {
        match &mut *self.state() {
            DelayState::Buffering(events) if threshold(&event) > Verbosity::Warnings => events.push(event),
            _ => self.inner.report(event),
        }
    }
}

impl Report for DelayedReport {
    fn interrupted(&self, signal: Signal) {
        self.inner.interrupted(signal);
    }

    fn clear(&self) {
        self.inner.clear();
    }

    fn edited(&self, file: &Path, changes: &[Change]) -> io::Result<()> {
        self.inner.edited(file, changes)
    }

    fn failed(&self, status: ExitStatus, diagnostics: &[Diagnostic], output: &[String]) {
        *self.state() = DelayState::Silent;
        self.inner.failed(status, diagnostics, output);
    }

    fn finished(&self, goal: &Goal, summary: &BuildSummary, elapsed: Duration) -> io::Result<()> {
        match std::mem::replace(&mut *self.state(), DelayState::Silent) {
            DelayState::Forwarding => self.inner.finished(goal, summary, elapsed),
            DelayState::Buffering(_) | DelayState::Silent => Ok(()),
        }
    }
}
