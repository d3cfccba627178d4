//! How something grows with something else.

use super::svg::{Anchor, Svg};
use crate::spread::short;

/// How values are laid out along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from zero.
    Linear,
    /// By their logarithms; values must be above zero.
    Logarithmic,
}

/// One of the two axes.
#[derive(Debug, Clone)]
pub struct Axis {
    /// What it shows, with its unit.
    pub label: String,
    /// How values are laid out.
    pub scale: Scale,
    /// Names for values, where numbers would be hard to read; marks stand at these alone.
    pub names: Vec<(f64, String)>,
}

/// One line of the chart.
#[derive(Debug, Clone)]
pub struct Series {
    /// What it is of.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

/// Lines over two axes.
#[derive(Debug, Clone)]
pub struct LineChart {
    /// What is shown.
    pub title: String,
    /// Date, machine, conditions.
    pub notes: Vec<String>,
    /// Across.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// At most six can be told apart.
    pub series: Vec<Series>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 190.0;
const BELOW: f64 = 58.0;
/// Lines differ by their dashes as well as by their colours.
const DASHES: [&str; 6] = ["", "7 4", "2 3", "9 3 2 3", "4 2", "1 4"];

/// An axis with its range, mapped to places of the picture.
struct Mapped<'a> {
    axis: &'a Axis,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl<'a> Mapped<'a> {
    fn new(axis: &'a Axis, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let flat = |value: f64| match axis.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(1e-12).log10(),
        };
        let (mut low, mut high) = values
            .map(flat)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        if !low.is_finite() {
            (low, high) = (0.0, 1.0);
        }
        match axis.scale {
            Scale::Linear => low = low.min(0.0),
            Scale::Logarithmic if axis.names.is_empty() => (low, high) = (low.floor(), high.ceil()),
            Scale::Logarithmic => {}
        }
        if high - low < 1e-9 {
            high = low + 1.0;
        }
        Mapped {
            axis,
            low,
            high,
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let flat = match self.axis.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(1e-12).log10(),
        };
        self.from + (flat - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Values with a mark, and what is written there.
    fn marks(&self) -> Vec<(f64, String)> {
        if !self.axis.names.is_empty() {
            return self.axis.names.clone();
        }
        match self.axis.scale {
            Scale::Logarithmic => (self.low as i32..=self.high as i32)
                .map(|power| (10.0_f64.powi(power), decade(power)))
                .collect(),
            Scale::Linear => {
                let step = step(self.high);
                (0..=(self.high / step) as u32)
                    .map(|number| f64::from(number) * step)
                    .map(|value| (value, plain(value)))
                    .collect()
            }
        }
    }
}

/// A power of ten as people write it.
fn decade(power: i32) -> String {
    match power {
        9.. => format!("{} G", 10_u64.pow(power as u32 - 9)),
        6..=8 => format!("{} M", 10_u64.pow(power as u32 - 6)),
        3..=5 => format!("{} k", 10_u64.pow(power as u32 - 3)),
        _ => format!("{}", 10.0_f64.powi(power)),
    }
}

fn plain(value: f64) -> String {
    if value == value.trunc() {
        format!("{value:.0}")
    } else {
        short(value)
    }
}

/// A round distance between marks: about five of them.
fn step(high: f64) -> f64 {
    let raw = high / 5.0;
    let power = 10.0_f64.powf(raw.log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= raw);
    round.unwrap_or(10.0) * power
}

impl LineChart {
    /// The picture.
    #[must_use]
    pub fn svg(&self) -> String {
        let top = 62.0 + 18.0 * self.notes.len() as f64;
        let height = top + HEIGHT;
        let points = || self.series.iter().flat_map(|series| series.points.iter());
        let x = Mapped::new(&self.x, points().map(|point| point.0), LEFT, WIDTH - RIGHT);
        let y = Mapped::new(&self.y, points().map(|point| point.1), height - BELOW, top);
        let mut svg = Svg::new(WIDTH, height, &self.title, &self.description());
        svg.text(16.0, 28.0, "title", Anchor::Start, &self.title);
        for (number, note) in self.notes.iter().enumerate() {
            svg.text(16.0, 50.0 + 18.0 * number as f64, "quiet", Anchor::Start, note);
        }
        svg.text(16.0, top - 10.0, "quiet", Anchor::Start, &self.y.label);
        svg.text(
            (LEFT + WIDTH - RIGHT) / 2.0,
            height - 14.0,
            "quiet",
            Anchor::Middle,
            &self.x.label,
        );
        for (value, name) in x.marks() {
            let at = x.place(value);
            svg.line((at, top), (at, height - BELOW), "grid");
            svg.text(at, height - BELOW + 18.0, "quiet", Anchor::Middle, &name);
        }
        for (value, name) in y.marks() {
            let at = y.place(value);
            svg.line((LEFT, at), (WIDTH - RIGHT, at), "grid");
            svg.text(LEFT - 8.0, at + 4.0, "quiet", Anchor::End, &name);
        }
        svg.line((LEFT, height - BELOW), (WIDTH - RIGHT, height - BELOW), "axis");
        self.draw_series(&mut svg, &x, &y);
        svg.finish()
    }

