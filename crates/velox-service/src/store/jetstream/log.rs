//! The logs: a subject for each build, a message for each piece, written by the holder of the lease alone.
//!
//! A piece names the one that it follows, and each lease begins with an empty one: what a worker sends whose lease is over
//! follows nothing any more.

use std::{collections::HashMap, sync::Mutex};

use async_nats::{HeaderMap, jetstream::message::StreamMessage};
use velox_api::{BuildId, LogEntry};

use super::{
    JetStreamState,
    nats::{LastMessage, PutResult},
    record::{read, written},
};
use crate::store::StoreError;

/// The lease under which a piece was written.
const LEASE: &str = "Vx-Lease";
/// The number of the last entry up to here.
const LAST: &str = "Vx-Last";
/// A piece is no larger than about that, in bytes: a message may have 1 MiB.
const PIECE: usize = 128 << 10;
/// A line is cut there, in bytes.
const LINE: usize = 64 << 10;
/// Of so many builds the places in their logs are remembered.
const BUILDS: usize = 4096;

/// Where a log ends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LogEnd {
    /// The sequence of its last piece in the stream.
    piece: u64,
    /// The number of its last entry.
    entry: u64,
}

impl LogEnd {
    fn of(message: &StreamMessage) -> Self {
        let entry = message.headers.get(LAST).and_then(|last| last.as_str().parse().ok());
        Self { piece: message.sequence, entry: entry.unwrap_or_default() }
    }
}

/// Where the pieces of logs are that this node has read; a piece never changes.
#[derive(Debug, Default)]
pub(super) struct LogPositions(Mutex<HashMap<BuildId, Vec<LogEnd>>>);

impl LogPositions {
    /// The sequence from which to read for what follows the entry `after`.
    fn start(&self, id: BuildId, after: u64) -> u64 {
        let positions = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let ends = positions.get(&id).map(Vec::as_slice).unwrap_or_default();
        let at = ends.partition_point(|end| end.entry <= after);
        match (ends.get(at), at.checked_sub(1).and_then(|before| ends.get(before))) {
            (Some(piece), _) => piece.piece,
            (None, Some(last)) => last.piece + 1,
            (None, None) => 1,
        }
    }

    /// The first piece that isn't before `start` ends there.
    fn add(&self, id: BuildId, start: u64, end: LogEnd) {
        let mut positions = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if positions.len() >= BUILDS && !positions.contains_key(&id) {
            positions.clear();
        }
        let ends = positions.entry(id).or_default();
        // Others may have read further meanwhile, or all was forgotten.
        if ends.last().map_or(1, |last| last.piece + 1) == start {
            ends.push(end);
        }
    }
}

impl JetStreamState {
    /// Begins the part of a log that belongs to a lease.
    pub(super) async fn begin_log(&self, id: BuildId, lease: &str) -> Result<LogEnd, StoreError> {
        loop {
            let end = match self.logs.read(&id.to_string()).await? {
                LastMessage::There(message) => {
                    let end = LogEnd::of(&message);
                    if is_of(&message, lease) {
                        return Ok(end);
                    }
                    end
                }
                LastMessage::Absent | LastMessage::Removed { .. } => LogEnd::default(),
            };
            if let PutResult::Done(piece) = self.put_piece(id, lease, &[], end).await? {
                return Ok(LogEnd { piece, entry: end.entry });
            }
        }
    }

    /// Adds to the end of a log.
    pub(super) async fn append_log(
        &self,
        id: BuildId,
        lease: &str,
        mut entries: Vec<LogEntry>,
        end: &mut LogEnd,
    ) -> Result<(), StoreError> {
        for (entry, seq) in entries.iter_mut().zip(end.entry + 1..) {
            entry.seq = seq;
            if entry.text.len() > LINE {
                entry.text.truncate(entry.text.floor_char_boundary(LINE));
                entry.text.push('…');
            }
        }
        let mut rest = entries.as_slice();
        while !rest.is_empty() {
            let mut size = 0;
            let many = rest.iter().take_while(|entry| {
                size += entry.text.len() + 160;
                size <= PIECE
            });
            let (piece, others) = rest.split_at(many.count().max(1));
            self.append_piece(id, lease, piece, end).await?;
            rest = others;
        }
        Ok(())
    }

    async fn append_piece(
        &self,
        id: BuildId,
        lease: &str,
        piece: &[LogEntry],
        end: &mut LogEnd,
    ) -> Result<(), StoreError> {
        let entry = end.entry + piece.len() as u64;
        match self.put_piece(id, lease, piece, *end).await? {
            PutResult::Done(sequence) => {
                *end = LogEnd { piece: sequence, entry };
                Ok(())
            }
            // Another lease began, or it was kept the first time and the answer was lost.
            PutResult::Conflict => match self.logs.read(&id.to_string()).await? {
                LastMessage::There(message)
                    if is_of(&message, lease) && LogEnd::of(&message).entry == entry =>
                {
                    *end = LogEnd::of(&message);
                    Ok(())
                }
                _ => Err(StoreError::LeaseExpired(id)),
            },
            PutResult::Full | PutResult::TooLarge => {
                Err(StoreError::Failed(format!("NATS takes no more of the log of build {id}")))
            }
        }
    }

    async fn put_piece(
        &self,
        id: BuildId,
        lease: &str,
        entries: &[LogEntry],
        end: LogEnd,
    ) -> Result<PutResult, StoreError> {
        let mut headers = HeaderMap::new();
        headers.insert(LEASE, lease);
        headers.insert(LAST, (end.entry + entries.len() as u64).to_string());
        self.logs.put(&id.to_string(), written(&entries)?, &headers, end.piece).await
    }

    /// The entries after `after`.
    pub(super) async fn read_log(
        &self,
        id: BuildId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        let mut entries: Vec<LogEntry> = Vec::new();
        let mut start = self.positions.start(id, after);
        let name = id.to_string();
        while entries.len() < limit
            && let Some(message) = self.logs.next(&name, start).await?
        {
            self.positions.add(id, start, LogEnd::of(&message));
            start = message.sequence + 1;
            let piece: Vec<LogEntry> = read(&message.payload)?;
            entries.extend(piece.into_iter().filter(|entry| entry.seq > after));
        }
        entries.truncate(limit);
        Ok(entries)
    }
}

fn is_of(message: &StreamMessage, lease: &str) -> bool {
    message.headers.get(LEASE).is_some_and(|of| of.as_str() == lease)
}
