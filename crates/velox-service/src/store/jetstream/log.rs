//! Build logs: a subject per build and a message per chunk, written by the lease holder only.
//!
//! A chunk names its predecessor, and each lease begins with an empty chunk: writes under an expired lease
//! conflict. The end of a log is read backwards.

use std::{collections::HashMap, sync::Mutex};

use async_nats::{HeaderMap, jetstream::message::StreamMessage};
use velox_api::{BuildId, LogEntry};

use super::{
    JetStreamState,
    nats::{PutResult, read},
    record::written,
};
use crate::store::{MAX_LOG_READ_BYTES, StoreError};

/// Header: the lease under which a chunk was written.
const LEASE: &str = "Vx-Lease";
/// Header: the number of the last entry.
const LAST: &str = "Vx-Last";
/// Header: the stream sequence of the previous chunk; 0: none.
const PREVIOUS: &str = "Vx-Previous";
/// The approximate maximum size of a chunk in bytes; NATS messages are limited to 1 MiB.
const MAX_CHUNK_BYTES: usize = 128 << 10;
/// The maximum length of a line in bytes.
const MAX_LINE_BYTES: usize = 64 << 10;
/// The number of builds with cached log positions.
const MAX_CACHED_BUILDS: usize = 4096;

/// The end of a log.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LogEnd {
    /// The stream sequence of the last chunk.
    chunk: u64,
    /// The number of the last entry.
    entry: u64,
}

impl LogEnd {
    fn of(message: &StreamMessage) -> Self {
        let entry = message.headers.get(LAST).and_then(|last| last.as_str().parse().ok());
        Self { chunk: message.sequence, entry: entry.unwrap_or_default() }
    }
}

/// The positions of the chunks that this node has read; chunks are immutable.
#[derive(Debug, Default)]
pub(super) struct LogPositions(Mutex<HashMap<BuildId, Vec<LogEnd>>>);

impl LogPositions {
    /// The sequence to read from for the entries after `after`.
    fn start(&self, id: BuildId, after: u64) -> u64 {
        let positions = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let ends = positions.get(&id).map(Vec::as_slice).unwrap_or_default();
        let at = ends.partition_point(|end| end.entry <= after);
        match (ends.get(at), at.checked_sub(1).and_then(|before| ends.get(before))) {
            (Some(chunk), _) => chunk.chunk,
            (None, Some(last)) => last.chunk + 1,
            (None, None) => 1,
        }
    }

    /// Records the end of the first chunk at or after `start`.
    fn add(&self, id: BuildId, start: u64, end: LogEnd) {
        let mut positions = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if positions.len() >= MAX_CACHED_BUILDS && !positions.contains_key(&id) {
            positions.clear();
        }
        let ends = positions.entry(id).or_default();
        // Another reader may have advanced, or the cache was cleared.
        if ends.last().map_or(1, |last| last.chunk + 1) == start {
            ends.push(end);
        }
    }
}

impl JetStreamState {
    /// Begins the log of a lease with an empty chunk.
    pub(super) async fn begin_log(&self, id: BuildId, lease: &str) -> Result<LogEnd, StoreError> {
        loop {
            let last = self.logs.read(&id.to_string()).await?.message;
            let end = last.as_ref().map(LogEnd::of).unwrap_or_default();
            if last.is_some_and(|message| is_of(&message, lease)) {
                return Ok(end);
            }
            if let PutResult::Done(chunk) = self.put_chunk(id, lease, &[], end).await? {
                return Ok(LogEnd { chunk, entry: end.entry });
            }
        }
    }

    /// Appends entries, split into chunks.
    pub(super) async fn append_log(
        &self,
        id: BuildId,
        lease: &str,
        mut entries: Vec<LogEntry>,
        end: &mut LogEnd,
    ) -> Result<(), StoreError> {
        for (entry, seq) in entries.iter_mut().zip(end.entry + 1..) {
            entry.seq = seq;
            if entry.text.len() > MAX_LINE_BYTES {
                entry.text.truncate(entry.text.floor_char_boundary(MAX_LINE_BYTES));
                entry.text.push('…');
            }
        }
        let mut rest = entries.as_slice();
        while !rest.is_empty() {
            let mut size = 0;
            let many = rest.iter().take_while(|entry| {
                size += entry.text.len() + 160;
                size <= MAX_CHUNK_BYTES
            });
            let (chunk, others) = rest.split_at(many.count().max(1));
            self.append_chunk(id, lease, chunk, end).await?;
            rest = others;
        }
        Ok(())
    }

    async fn append_chunk(
        &self,
        id: BuildId,
        lease: &str,
        chunk: &[LogEntry],
        end: &mut LogEnd,
    ) -> Result<(), StoreError> {
        let entry = end.entry + chunk.len() as u64;
        let put = self.put_chunk(id, lease, chunk, *end).await?;
        *end = match put.revision(&format!("the log of build {id}"))? {
            Some(chunk) => LogEnd { chunk, entry },
            // Another lease began, or the first attempt succeeded and its response was lost.
            None => {
                let last = self.logs.read(&id.to_string()).await?.message;
                let last = last.filter(|message| is_of(message, lease)).as_ref().map(LogEnd::of);
                last.filter(|last| last.entry == entry).ok_or(StoreError::LeaseExpired(id))?
            }
        };
        Ok(())
    }

    async fn put_chunk(
        &self,
        id: BuildId,
        lease: &str,
        entries: &[LogEntry],
        end: LogEnd,
    ) -> Result<PutResult, StoreError> {
        let mut headers = HeaderMap::new();
        headers.insert(LEASE, lease);
        headers.insert(LAST, (end.entry + entries.len() as u64).to_string());
        headers.insert(PREVIOUS, end.chunk.to_string());
        self.logs.put(&id.to_string(), written(&entries)?, &headers, end.chunk).await
    }

    /// The entries after `after`.
    pub(super) async fn read_log(
        &self,
        id: BuildId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        let mut entries: Vec<LogEntry> = Vec::new();
        let (mut start, mut size) = (self.positions.start(id, after), 0);
        let name = id.to_string();
        while entries.len() < limit
            && size < MAX_LOG_READ_BYTES
            && let Some(message) = self.logs.next(&name, start).await?
        {
            self.positions.add(id, start, LogEnd::of(&message));
            start = message.sequence + 1;
            size += message.payload.len();
            let chunk: Vec<LogEntry> = read(&message.payload)?;
            entries.extend(chunk.into_iter().filter(|entry| entry.seq > after));
        }
        entries.truncate(limit);
        Ok(entries)
    }

    /// The last entries, with about `bytes` of text.
    pub(super) async fn read_log_end(&self, id: BuildId, bytes: usize) -> Result<Vec<LogEntry>, StoreError> {
        let mut next = self.logs.read(&id.to_string()).await?.message;
        let (mut entries, mut size) = (Vec::new(), 0);
        while let Some(message) = next {
            let chunk: Vec<LogEntry> = read(&message.payload)?;
            for entry in chunk.into_iter().rev() {
                if size >= bytes {
                    break;
                }
                size += entry.text.len();
                entries.push(entry);
            }
            // Chunks of older versions have no such header.
            let previous = message.headers.get(PREVIOUS).and_then(|it| it.as_str().parse().ok());
            next = match previous {
                Some(previous @ 1..) if size < bytes => self.logs.at(previous).await?,
                _ => None,
            };
        }
        entries.reverse();
        Ok(entries)
    }
}

fn is_of(message: &StreamMessage, lease: &str) -> bool {
    message.headers.get(LEASE).is_some_and(|of| of.as_str() == lease)
}
