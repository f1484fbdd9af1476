//! For tests, the demo and benchmarks: what `vx` talks to, on localhost, over real git repositories.
//!
//! Everything is blocking to use, listens on 127.0.0.1 only, and is gone when it is dropped.

mod forge;
mod localhost;
mod repo;
mod tls;

pub use forge::{Fault, FaultRule, RecordedRequest, TestForge};
pub use repo::{FIRST_COMMIT, Repo};
pub use tls::Internet;

mod nats;
mod oracle;
mod osv;
mod plugin;
mod proxy;
mod roadrunner;
mod s3;
mod server;
mod sshd;
mod sumdb;
pub mod worker;

pub use nats::NatsServer;
pub use oracle::GoOracle;
pub use osv::Osv;
pub use plugin::{Files, PluginModule, plugin};
pub use proxy::{Fault as ProxyFault, ModuleProxy};
pub use roadrunner::{RoadRunnerTree, roadrunner};
pub use s3::S3Server;
pub use server::RunningRoadRunner;
pub use sshd::Sshd;
