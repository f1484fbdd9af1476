//! `velox-bench`: compares vx with Velox, in alternating runs, through one local module proxy.
//!
//! `make bench` runs it; docs/performance.md describes the scenarios and has the latest figures.

mod configuration;
mod curves;
mod machine;
mod measure;
mod proxy;
mod sandbox;
mod scenario;
mod service;
mod table;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use crate::{
    configuration::{BenchPlugins, RELEASE, ROADRUNNER},
    curves::{CurveBench, Dimension},
    machine::{MachineInfo, stdout_of},
    proxy::BenchProxy,
    scenario::{Bench, Scenario},
    service::{ServiceFigures, Services},
    table::{FigureSet, ScenarioOutcome},
};

/// Measures vx against Velox
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Arguments {
    /// The Velox binary
    #[arg(long, env = "VELOX", value_name = "FILE", required_unless_present = "curves")]
    velox: Option<PathBuf>,
    /// The vx binary
    #[arg(long, env = "VX", value_name = "FILE", default_value = "target/release/vx")]
    vx: PathBuf,
    /// A prepared module tree with RoadRunner
    #[arg(long, env = "VX_TEST_GOPROXY", value_name = "DIR")]
    tree: Option<PathBuf>,
    /// Runs of each tool in each scenario
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Only these scenarios [default: all]
    #[arg(long, value_enum, value_name = "NAME")]
    scenario: Vec<Scenario>,
    /// Measure the build services instead of builds
    #[arg(long, conflicts_with_all = ["scenario", "small"])]
    service: bool,
    /// Measure how the costs of vx grow with these sizes, without Velox
    #[arg(long, value_enum, value_name = "NAME", num_args = 0.., conflicts_with_all = ["scenario", "small", "service"])]
    curves: Option<Vec<Dimension>>,
    /// Five plugins instead of 35, to test the benchmark itself
    #[arg(long)]
    small: bool,
    /// Directory of the downloaded modules and the sandboxes
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.cache"))]
    store: PathBuf,
    /// Write the figures into this document [default: docs/performance.md after a complete run]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether no scenario failed; a missed bar is no failure.
fn run(arguments: &Arguments) -> Result<bool> {
    let Some(tree) = arguments.tree.as_ref().filter(|tree| !tree.as_os_str().is_empty()) else {
        println!("skipped: set VX_TEST_GOPROXY to the path of a prepared module tree");
        return Ok(true);
    };
    let tree = existing(tree)?;
    let vx = existing(&arguments.vx)?;
    fs::create_dir_all(&arguments.store)
        .with_context(|| format!("failed to create {}", arguments.store.display()))?;
    let store = existing(&arguments.store)?;
    // Concurrent benchmarks would distort each other.
    let lock = File::create(store.join("lock"))?;
    lock.try_lock().context("another benchmark is running")?;

    let proxy = BenchProxy::start(&tree, &store, &stdout_of("go".as_ref(), &["env", "GOPROXY"])?)?;
    proxy.add_release(ROADRUNNER, RELEASE)?;
    // Left by a killed benchmark.
    let directory = store.join("sandboxes");
    sandbox::remove(&directory)?;
    if let Some(dimensions) = &arguments.curves {
        let all = Dimension::value_variants();
        let dimensions = if dimensions.is_empty() { all } else { dimensions };
        let bench = CurveBench { vx, proxy: &proxy, directory: directory.clone() };
        let table = bench.run(dimensions, document().parent().unwrap_or(Path::new(".")))?;
        sandbox::remove(&directory)?;
        println!("{table}");
        write(arguments.output.clone().unwrap_or_else(document), FigureSet::Curves, &table)?;
        return Ok(true);
    }
    let velox = existing(arguments.velox.as_deref().context("--velox FILE is missing")?)?;
    let machine = MachineInfo::read(&velox, &vx)?;
    if arguments.service {
        let services = Services { velox, vx, proxy: &proxy, directory: directory.clone() };
        let ServiceFigures { rows, facts } = services.run()?;
        sandbox::remove(&directory)?;
        let facts: String = facts.iter().map(|fact| format!("- {fact}\n")).collect();
        let figures = format!(
            "{}\nRoadRunner {RELEASE}, 5 plugins. Each cell: minimum / median / maximum.\n\n{}\n{facts}",
            machine.markdown(),
            table::outcomes(&[("service", ScenarioOutcome::Measured(rows))]),
        );
        println!("{figures}");
        write(arguments.output.clone().unwrap_or_else(document), FigureSet::Service, &figures)?;
        return Ok(true);
    }
    let set = if arguments.small { BenchPlugins::Small } else { BenchPlugins::All };
    let help = stdout_of(&vx, &["build", "--help"])?;
    let mut bench = Bench {
        velox,
        vx,
        proxy,
        directory: directory.clone(),
        set,
        rounds: arguments.rounds.into(),
        help,
        seen: BTreeMap::new(),
        warm: None,
    };

    let all = arguments.scenario.is_empty();
    let scenarios = if all { Scenario::value_variants().to_vec() } else { arguments.scenario.clone() };
    let mut outcomes = Vec::new();
    for scenario in scenarios {
        let outcome = bench.run(scenario);
        match &outcome {
            ScenarioOutcome::Measured(_) => {}
            ScenarioOutcome::Skipped(why) => eprintln!("{}: skipped: {why}", scenario.name()),
            ScenarioOutcome::Failed(why) => eprintln!("{}: failed: {why}", scenario.name()),
        }
        outcomes.push((scenario.name(), outcome));
    }
    let seen: Vec<_> = bench.seen.iter().map(|(scenario, pairs)| (scenario.name(), pairs.clone())).collect();
    drop(bench);
    sandbox::remove(&directory)?;

    let figures = format!(
        "{}\nRoadRunner {RELEASE}, {}, {} rounds. Each cell: minimum / median / maximum.\n\n{}\nMedians of other \
         measurements:\n\n{}",
        machine.markdown(),
        set.label(),
        arguments.rounds,
        table::outcomes(&outcomes),
        table::details(&seen),
    );
    println!("{figures}");
    let complete = all && !arguments.small;
    if let Some(output) = arguments.output.clone().or_else(|| complete.then(document)) {
        write(output, FigureSet::Builds, &figures)?;
    }
    Ok(!outcomes.iter().any(|(_, outcome)| matches!(outcome, ScenarioOutcome::Failed(_))))
}

/// The document with the figures.
fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs").join("performance.md")
}

fn write(output: PathBuf, part: FigureSet, figures: &str) -> Result<()> {
    let document =
        fs::read_to_string(&output).with_context(|| format!("failed to read {}", output.display()))?;
    let document =
        table::into_document(&document, part, figures).with_context(|| output.display().to_string())?;
    fs::write(&output, document).with_context(|| format!("failed to write {}", output.display()))?;
    println!("written to {}", output.display());
    Ok(())
}

fn existing(path: &Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| format!("failed to find {}", path.display()))
}
