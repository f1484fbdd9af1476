//! How cost grows with size: curves as CSV, as SVG, and a table of growth rates.

mod builds;
mod plot;
mod service;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::proxy::BenchProxy;

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dimension {
    /// Plugins of a cold build of RoadRunner
    Plugins,
    /// Targets of a cold build
    Targets,
    /// Binaries in the artifact store
    Artifacts,
    /// Modules in a velox.lock
    Modules,
    /// Queued builds of the build service
    Queue,
    /// Clients that follow the log of one build
    Followers,
    /// Workers of a cluster
    Workers,
}

/// One cost over a growing size.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Curve {
    /// What grows, such as `plugins`.
    pub(crate) dimension: &'static str,
    /// The cost, such as `unchanged build`.
    pub(crate) cost: &'static str,
    /// The unit of the cost.
    pub(crate) unit: &'static str,
    /// Sizes and costs, by size.
    pub(crate) points: Vec<(f64, f64)>,
}

/// The environment of the measurements.
pub(crate) struct CurveBench<'a> {
    pub(crate) vx: PathBuf,
    pub(crate) proxy: &'a BenchProxy,
    /// The parent directory of the sandboxes.
    pub(crate) directory: PathBuf,
}

impl CurveBench<'_> {
    /// Measures dimensions, and writes the results into `docs`: `performance/curves.csv`, `images/curve-….svg`, and the
    /// table in `performance.md`.
    pub(crate) fn run(&self, dimensions: &[Dimension], docs: &Path) -> Result<String> {
        let path = docs.join("performance").join("curves.csv");
        let mut curves = match fs::read_to_string(&path) {
            Ok(text) => parse(&text)?,
            Err(_) => Vec::new(),
        };
        for dimension in dimensions {
            let measured = match dimension {
                Dimension::Plugins => self.plugins(),
                Dimension::Targets => self.targets(),
                Dimension::Artifacts => self.artifacts(),
                Dimension::Modules => self.modules(),
                Dimension::Queue => self.queue(),
                Dimension::Followers => self.followers(),
                Dimension::Workers => self.workers(),
            };
            let measured = measured.with_context(|| format!("{dimension:?}"))?;
            for curve in &measured {
                eprintln!("{} / {}: {:?} {}", curve.dimension, curve.cost, curve.points, curve.unit);
            }
            curves.retain(|curve| measured.iter().all(|new| new.dimension != curve.dimension));
            curves.extend(measured);
        }
        let mut csv = HEADER.to_owned();
        for curve in &curves {
            for (size, cost) in &curve.points {
                writeln!(csv, "{},{},{size},{cost:.4},{}", curve.dimension, curve.cost, curve.unit)?;
            }
        }
        fs::create_dir_all(docs.join("performance"))?;
        fs::write(&path, csv)?;
        for of_dimension in curves.chunk_by(|one, other| one.dimension == other.dimension) {
            let Some(first) = of_dimension.first() else { continue };
            let picture = docs.join("images").join(format!("curve-{}.svg", first.dimension));
            fs::write(picture, plot::svg(of_dimension))?;
        }
        Ok(table(&curves))
    }
}

const HEADER: &str = "dimension,cost,size,value,unit\n";

/// Reads the CSV file of an earlier run, so that single dimensions can be measured again.
fn parse(csv: &str) -> Result<Vec<Curve>> {
    let mut curves: Vec<Curve> = Vec::new();
    for line in csv.strip_prefix(HEADER).context("curves.csv has another header")?.lines() {
        let fields: Vec<&str> = line.split(',').collect();
        let [dimension, cost, size, value, unit] = fields[..] else {
            anyhow::bail!("curves.csv has a line without five fields: {line}");
        };
        let point = (size.parse()?, value.parse()?);
        match curves.last_mut().filter(|curve| (curve.dimension, curve.cost) == (dimension, cost)) {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve {
                dimension: leaked(dimension),
                cost: leaked(cost),
                unit: leaked(unit),
                points: vec![point],
            }),
        }
    }
    Ok(curves)
}

/// A name that lives as long as the program, as the constants do.
fn leaked(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn table(curves: &[Curve]) -> String {
    let mut text = "| what grows | cost | from – to | growth |\n|---|---|---|---|\n".to_owned();
    for curve in curves {
        let [Some((from, low)), Some((to, high))] = [curve.points.first(), curve.points.last()] else {
            continue;
        };
        let Curve { dimension, cost, unit, .. } = curve;
        let growth = growth(&curve.points).map_or("–".to_owned(), |power| format!("size^{power:.2}"));
        let _ = writeln!(
            text,
            "| {dimension}, {from} to {to} | {cost} | {} to {} {unit} | {growth} |",
            rounded(*low),
            rounded(*high)
        );
    }
    text
}

/// Three significant digits.
fn rounded(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// The power of the size with which the cost grows between the last two points: 1 is linear, 0 constant.
fn growth(points: &[(f64, f64)]) -> Option<f64> {
    let [.., (from, low), (to, high)] = points else { return None };
    let power = (high / low).ln() / (to / from).ln();
    power.is_finite().then_some(power)
}

/// The median of some values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(f64, f64)]) -> Curve {
        Curve { dimension: "artifacts", cost: "prune", unit: "ms", points: points.to_vec() }
    }

    #[test]
    fn growth_is_the_power_of_the_size() {
        for (points, expected) in [
            (&[(10.0, 5.0), (1000.0, 5.0)][..], Some(0.0)),
            (&[(1.0, 9.0), (10.0, 2.0), (1000.0, 200.0)], Some(1.0)),
            (&[(10.0, 1.0), (100.0, 100.0)], Some(2.0)),
            (&[(10.0, 1.0)], None),
        ] {
            assert_eq!(growth(points).map(|power| (power * 1e6).round() / 1e6), expected, "{points:?}");
        }
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn the_csv_file_is_read_as_it_was_written() {
        let text = format!("{HEADER}artifacts,prune,10,1.5000,ms\nartifacts,prune,100,2.5000,ms\n");
        assert_eq!(parse(&text).unwrap(), [curve(&[(10.0, 1.5), (100.0, 2.5)])]);
        assert!(parse("size,value\n").is_err() && parse(&format!("{HEADER}a,b\n")).is_err());
        let row = "| artifacts, 10 to 1000 | prune | 1.50 to 150 ms | size^1.00 |\n";
        assert!(table(&[curve(&[(10.0, 1.5), (1000.0, 150.0)])]).ends_with(row));
    }
}
