//! NATS requests with retries. Writes are retried safely, since each names the revision that it replaces.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{
        self, ErrorCode,
        consumer::{DeliverPolicy, push::OrderedConfig},
        context::{PublishError, PublishErrorKind},
        message::{PublishMessage, StreamMessage},
        stream::{LastRawMessageError, LastRawMessageErrorKind, Stream},
    },
};
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use crate::store::StoreError;

/// The timeout of a request.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// How long requests to an unavailable server are retried.
pub(super) const RETRY_TIMEOUT: Duration = Duration::from_secs(20);
/// The headers of removed keys in NATS key-value stores.
const OPERATION: &str = "KV-Operation";
const ROLLUP: &str = "Nats-Rollup";

/// An error, and whether a retry may succeed.
#[derive(Debug)]
pub(super) struct NatsError {
    pub(super) why: String,
    pub(super) again: bool,
}

impl NatsError {
    pub(super) fn again(why: impl ToString) -> Self {
        Self { why: why.to_string(), again: true }
    }
}

/// Retries until success, a permanent error or the timeout.
pub(super) async fn retry<T, A: Future<Output = Result<T, NatsError>>>(
    what: &str,
    mut attempt: impl FnMut() -> A,
) -> Result<T, StoreError> {
    let since = Instant::now();
    let mut pause = Duration::from_millis(50);
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(NatsError { again: true, .. }) if since.elapsed() < RETRY_TIMEOUT => {
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
            Err(trouble) => {
                return Err(StoreError::Failed(format!("failed to {what}: {}", trouble.why)));
            }
        }
    }
}

/// The last message of a subject.
#[derive(Debug)]
pub(super) struct LastMessage {
    /// 0: the subject has no message.
    pub(super) revision: u64,
    pub(super) at: Timestamp,
    /// `None`: there is no message, or a tombstone.
    pub(super) message: Option<StreamMessage>,
}

impl LastMessage {
    pub(super) fn is_tombstone(&self) -> bool {
        self.revision > 0 && self.message.is_none()
    }

    /// Parses the payload.
    pub(super) fn value<T: DeserializeOwned>(&self) -> Result<Option<T>, StoreError> {
        self.message.as_ref().map(|message| read(&message.payload)).transpose()
    }
}

/// The last message of a subject, without its payload.
#[derive(Debug)]
pub(super) struct MessageHead {
    pub(super) name: String,
    pub(super) revision: u64,
    pub(super) at: Timestamp,
    pub(super) headers: HeaderMap,
}

/// The result of a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PutResult {
    /// Written with this revision.
    Done(u64),
    /// The revision changed: by another writer, or by an earlier attempt of the same write.
    Conflict,
    /// The stream is full.
    Full,
    /// The message exceeds the server's `max_payload`.
    TooLarge,
}

impl PutResult {
    /// The revision, or `None` after a conflict. `what` was written.
    pub(super) fn revision(self, what: &str) -> Result<Option<u64>, StoreError> {
        match self {
            Self::Done(revision) => Ok(Some(revision)),
            Self::Conflict => Ok(None),
            Self::Full | Self::TooLarge => {
                Err(StoreError::Failed(format!("NATS rejected {what}: check its limits")))
            }
        }
    }
}

/// A stream accessed by the last message of each subject: a key-value bucket, the jobs or the logs.
#[derive(Debug, Clone)]
pub(super) struct SubjectStore {
    pub(super) stream: Stream,
    pub(super) context: jetstream::Context,
    pub(super) prefix: String,
}

impl SubjectStore {
    pub(super) fn subject(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The part of a subject after the prefix.
    pub(super) fn name<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(self.prefix.as_str())
    }

    /// Reads the last message from the stream's leader, which has all acknowledged writes.
    pub(super) async fn read(&self, name: &str) -> Result<LastMessage, StoreError> {
        let subject = self.subject(name);
        let kept = retry("read from NATS", || async {
            unless_missing(self.stream.get_last_raw_message_by_subject(&subject).await)
        })
        .await?;
        let (revision, at) = kept
            .as_ref()
            .map_or((0, Timestamp::MIN), |message| (message.sequence, when(message.time.unix_timestamp())));
        Ok(LastMessage { revision, at, message: kept.filter(|message| !is_removal(&message.headers)) })
    }

    /// The first message of the subject at or after `sequence`.
    pub(super) async fn next(&self, name: &str, sequence: u64) -> Result<Option<StreamMessage>, StoreError> {
        let subject = self.subject(name);
        retry("read from NATS", || async {
            unless_missing(self.stream.get_first_raw_message_by_subject(&subject, sequence).await)
        })
        .await
    }

