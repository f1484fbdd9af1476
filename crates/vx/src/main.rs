//! `vx`: builds custom RoadRunner binaries from a `velox.toml`.
//!
//! This crate is the command line: arguments, output and exit codes. `velox-build` is the builder.

mod cli;
mod commands;
mod config_file;
mod environment;
mod panics;
mod report;
mod settings;
mod signals;
mod status;
#[cfg(all(test, feature = "service"))]
mod tests;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

#[cfg(feature = "service")]
use crate::commands::service;
#[cfg(not(feature = "service"))]
use crate::commands::service_disabled;
use crate::{
    cli::{Cli, CliCommand, completion},
    commands::{build, edit, query, shell, version},
    settings::Settings,
    status::{CommandResult, ExitStatus},
};

/// The system allocator keeps freed memory per thread, which triples the memory of the service.
#[cfg(all(feature = "service", target_os = "linux", target_pointer_width = "64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    panics::install();
    completion::answer();
    let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(ExitStatus::Failure));
    result.map_or_else(Into::into, |()| ExitCode::SUCCESS)
}

fn run() -> CommandResult {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(usage) => {
            // A closed pipe (`vx help | head`) is not an error.
            let _ = usage.print();
            return if usage.use_stderr() { Err(ExitStatus::Configuration) } else { Ok(()) };
        }
    };
    let settings = Settings::new(&cli.global);
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| report::complain(&format!("failed to start the async runtime: {error}")))?;
    let result = runtime.block_on(dispatch(settings, cli.command));
    // A pending read of stdin must not delay the exit.
    runtime.shutdown_background();
    result
}

async fn dispatch(settings: Settings, command: CliCommand) -> CommandResult {
    match command {
        CliCommand::Build(arguments) if arguments.watch => build::watch::build(settings, *arguments).await,
        CliCommand::Build(arguments) => build::build::build(settings, *arguments).await,
        CliCommand::Run(arguments) if arguments.watch => build::watch::run(settings, *arguments).await,
        CliCommand::Run(arguments) => build::run::run(settings, *arguments).await,
        CliCommand::Lock(arguments) => build::lock::lock(settings, *arguments).await,
        CliCommand::Fetch(arguments) => build::fetch::fetch(settings, *arguments).await,
        CliCommand::Verify(arguments) => build::verify::verify(settings, *arguments).await,
        CliCommand::Bisect(arguments) => build::bisect::bisect(settings, *arguments).await,
        CliCommand::Cache { command } => build::cache::cache(settings, command).await,
        CliCommand::CompileCache => build::compile_cache::compile_cache(settings).await,
        CliCommand::New { command } => edit::new::new(settings, command).await,
        CliCommand::Init(arguments) => edit::init::init(settings, *arguments).await,
        CliCommand::Add(arguments) => edit::add::add(settings, *arguments).await,
        CliCommand::Remove(arguments) => edit::remove::remove(settings, *arguments).await,
        CliCommand::Update(arguments) => edit::update::update(settings, *arguments).await,
        CliCommand::Upgrade(arguments) => edit::upgrade::upgrade(settings, *arguments).await,
        CliCommand::Migrate(arguments) => edit::migrate::migrate(settings, *arguments).await,
        CliCommand::Doctor(arguments) => query::doctor::doctor(settings, arguments).await,
        CliCommand::Diff(arguments) => query::diff::diff(settings, *arguments).await,
        CliCommand::Outdated(arguments) => query::outdated::outdated(settings, *arguments).await,
        CliCommand::Search(arguments) => query::search::search(&settings, &arguments),
        CliCommand::List(arguments) => query::list::list(settings, *arguments).await,
        CliCommand::Why(arguments) => query::why::why(settings, *arguments).await,
        CliCommand::Tree(arguments) => query::tree::tree(settings, *arguments).await,
        CliCommand::Graph(arguments) => query::graph::graph(settings, *arguments).await,
        CliCommand::Licenses(arguments) => query::licenses::licenses(settings, *arguments).await,
        CliCommand::Sbom(arguments) => query::sbom::sbom(settings, *arguments).await,
        CliCommand::Inspect(arguments) => query::inspect::inspect(&settings, &arguments),
        CliCommand::Size(arguments) => query::size::size(settings, *arguments).await,
        CliCommand::Check(arguments) => query::check::check(settings, *arguments).await,
        CliCommand::Audit(arguments) => query::audit::audit(settings, *arguments).await,
        #[cfg(feature = "service")]
        CliCommand::Server(arguments) => service::server::server(settings, *arguments).await,
        #[cfg(feature = "service")]
        CliCommand::Worker(arguments) => service::worker::worker(settings, *arguments).await,
        #[cfg(feature = "service")]
        CliCommand::Job => service::job::job(settings).await,
        #[cfg(not(feature = "service"))]
        CliCommand::MissingService { .. } => service_disabled::service_disabled(&settings),
        CliCommand::Completions { shell, no_descriptions } => shell::completions(shell, !no_descriptions),
        CliCommand::Man { directory } => shell::man(directory.as_deref()),
        CliCommand::Schema => shell::schema(),
        CliCommand::Version => version::version(&settings),
    }
}
