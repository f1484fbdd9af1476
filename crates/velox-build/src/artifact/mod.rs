//! Compiled binaries: their build record, the store, and the output directory.

pub(crate) mod archive;
mod copies;
pub(crate) mod installed;
pub(crate) mod publish;
pub(crate) mod record;
pub(crate) mod store;
