//! Keys of signatures.

pub(crate) mod signing;
pub(crate) mod verifying;
