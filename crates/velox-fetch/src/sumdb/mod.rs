//! The checksum database (<https://go.dev/ref/mod#checksum-database>).

mod client;
mod config;
pub mod note;
pub mod tlog;

pub(crate) use self::config::ChecksumDatabase;
pub use self::{
    client::SumDbError,
    config::{ParseSumDbError, SumDbConfig},
    note::NoteError,
    tlog::TlogError,
};
