//! Curves as SVG, both axes logarithmic.

use std::fmt::Write as _;

use super::{Curve, rounded};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
/// Left, right, top and bottom.
const MARGINS: [f64; 4] = [70.0, 200.0, 20.0, 50.0];
const COLORS: [&str; 5] = ["#2563eb", "#dc2626", "#059669", "#9333ea", "#d97706"];

/// A diagram of the curves of one dimension.
pub(super) fn svg(curves: &[Curve]) -> String {
    let [left, right, top, bottom] = MARGINS;
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let (sizes, costs) = (range(all().map(|point| point.0)), range(all().map(|point| point.1)));
    let x = |size: f64| left + position(size, sizes) * (WIDTH - left - right);
    let y = |cost: f64| HEIGHT - bottom - position(cost, costs) * (HEIGHT - top - bottom);

    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
    );
    for decade in decades(costs) {
        let (y, from, to) = (y(decade), left, WIDTH - right);
        let _ = writeln!(
            text,
            "<path d=\"M{from} {y:.1}H{to}\" stroke=\"#e5e7eb\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{decade}</text>",
            left - 8.0,
            y + 4.0
        );
    }
    let mut marks: Vec<f64> = all().map(|point| point.0).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    for size in marks {
        let (x, y) = (x(size), HEIGHT - bottom);
        let _ = writeln!(
            text,
            "<path d=\"M{x:.1} {top}V{y}\" stroke=\"#e5e7eb\"/>\n\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{size}</text>",
            y + 18.0
        );
    }
    let dimension = curves.first().map_or("", |curve| curve.dimension);
    let (middle, below) = (f64::midpoint(left, WIDTH - right), HEIGHT - 12.0);
    let _ = writeln!(text, "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{dimension}</text>");
    for (index, (curve, color)) in curves.iter().zip(COLORS.iter().cycle()).enumerate() {
        let points: Vec<String> =
            curve.points.iter().map(|(size, cost)| format!("{:.1},{:.1}", x(*size), y(*cost))).collect();
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
        for (size, cost) in &curve.points {
            let _ = writeln!(
                text,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{color}\"/>",
                x(*size),
                y(*cost)
            );
        }
        let last = curve.points.last().map_or(0.0, |point| point.1);
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{color}\">{}: {} {}</text>",
            WIDTH - right + 10.0,
            top + 14.0 + 18.0 * f64::from(u8::try_from(index).unwrap_or(u8::MAX)),
            curve.cost,
            rounded(last),
            curve.unit
        );
    }
    text + "</svg>\n"
}

/// The powers of ten around some values.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| *value > 0.0)
        .fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), value| (low.min(value), high.max(value)));
    let low = low.min(high).log10().floor();
    (low, high.log10().ceil().max(low + 1.0))
}

/// Where a value is in a range of powers, from 0 to 1.
fn position(value: f64, (low, high): (f64, f64)) -> f64 {
    ((value.log10() - low) / (high - low)).clamp(0.0, 1.0)
}

fn decades((low, high): (f64, f64)) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(low), |power| Some(power + 1.0))
        .take_while(move |power| *power <= high)
        .map(|power| 10f64.powf(power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_point_is_inside_of_the_diagram() {
        let curve = Curve {
            dimension: "queue",
            cost: "submit",
            unit: "ms",
            points: vec![(1.0, 0.4), (100.0, 0.5), (10_000.0, 70.0)],
        };
        assert_eq!(range([0.4, 70.0].into_iter()), (-1.0, 2.0));
        assert_eq!(decades((-1.0, 2.0)).count(), 4);
        let picture = svg(&[curve]);
        assert_eq!(picture.matches("<circle").count(), 3);
        assert!(picture.contains("submit: 70.0 ms") && picture.contains("points=\"70.0,"), "{picture}");
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }
}
