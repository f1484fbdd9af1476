//! Services that `vx` talks to, on localhost, over real git repositories, for tests, the demo and benchmarks.
//!
//! All fixtures have a blocking interface, listen on 127.0.0.1 only, and stop when dropped. Fixtures with
//! dependencies that only tests need are behind the features `nats`, `s3` and `tls`.

#[cfg(feature = "tls")]
mod authority;
mod fault;
mod forge;
mod http;
mod localhost;
#[cfg(feature = "nats")]
mod nats;
mod oracle;
mod plugin;
mod proxy;
mod registry;
mod repo;
mod roadrunner;
#[cfg(feature = "s3")]
mod s3;
mod server;
mod sshd;
mod sumdb;
#[cfg(feature = "tls")]
mod tls;
pub mod worker;

pub use fault::{Fault, FaultRule};
pub use forge::{RecordedRequest, TestForge};
#[cfg(feature = "nats")]
pub use nats::NatsServer;
pub use oracle::GoOracle;
pub use plugin::{Files, PluginModule, plugin};
pub use proxy::ModuleProxy;
pub use registry::TestRegistry;
pub use repo::{FIRST_COMMIT, Repo};
pub use roadrunner::{RoadRunnerTree, roadrunner, roadrunner_with};
#[cfg(feature = "s3")]
pub use s3::S3Server;
pub use server::RunningRoadRunner;
pub use sshd::Sshd;
#[cfg(feature = "tls")]
pub use tls::Internet;