    fn draw_series(&self, svg: &mut Svg, x: &Mapped<'_>, y: &Mapped<'_>) {
        // Names stand at the ends of their lines, moved apart where lines end close together.
        let mut ends: Vec<(f64, usize)> = Vec::new();
        for (number, series) in self.series.iter().enumerate() {
            let places: Vec<(f64, f64)> = series
                .points
                .iter()
                .map(|(across, up)| (x.place(*across), y.place(*up)))
                .collect();
            let look = number % DASHES.len();
            svg.path(&places, &format!("line s{look}"), DASHES[look]);
            for (place, point) in places.iter().zip(&series.points) {
                let title = format!("{}: {} at {}", series.name, short(point.1), plain(point.0));
                svg.dot(place.0, place.1, 3.0, &format!("m{look}"), &title);
            }
            if let Some(last) = places.last() {
                ends.push((last.1, number));
            }
        }
        ends.sort_by(|left, right| left.0.total_cmp(&right.0));
        let mut free = f64::NEG_INFINITY;
        for (wanted, number) in ends {
            let at = wanted.max(free);
            free = at + 17.0;
            let class = format!("strong m{}", number % DASHES.len());
            svg.text(
                WIDTH - RIGHT + 12.0,
                at + 4.0,
                &class,
                Anchor::Start,
                &self.series[number].name,
            );
        }
    }

    /// The ends of the lines in words, for those who do not see them.
    fn description(&self) -> String {
        let ends: Vec<String> = self
            .series
            .iter()
            .filter_map(|series| {
                let (first, last) = (series.points.first()?, series.points.last()?);
                Some(format!(
                    "{}: from {} at {} to {} at {}",
                    series.name,
                    short(first.1),
                    plain(first.0),
                    short(last.1),
                    plain(last.0)
                ))
            })
            .collect();
        format!("{} over {}. {}", self.y.label, self.x.label, ends.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::{Axis, LineChart, Scale, Series, step};

    fn axis(label: &str, scale: Scale) -> Axis {
        Axis {
            label: label.to_owned(),
            scale,
            names: Vec::new(),
        }
    }

    #[test]
    fn lines_stay_inside_the_axes_and_are_named_at_their_ends() {
        let chart = LineChart {
            title: "cost".to_owned(),
            notes: Vec::new(),
            x: axis("logs", Scale::Logarithmic),
            y: axis("ns", Scale::Linear),
            series: vec![Series {
                name: "append".to_owned(),
                points: vec![(1.0, 30.0), (1000.0, 45.0)],
            }],
        };
        let text = chart.svg();
        assert!(text.contains(">append<"), "{text}");
        assert!(text.contains("append: from 30.0 at 1 to 45.0 at 1000"), "{text}");
        assert!(!text.contains("NaN"), "{text}");
    }

    #[test]
    fn a_chart_of_nothing_is_drawn_all_the_same() {
        let chart = LineChart {
            title: "nothing".to_owned(),
            notes: Vec::new(),
            x: axis("x", Scale::Linear),
            y: axis("y", Scale::Logarithmic),
            series: Vec::new(),
        };
        assert!(!chart.svg().contains("NaN"));
    }

    #[test]
    fn marks_are_a_round_distance_apart() {
        assert_eq!(step(45.0), 10.0);
        assert_eq!(step(100.0), 20.0);
        assert_eq!(step(0.7), 0.2);
    }
}
