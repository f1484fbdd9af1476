//! A checksum database client (<https://go.dev/ref/mod#checksum-database>).

mod client;
mod config;
mod database;
pub mod note;
pub mod tlog;

pub(crate) use self::database::ChecksumDatabase;
pub use self::{
    client::{ClientOps, IoError, SumDbClient, SumDbError},
    config::{ParseSumDbError, SumDbConfig},
};
