//! Requests and responses of [GOCACHEPROG](https://pkg.go.dev/cmd/go/internal/cacheprog): JSON values, with
//! the body of a `put` as a base64 JSON string after its request.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use crate::{CacheId, GoCacheError};

const MAX_REQUEST_BYTES: usize = 64 << 10;

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawRequest {
    #[serde(rename = "ID")]
    id: i64,
    command: String,
    #[serde(rename = "ActionID")]
    action: String,
    #[serde(rename = "OutputID")]
    output: String,
    body_size: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CacheRequest {
    pub(crate) id: i64,
    pub(crate) command: RequestCommand,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RequestCommand {
    Get {
        action: CacheId,
    },
    /// Followed by the body, unless empty.
    Put {
        action: CacheId,
        output: CacheId,
        size: u64,
    },
    Close,
    Unknown(String),
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CacheResponse {
    #[serde(rename = "ID")]
    pub(crate) id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) err: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) known_commands: Vec<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) miss: bool,
    #[serde(rename = "OutputID", skip_serializing_if = "String::is_empty")]
    pub(crate) output: String,
    pub(crate) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) time: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) disk_path: String,
}

pub(crate) fn base64(id: &CacheId) -> String {
    BASE64_STANDARD.encode(id)
}

/// Reads the next request; `None` at the end of the stream.
pub(crate) async fn request(
    from: &mut (impl AsyncBufRead + Unpin),
) -> Result<Option<CacheRequest>, GoCacheError> {
    let mut line = Vec::new();
    loop {
        let part = from.fill_buf().await?;
        if part.is_empty() {
            break;
        }
        let (taken, ended) = match part.iter().position(|byte| *byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (part.len(), false),
        };
        line.extend_from_slice(part.get(..taken).unwrap_or_default());
        from.consume(taken);
        if line.len() > MAX_REQUEST_BYTES {
            return Err(GoCacheError::Protocol("request is too long".to_owned()));
        }
        // The go command separates requests with empty lines.
        if ended && !line.trim_ascii().is_empty() {
            break;
        }
    }
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    parse(&line).map(Some)
}

fn parse(line: &[u8]) -> Result<CacheRequest, GoCacheError> {
    let RawRequest { id, command, action, output, body_size: size } =
        serde_json::from_slice(line).map_err(|error| GoCacheError::Protocol(error.to_string()))?;
    let digest = |text: &str| -> Result<CacheId, GoCacheError> {
        let bytes = BASE64_STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| GoCacheError::Protocol(format!("`{text}` is not a digest")))
    };
    let command = match command.as_str() {
        "get" => RequestCommand::Get { action: digest(&action)? },
        "put" => RequestCommand::Put { action: digest(&action)?, output: digest(&output)?, size },
        "close" => RequestCommand::Close,
        _ => RequestCommand::Unknown(command),
    };
    Ok(CacheRequest { id, command })
}

/// Reads a body in chunks.
pub(crate) async fn body(
    from: &mut (impl AsyncBufRead + Unpin),
    mut take: impl FnMut(&[u8]),
) -> Result<(), GoCacheError> {
    let mut started = false;
    // Base64 is decoded in groups of four; the rest is kept for the next chunk.
    let mut waiting = Vec::new();
    loop {
        let part = from.fill_buf().await?;
        if part.is_empty() {
            return Err(GoCacheError::Protocol("body ends early".to_owned()));
        }
        let mut rest = part;
        if !started {
            rest = rest.trim_ascii_start();
            match rest.split_first() {
                None => {}
                Some((b'"', after)) => (rest, started) = (after, true),
                Some(_) => return Err(GoCacheError::Protocol("body is not a string".to_owned())),
            }
        }
        let end = rest.iter().position(|byte| *byte == b'"');
        let text = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        waiting.extend_from_slice(text);
        let whole = if end.is_some() { waiting.len() } else { waiting.len() / 4 * 4 };
        let decoded = BASE64_STANDARD
            .decode(waiting.get(..whole).unwrap_or_default())
            .map_err(|error| GoCacheError::Protocol(format!("body is not base64: {error}")))?;
        waiting.drain(..whole);
        let consumed = match end {
            Some(end) => part.len() - rest.len() + end + 1,
            None => part.len(),
        };
        from.consume(consumed);
        take(&decoded);
        if end.is_some() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::BufReader;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn requests_and_bodies_come_in_any_pieces() {
        let (action, output) = ([1; 32], [2; 32]);
        let content: Vec<u8> = (0..1000u32).map(|number| number.to_le_bytes()[0]).collect();
        let text = format!(
            "{{\"ID\":1,\"Command\":\"get\",\"ActionID\":\"{}\"}}\n\n{{\"ID\":2,\"Command\":\"put\",\"ActionID\":\"{}\",\"OutputID\":\"{}\",\"BodySize\":1000}}\n\n\"{}\"\n{{\"ID\":3,\"Command\":\"close\"}}\n",
            base64(&action),
            base64(&action),
            base64(&output),
            BASE64_STANDARD.encode(&content)
        );
        for size in [1, 2, 3, 5, 64, 4096] {
            let mut from = BufReader::with_capacity(size, text.as_bytes());
            let mut received = Vec::new();
            let commands = runtime().block_on(async {
                let first = request(&mut from).await.unwrap().unwrap();
                let second = request(&mut from).await.unwrap().unwrap();
                body(&mut from, |piece| received.extend_from_slice(piece)).await.unwrap();
                let third = request(&mut from).await.unwrap().unwrap();
                assert_eq!(request(&mut from).await.unwrap(), None);
                [first.command, second.command, third.command]
            });
            assert_eq!(
                commands,
                [
                    RequestCommand::Get { action },
                    RequestCommand::Put { action, output, size: 1000 },
                    RequestCommand::Close
                ]
            );
            assert_eq!(received, content);
        }
    }

    proptest! {
        #[test]
        fn no_input_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..300), size in 1usize..64) {
            runtime().block_on(async {
                let mut from = BufReader::with_capacity(size, text.as_slice());
                while let Ok(Some(_)) = request(&mut from).await {
                    let _ = body(&mut from, |_| {}).await;
                }
            });
        }
    }
}
