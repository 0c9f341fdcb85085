//! Line charts as SVG: small, readable on light and on dark, the horizontal axis logarithmic.

use std::fmt::Write as _;

use super::table::number;

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 34.0;
const COLOURS: [&str; 4] = ["#2a7de1", "#e07b1a", "#3a9d5d", "#a05fc4"];

/// One coordinate system.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) title: &'static str,
    /// What the horizontal axis counts.
    pub(super) unit: &'static str,
    pub(super) lines: Vec<Line>,
}

/// One line in it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) points: Vec<(f64, f64)>,
}

/// Panels side by side.
pub(super) fn draw(panels: &[Panel]) -> String {
    let width = panels.iter().fold(0.0, |width, _| width + WIDTH);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"10\" fill=\"#808080\">\n"
    );
    let mut left = 0.0;
    for panel in panels {
        let _ = writeln!(svg, "<g transform=\"translate({left} 0)\">\n{}</g>", panel.draw());
        left += WIDTH;
    }
    svg + "</svg>\n"
}

impl Panel {
    fn draw(&self) -> String {
        let xs = || self.lines.iter().flat_map(|line| line.points.iter().map(|(x, _)| *x));
        let ys = self.lines.iter().flat_map(|line| line.points.iter().map(|(_, y)| *y));
        let (first, last) = (xs().fold(f64::INFINITY, f64::min).max(1.0), xs().fold(1.0, f64::max));
        let top = round_up(ys.fold(0.0, f64::max));
        let scale = Scale { first, last, top };

        let mut svg = format!("<text x=\"{LEFT}\" y=\"14\" font-size=\"12\">{}</text>\n", self.title);
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for part in [0.0, 0.5, 1.0] {
            let (y, label) = (scale.y(top * part), number(top * part, usize::from(top < 10.0) * 2));
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#808080\" \
                 stroke-opacity=\"0.35\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 5.0,
                y + 3.0
            );
        }
        let middle = (first * last).sqrt();
        for (x, label) in [(first, number(first, 0)), (middle, self.unit.to_owned()), (last, number(last, 0))] {
            let (x, y) = (scale.x(x), bottom + 16.0);
            let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{label}</text>");
        }
        let mut legend = LEFT;
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let points: Vec<_> =
                line.points.iter().map(|(x, y)| format!("{:.1},{:.1}", scale.x(*x), scale.y(*y))).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
                 <text x=\"{legend}\" y=\"28\" fill=\"{colour}\">{}</text>",
                points.join(" "),
                line.name
            );
            legend += 90.0;
        }
        svg
    }
}

/// From values to places.
struct Scale {
    first: f64,
    last: f64,
    top: f64,
}

impl Scale {
    fn x(&self, value: f64) -> f64 {
        let part = (value / self.first).ln() / (self.last / self.first).ln().max(f64::MIN_POSITIVE);
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - value / self.top * (HEIGHT - BOTTOM - TOP)
    }
}

/// The next of 1, 2 and 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|top| *top >= value).unwrap_or(value)
}
