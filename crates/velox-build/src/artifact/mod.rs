//! Compiled binaries: their build record, the store that keeps them, and how they get to the output directory.

pub(crate) mod archive;
pub(crate) mod publish;
pub(crate) mod record;
pub(crate) mod store;