    /// The message with this sequence, if it was not removed.
    pub(super) async fn at(&self, sequence: u64) -> Result<Option<StreamMessage>, StoreError> {
        retry("read from NATS", || async { unless_missing(self.stream.get_raw_message(sequence).await) })
            .await
    }

    /// Writes if the last message of the subject has this revision (0: no message).
    pub(super) async fn put(
        &self,
        name: &str,
        value: Bytes,
        headers: &HeaderMap,
        expected: u64,
    ) -> Result<PutResult, StoreError> {
        let subject = self.subject(name);
        retry("write to NATS", || async {
            let message = PublishMessage::build()
                .payload(value.clone())
                .headers(headers.clone())
                .expected_last_subject_sequence(expected);
            let sent = async { self.context.send_publish(subject.clone(), message).await?.await };
            match sent.await {
                Ok(ack) => Ok(PutResult::Done(ack.sequence)),
                Err(error) => put_result(&error),
            }
        })
        .await
    }

    /// A consumer of headers only.
    pub(super) fn heads_from(&self, deliver_policy: DeliverPolicy) -> OrderedConfig {
        OrderedConfig {
            deliver_subject: self.context.client().new_inbox(),
            filter_subject: self.subject(">"),
            deliver_policy,
            headers_only: true,
            ..OrderedConfig::default()
        }
    }

    /// The last message of each subject, without payloads.
    pub(super) async fn heads(&self) -> Result<Vec<MessageHead>, StoreError> {
        retry("list messages in NATS", || async {
            let config = self.heads_from(DeliverPolicy::LastPerSubject);
            let consumer = self.stream.create_consumer(config).await.map_err(NatsError::again)?;
            let mut left = consumer.cached_info().num_pending;
            let mut messages = consumer.messages().await.map_err(NatsError::again)?;
            let mut heads = Vec::new();
            while left > 0 {
                let next = timeout(REQUEST_TIMEOUT, messages.next()).await.map_err(NatsError::again)?;
                let message = next
                    .ok_or_else(|| NatsError::again("the stream ended early"))?
                    .map_err(NatsError::again)?;
                let info = message.info().map_err(NatsError::again)?;
                left = info.pending;
                heads.extend(self.name(&message.subject).map(|name| MessageHead {
                    name: name.to_owned(),
                    revision: info.stream_sequence,
                    at: when(info.published.unix_timestamp()),
                    headers: message.headers.clone().unwrap_or_default(),
                }));
            }
            Ok(heads)
        })
        .await
    }

    /// Removes all messages of a subject up to this sequence, without a tombstone.
    pub(super) async fn purge(&self, name: &str, last: u64) -> Result<(), StoreError> {
        let subject = self.subject(name);
        retry("purge a subject in NATS", || async {
            let purge = self.stream.purge().filter(&subject).sequence(last.saturating_add(1));
            purge.await.map(drop).map_err(NatsError::again)
        })
        .await
    }

    /// Replaces the message of this revision with a tombstone.
    pub(super) async fn remove(&self, name: &str, expected: u64) -> Result<PutResult, StoreError> {
        let mut headers = HeaderMap::new();
        headers.insert(OPERATION, "PURGE");
        headers.insert(ROLLUP, "sub");
        self.put(name, Bytes::new(), &headers, expected).await
    }
}

/// Whether a message is a tombstone.
pub(super) fn is_removal(headers: &HeaderMap) -> bool {
    headers.get(OPERATION).is_some_and(|operation| operation.as_str() != "PUT")
}

/// Converts seconds since 1970.
pub(super) fn when(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::MIN)
}

fn unless_missing(
    read: Result<StreamMessage, LastRawMessageError>,
) -> Result<Option<StreamMessage>, NatsError> {
    match read {
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        read => read.map(Some).map_err(|error| NatsError {
            again: error.kind() != LastRawMessageErrorKind::InvalidSubject,
            why: error.to_string(),
        }),
    }
}

pub(super) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(text)
        .map_err(|error| StoreError::Failed(format!("NATS has a record that can't be read: {error}")))
}

fn put_result(error: &PublishError) -> Result<PutResult, NatsError> {
    // Also returned for other reasons than a full stream, which says "maximum messages exceeded".
    let is_full = |refused: &jetstream::Error| {
        refused.error_code() == ErrorCode::STREAM_STORE_FAILED && refused.to_string().contains("maximum")
    };
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    match error.kind() {
        PublishErrorKind::WrongLastSequence => Ok(PutResult::Conflict),
        PublishErrorKind::MaxPayloadExceeded => Ok(PutResult::TooLarge),
        PublishErrorKind::Other if source.is_some_and(is_full) => Ok(PutResult::Full),
        _ => Err(NatsError::again(error)),
    }
}
