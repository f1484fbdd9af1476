use std::fmt::Write as _;

use anyhow::{Context, Result};

use crate::measure::Measurement;

/// A section of figures in the document.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FigureSet {
    /// Figures of builds.
    Builds,
    /// Figures of the build service.
    Service,
    /// The growth of costs.
    Curves,
}

impl FigureSet {
    fn marks(self) -> [String; 2] {
        let name = match self {
            Self::Builds => "figures",
            Self::Service => "service figures",
            Self::Curves => "curves",
        };
        ["begin", "end"].map(|mark| format!("<!-- {name}: {mark} -->\n"))
    }
}

/// The runs of both tools, in the order in which they ran.
#[derive(Clone, Debug, Default)]
pub(crate) struct MeasuredPairs {
    pub(crate) velox: Vec<Measurement>,
    pub(crate) vx: Vec<Measurement>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Milliseconds,
    /// Milliseconds with two decimals.
    Fine,
    Megabytes,
    GigabytesPerSecond,
    Zips,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Bar {
    /// The ratio of the median of vx to that of Velox.
    Ratio(f64),
    /// The median of vx, in the row's unit.
    Median(f64),
    /// The maximum of vx, in the row's unit.
    Most(f64),
    /// The 99th percentile of vx, in the row's unit.
    Percentile99(f64),
    /// The minimum of vx, in the row's unit: more is better.
    Least(f64),
    /// The medians' difference, in the row's unit.
    Difference(f64),
}

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    /// The values to compare with: Velox, or the go command alone for `own-time`.
    pub(crate) other: Vec<f64>,
    pub(crate) vx: Vec<f64>,
    pub(crate) bar: Bar,
}

#[derive(Debug)]
pub(crate) enum ScenarioOutcome {
    Measured(Vec<Row>),
    Skipped(String),
    Failed(String),
}

/// Minimum, median and maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Self { least, median, most })
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Seconds if value < 1.0 => format!("{value:.3} s"),
            Self::Seconds => format!("{value:.1} s"),
            Self::Milliseconds => format!("{value:.0} ms"),
            Self::Fine => format!("{value:.2} ms"),
            Self::Megabytes => format!("{value:.1} MB"),
            Self::GigabytesPerSecond => format!("{value:.2} GB/s"),
            Self::Zips => format!("{value:.0}"),
        }
    }

    fn spread(self, values: &[f64]) -> String {
        Spread::of(values).map_or_else(
            || "–".to_owned(),
            |Spread { least, median, most }| {
                format!("{} / {} / {}", self.show(least), self.show(median), self.show(most))
            },
        )
    }
}

impl Row {
    /// The ratios of alternating pairs of runs; with different numbers of runs, of each to the other's
    /// median.
    fn ratios(&self) -> Vec<f64> {
        let Some(other) = Spread::of(&self.other).filter(|spread| spread.least > 0.0) else {
            return Vec::new();
        };
        if self.other.len() == self.vx.len() {
            return self.vx.iter().zip(&self.other).map(|(vx, other)| vx / other).collect();
        }
        self.vx.iter().map(|vx| vx / other.median).collect()
    }

    /// The measured value, the requirement, and whether it is met.
    fn verdict(&self) -> Option<(String, String, bool)> {
        let vx = Spread::of(&self.vx)?;
        let (measured, bar, shown): (f64, f64, &dyn Fn(f64) -> String) = match self.bar {
            Bar::Ratio(bar) => (Spread::of(&self.ratios())?.median, bar, &|value| format!("{value:.3}")),
            Bar::Median(bar) => (vx.median, bar, &|value| self.unit.show(value)),
            Bar::Most(bar) => (vx.most, bar, &|value| self.unit.show(value)),
            Bar::Percentile99(bar) => (percentile_99(&self.vx)?, bar, &|value| self.unit.show(value)),
            Bar::Least(bar) => {
                let shown = (self.unit.show(vx.least), format!("≥ {}", self.unit.show(bar)));
                return Some((shown.0, shown.1, vx.least >= bar));
            }
            Bar::Difference(bar) => {
                (vx.median - Spread::of(&self.other)?.median, bar, &|value| self.unit.show(value))
            }
        };
        Some((shown(measured), format!("≤ {}", shown(bar)), measured <= bar))
    }

    fn cells(&self) -> [String; 7] {
        let ratio = Spread::of(&self.ratios()).map_or_else(
            || "–".to_owned(),
            |Spread { least, median, most }| format!("{least:.3} / {median:.3} / {most:.3}"),
        );
        let (measured, bar, held) = self.verdict().unwrap_or_default();
        let verdict = if held { "ok" } else { "**missed**" };
        let (other, vx) = (self.unit.spread(&self.other), self.unit.spread(&self.vx));
        [self.name.clone(), other, vx, ratio, measured, bar, verdict.to_owned()]
    }
}

fn percentile_99(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len() * 99).div_ceil(100).saturating_sub(1)).copied()
}

