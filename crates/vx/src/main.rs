//! `vx`: builds your own RoadRunner server from a `velox.toml`.
//!
//! The program holds arguments, progress, colours and exit codes; all that makes a binary is in `velox-build`.
//!
//! | exit code | meaning                                                              |
//! |-----------|----------------------------------------------------------------------|
//! | 0         | done                                                                 |
//! | 1         | the build failed (or vx itself did), or a check found errors         |
//! | 2         | the command line or the configuration is wrong                       |
//! | 130, 143  | ended by Ctrl-C (SIGINT), by SIGTERM, after everything was cleaned up |

mod cli;
mod commands;
mod configuration;
#[cfg(test)]
mod packaging;
mod panics;
#[cfg(test)]
mod reference;
mod report;
mod settings;
mod signals;
mod status;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use clap::Parser;

use crate::{
    cli::{Cli, Command},
    settings::Settings,
    status::Ending,
};

/// The system's allocator keeps what each thread once needed: with threads that hash and unpack modules in turn, that is
/// three times as much.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    panics::install();
    // The hook has told the user by then; what is left is the exit code, where Rust's own would be 101.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Ending::Build.into())
}

fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // A reader that left early (`vx help | head`) is no failure.
            let _ = usage.print();
            return if usage.use_stderr() { Ending::Configuration.into() } else { ExitCode::SUCCESS };
        }
    };
    let settings = Settings::new(&cli.global);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return report::complain(&format!("can't start: {error}")),
    };
    let code = runtime.block_on(async {
        match cli.command {
            Command::Build(arguments) => commands::build::build::build(settings, *arguments).await,
            Command::Run(arguments) => commands::build::run::run(settings, *arguments).await,
            Command::Lock(arguments) => commands::build::build::lock(settings, *arguments).await,
            Command::Fetch(arguments) => commands::build::build::fetch(settings, *arguments).await,
            Command::Doctor(server) => commands::query::doctor::doctor(settings, server).await,
            Command::New { command } => commands::edit::new::new(&settings, command),
            Command::Init(arguments) => commands::edit::init::init(settings, *arguments).await,
            Command::Add(arguments) => commands::edit::add::add(settings, *arguments).await,
            Command::Remove(arguments) => commands::edit::remove::remove(settings, *arguments).await,
            Command::Update(arguments) => commands::edit::update::update(settings, *arguments).await,
            Command::Outdated(arguments) => commands::query::outdated::outdated(settings, *arguments).await,
            Command::Migrate(arguments) => commands::edit::migrate::migrate(settings, *arguments).await,
            Command::Search(arguments) => commands::query::search::search(&settings, &arguments),
            Command::List(arguments) => commands::query::list::list(settings, *arguments).await,
            Command::Why(arguments) => commands::query::why::why(settings, *arguments).await,
            Command::Tree(arguments) => commands::query::tree::tree(settings, *arguments).await,
            Command::Inspect(arguments) => commands::query::inspect::inspect(&settings, &arguments),
            Command::Check(arguments) => commands::query::check::check(settings, *arguments).await,
            Command::Server(arguments) => commands::service::server::server(settings, *arguments).await,
            Command::Worker(arguments) => commands::service::worker::worker(settings, *arguments).await,
            Command::Cache { command } => commands::build::cache::cache(&settings, &command),
            Command::CompileCache => commands::build::cache::compile_cache(settings).await,
            Command::Job => commands::service::job::job(settings).await,
            Command::Completions { shell } => commands::shell::completions(shell),
            Command::Man { directory } => commands::shell::man(directory.as_deref()),
            Command::Schema => commands::shell::schema(),
            Command::Version => commands::version::version(&settings).await,
        }
    });
    // A read of the standard input that nobody needs any more must not hold the exit up.
    runtime.shutdown_background();
    code
}
