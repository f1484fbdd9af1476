//! `velox-bench`: vx beside Velox, in turns, through one local module proxy.
//!
//! `make bench` runs it; docs/performance.md says what is measured and has the last figures.

mod configuration;
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
    configuration::{PluginSet, RELEASE, ROADRUNNER},
    machine::{Machine, said},
    proxy::Proxy,
    scenario::{Bench, Scenario},
    service::{Seen, Services},
    table::{Outcome, Part},
};

/// Measures vx against Velox
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Arguments {
    /// Velox's binary
    #[arg(long, env = "VELOX", value_name = "FILE")]
    velox: PathBuf,
    /// The vx to measure
    #[arg(long, env = "VX", value_name = "FILE", default_value = "target/release/vx")]
    vx: PathBuf,
    /// A prepared module tree, that has RoadRunner
    #[arg(long, env = "VX_TEST_GOPROXY", value_name = "DIR")]
    tree: Option<PathBuf>,
    /// How often each tool runs a scenario
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// These alone [default: all]
    #[arg(long, value_enum, value_name = "NAME")]
    scenario: Vec<Scenario>,
    /// The build services instead of builds
    #[arg(long, conflicts_with_all = ["scenario", "small"])]
    service: bool,
    /// Five plugins instead of 35: to try the bench itself
    #[arg(long)]
    small: bool,
    /// Where modules are kept between benches, and sandboxes live meanwhile
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.cache"))]
    store: PathBuf,
    /// Write the figures into this document [default: docs/performance.md when everything is measured]
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

/// Whether no scenario failed; a missed bar is a figure, no failure.
fn run(arguments: &Arguments) -> Result<bool> {
    let Some(tree) = arguments.tree.as_ref().filter(|tree| !tree.as_os_str().is_empty()) else {
        println!("skipped: the bench needs VX_TEST_GOPROXY, the path of a prepared module tree");
        return Ok(true);
    };
    let tree = existing(tree)?;
    let (velox, vx) = (existing(&arguments.velox)?, existing(&arguments.vx)?);
    fs::create_dir_all(&arguments.store)
        .with_context(|| format!("can't make {}", arguments.store.display()))?;
    let store = existing(&arguments.store)?;
    // Two benches at once would measure each other.
    let lock = File::create(store.join("lock"))?;
    lock.try_lock().context("another bench runs")?;

    let machine = Machine::read(&velox, &vx)?;
    let proxy = Proxy::start(&tree, &store, &said("go".as_ref(), &["env", "GOPROXY"])?)?;
    proxy.add_release(ROADRUNNER, RELEASE)?;
    // Sandboxes of a bench that was killed.
    let directory = store.join("sandboxes");
    sandbox::remove(&directory)?;
    if arguments.service {
        let services = Services { velox, vx, proxy: &proxy, directory: directory.clone() };
        let Seen { rows, facts } = services.run()?;
        sandbox::remove(&directory)?;
        let facts: String = facts.iter().map(|fact| format!("- {fact}\n")).collect();
        let figures = format!(
            "{}\nRoadRunner {RELEASE}, 5 plugins. Each cell: least / median / most.\n\n{}\n{facts}",
            machine.markdown(),
            table::outcomes(&[("service", Outcome::Measured(rows))]),
        );
        println!("{figures}");
        write(arguments.output.clone().unwrap_or_else(document), Part::Service, &figures)?;
        return Ok(true);
    }
    let set = if arguments.small { PluginSet::Small } else { PluginSet::All };
    let help = said(&vx, &["build", "--help"])?;
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
            Outcome::Measured(_) => {}
            Outcome::Skipped(why) => eprintln!("{}: skipped: {why}", scenario.name()),
            Outcome::Failed(why) => eprintln!("{}: failed: {why}", scenario.name()),
        }
        outcomes.push((scenario.name(), outcome));
    }
    let seen: Vec<_> = bench.seen.iter().map(|(scenario, pairs)| (scenario.name(), pairs.clone())).collect();
    drop(bench);
    sandbox::remove(&directory)?;

    let figures = format!(
        "{}\nRoadRunner {RELEASE}, {}, {} rounds. Each cell: least / median / most.\n\n{}\nMedians of what the runs took \
         besides:\n\n{}",
        machine.markdown(),
        set.told(),
        arguments.rounds,
        table::outcomes(&outcomes),
        table::details(&seen),
    );
    println!("{figures}");
    let complete = all && !arguments.small;
    if let Some(output) = arguments.output.clone().or_else(|| complete.then(document)) {
        write(output, Part::Builds, &figures)?;
    }
    Ok(!outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(_))))
}

/// Where figures go.
fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs").join("performance.md")
}

fn write(output: PathBuf, part: Part, figures: &str) -> Result<()> {
    let document = fs::read_to_string(&output).with_context(|| format!("can't read {}", output.display()))?;
    let document =
        table::into_document(&document, part, figures).with_context(|| output.display().to_string())?;
    fs::write(&output, document).with_context(|| format!("can't write {}", output.display()))?;
    println!("written to {}", output.display());
    Ok(())
}

fn existing(path: &Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| format!("can't find {}", path.display()))
}