/// All outcomes as a Markdown table.
pub(crate) fn outcomes(outcomes: &[(&str, ScenarioOutcome)]) -> String {
    let head = ["scenario", "Velox", "vx", "vx / Velox", "measured", "bar", ""];
    let mut lines = vec![head.map(str::to_owned)];
    let mut notes = String::new();
    for (name, outcome) in outcomes {
        let (what, why) = match outcome {
            ScenarioOutcome::Measured(rows) => {
                lines.extend(rows.iter().map(Row::cells));
                continue;
            }
            ScenarioOutcome::Skipped(why) => ("skipped", why),
            ScenarioOutcome::Failed(why) => ("failed", why),
        };
        let _ = writeln!(notes, "- {name}: {what}: {}", why.lines().next().unwrap_or_default());
    }
    let mut text = grid(&lines);
    if !notes.is_empty() {
        text.push('\n');
        text.push_str(&notes);
    }
    text
}

/// The medians of the other measurements.
pub(crate) fn details(all: &[(&str, MeasuredPairs)]) -> String {
    let head = [
        "scenario",
        "tool",
        "runs",
        "time",
        "CPU time",
        "requests",
        "zips",
        "downloaded",
        "own memory",
        "largest process",
    ];
    let mut lines = vec![head.map(str::to_owned)];
    for (name, pairs) in all {
        for (tool, runs) in [("Velox", &pairs.velox), ("vx", &pairs.vx)] {
            if runs.is_empty() {
                continue;
            }
            let median = |value: &dyn Fn(&Measurement) -> f64| {
                let values: Vec<f64> = runs.iter().map(value).collect();
                Spread::of(&values).map_or(0.0, |spread| spread.median)
            };
            let megabytes = |value: &dyn Fn(&Measurement) -> u64| {
                Unit::Megabytes.show(median(&|run| megabytes(value(run))))
            };
            lines.push([
                (*name).to_owned(),
                tool.to_owned(),
                runs.len().to_string(),
                Unit::Seconds.show(median(&|run| run.seconds)),
                Unit::Seconds.show(median(&|run| run.cpu_seconds)),
                format!("{:.0}", median(&|run| run.traffic.requests as f64)),
                format!("{:.0}", median(&|run| run.traffic.zips as f64)),
                megabytes(&|run| run.traffic.bytes),
                megabytes(&|run| run.own_memory),
                megabytes(&|run| run.largest_memory),
            ]);
        }
    }
    grid(&lines)
}

/// Bytes in millions.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn grid<const N: usize>(lines: &[[String; N]]) -> String {
    let mut widths = [3; N];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        for (width, cell) in widths.iter().zip(line) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
        if at == 0 {
            for width in widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

/// Replaces the figures of a document.
pub(crate) fn into_document(document: &str, part: FigureSet, figures: &str) -> Result<String> {
    let [begin, end] = part.marks();
    let missing = |mark: &str| format!("missing line `{}`", mark.trim_end());
    let (before, rest) = document.split_once(&begin).with_context(|| missing(&begin))?;
    let (_, after) = rest.split_once(&end).with_context(|| missing(&end))?;
    Ok(format!("{before}{begin}\n{}\n\n{end}{after}", figures.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(other: &[f64], vx: &[f64], bar: Bar) -> Row {
        Row { name: "cold".to_owned(), unit: Unit::Seconds, other: other.into(), vx: vx.into(), bar }
    }

    #[test]
    fn verdicts_compare_with_the_bar() {
        let rows = [
            row(&[100.0, 50.0, 80.0], &[50.0, 30.0, 48.0], Bar::Ratio(0.6)),
            row(&[2.0, 4.0], &[0.03, 0.06, 0.09], Bar::Ratio(0.01)),
            row(&[1.0], &[1.2], Bar::Difference(0.15)),
        ];
        let told: Vec<_> = rows.iter().map(|row| row.verdict().unwrap()).collect();
        assert_eq!(told[0], ("0.600".to_owned(), "≤ 0.600".to_owned(), true));
        assert_eq!(told[1], ("0.020".to_owned(), "≤ 0.010".to_owned(), false));
        assert_eq!(told[2].0, "0.200 s");
        let many: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(percentile_99(&many), Some(990.0));
        let rate = Row { unit: Unit::GigabytesPerSecond, ..row(&[], &[0.9, 2.0], Bar::Least(1.0)) };
        assert_eq!(rate.verdict().unwrap(), ("0.90 GB/s".to_owned(), "≥ 1.00 GB/s".to_owned(), false));
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0, 9.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn only_the_figures_of_a_document_are_replaced() {
        for part in [FigureSet::Builds, FigureSet::Service] {
            let [begin, end] = part.marks();
            let document = format!("# Speed\n{begin}old\n{end}after\n");
            let new = into_document(&document, part, "new\n").unwrap();
            assert_eq!(new, format!("# Speed\n{begin}\nnew\n\n{end}after\n"));
            assert_eq!(into_document(&new, part, "new").unwrap(), new);
            assert!(into_document("nothing", part, "new").is_err());
        }
    }
}
