//! The pipeline from a manifest to a RoadRunner binary.
//!
//! ```text
//! Manifest ──resolve──► Lock ──prepare──► Workspace ──compile──► Artifact ──publish──► DIR/rr
//! ```
//!
//! [`build`] runs it all; progress comes through a [`Reporter`]. Nothing here prints, exits or reads the process
//! environment: a [`Request`] brings everything, and what happened comes back as a [`Summary`] or an [`Error`].

mod error;
mod event;
mod request;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use error::{Error, ErrorKind};
pub use event::{Binary, Event, Note, Phase, PluginRow, Raised, Reporter, Summary};
pub use request::{Options, Output, Request};

/// Builds what `request` asks for.
///
/// Cancelling `cancel` ends the children with their process groups, removes what was half made, and gives
/// [`ErrorKind::Interrupted`].
///
/// # Errors
/// An [`Error`] whose diagnostics say what was asked, what happened and what to do.
pub async fn build(
    _request: &Request,
    _reporter: Arc<dyn Reporter>,
    _cancel: CancellationToken,
) -> Result<Summary, Error> {
    unimplemented!()
}
