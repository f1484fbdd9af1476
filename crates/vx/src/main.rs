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
mod exit;
#[cfg(test)]
mod packaging;
mod panics;
#[cfg(test)]
mod reference;
mod report;
mod settings;
mod signals;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use clap::Parser;

use crate::{
    cli::{Cli, Command},
    exit::Ending,
    settings::Settings,
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
            Command::Build(arguments) => commands::build(settings, *arguments).await,
            Command::Run(arguments) => commands::run(settings, *arguments).await,
            Command::Lock(arguments) => commands::lock(settings, *arguments).await,
            Command::Fetch(arguments) => commands::fetch(settings, *arguments).await,
            Command::Doctor(server) => commands::doctor(settings, server).await,
            Command::New { command } => commands::new(&settings, command),
            Command::Init(arguments) => commands::init(settings, *arguments).await,
            Command::Add(arguments) => commands::add(settings, *arguments).await,
            Command::Remove(arguments) => commands::remove(settings, *arguments).await,
            Command::Update(arguments) => commands::update(settings, *arguments).await,
            Command::Outdated(arguments) => commands::outdated(settings, *arguments).await,
            Command::Migrate(arguments) => commands::migrate(settings, *arguments).await,
            Command::Search(arguments) => commands::search(&settings, &arguments),
            Command::List(arguments) => commands::list(settings, *arguments).await,
            Command::Why(arguments) => commands::why(settings, *arguments).await,
            Command::Tree(arguments) => commands::tree(settings, *arguments).await,
            Command::Inspect(arguments) => commands::inspect(&settings, &arguments),
            Command::Check(arguments) => commands::check(settings, *arguments).await,
            Command::Server(arguments) => commands::server(settings, *arguments).await,
            Command::Worker(arguments) => commands::worker(settings, *arguments).await,
            Command::Cache { command } => commands::cache(&settings, &command),
            Command::CompileCache => commands::compile_cache(settings).await,
            Command::Job => commands::job(settings).await,
            Command::Completions { shell } => commands::completions(shell),
            Command::Man { directory } => commands::man(directory.as_deref()),
            Command::Schema => commands::schema(),
            Command::Version => commands::version(&settings).await,
        }
    });
    // A read of the standard input that nobody needs any more must not hold the exit up.
    runtime.shutdown_background();
    code
}
