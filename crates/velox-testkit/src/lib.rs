//! For tests, the demo and benchmarks: what `vx` talks to, on localhost, over real git repositories.
//!
//! Everything is blocking to use, listens on 127.0.0.1 only, and is gone when it is dropped.

mod repo;

pub use repo::{FIRST_COMMIT, Repo};
