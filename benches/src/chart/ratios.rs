//! One line a measurement: how many times as good as the best of the others.

use super::svg::{Anchor, Svg};

/// Ratios to the best of the others, on a logarithmic axis with that best at 1.
#[derive(Debug, Clone)]
pub struct RatioChart {
    /// What is compared.
    pub title: String,
    /// Date, machine, and how to read it.
    pub notes: Vec<String>,
    /// From above to below.
    pub rows: Vec<RatioRow>,
}

/// A measurement, with all figures as multiples of the best of the others: above 1 is better.
#[derive(Debug, Clone)]
pub struct RatioRow {
    /// What was measured.
    pub label: String,
    /// Ours.
    pub ours: f64,
    /// The others, by name.
    pub others: Vec<(String, f64)>,
}

const WIDTH: f64 = 960.0;
const LABEL_WIDTH: f64 = 330.0;
const VERDICT_WIDTH: f64 = 170.0;
const ROW_HEIGHT: f64 = 24.0;
const BAR_HEIGHT: f64 = 12.0;
const NOTE_HEIGHT: f64 = 18.0;

/// Where ratios stand from left to right.
struct Across {
    least_log: f64,
    greatest_log: f64,
}

impl Across {
    /// At least from a tenth to ten, and everything that is shown; whole decades.
    fn of(rows: &[RatioRow]) -> Self {
        let all = rows.iter().flat_map(|row| {
            let others = row.others.iter().map(|(_, ratio)| *ratio);
            others.chain([row.ours]).filter(|ratio| *ratio > 0.0)
        });
        let (least, greatest) = all.fold((0.1_f64, 10.0_f64), |(least, greatest), ratio| {
            (least.min(ratio), greatest.max(ratio))
        });
        Across {
            least_log: least.log10().floor().max(-3.0),
            greatest_log: greatest.log10().ceil().min(4.0),
        }
    }

    fn place(&self, ratio: f64) -> f64 {
        let log = ratio.max(1e-9).log10().clamp(self.least_log, self.greatest_log);
        let part = (log - self.least_log) / (self.greatest_log - self.least_log);
        LABEL_WIDTH + part * (WIDTH - LABEL_WIDTH - VERDICT_WIDTH)
    }

    fn decades(&self) -> impl Iterator<Item = f64> {
        let (first, last) = (self.least_log as i32, self.greatest_log as i32);
        (first..=last).map(|power| 10.0_f64.powi(power))
    }
}

/// A ratio with the digits that matter.
fn times(ratio: f64) -> String {
    match ratio {
        large if large >= 10.0 => format!("{large:.0}×"),
        middle if middle >= 0.1 => format!("{middle:.2}×"),
        small => format!("{small:.3}×"),
    }
}

impl RatioChart {
    /// The picture.
    #[must_use]
    pub fn svg(&self) -> String {
        let across = Across::of(&self.rows);
        let head = 44.0 + NOTE_HEIGHT * self.notes.len() as f64;
        let foot = head + 16.0 + ROW_HEIGHT * self.rows.len() as f64;
        let mut svg = Svg::new(WIDTH, foot + 44.0, &self.title, &self.description());
        svg.text(16.0, 28.0, "title", Anchor::Start, &self.title);
        for (number, note) in self.notes.iter().enumerate() {
            let y = 50.0 + NOTE_HEIGHT * number as f64;
            svg.text(16.0, y, "quiet", Anchor::Start, note);
        }
        for ratio in across.decades() {
            let x = across.place(ratio);
            let class = if ratio == 1.0 { "axis" } else { "grid" };
            svg.line((x, head), (x, foot), class);
            let label = if ratio >= 1.0 {
                format!("{ratio:.0}×")
            } else {
                format!("{ratio}×")
            };
            svg.text(x, foot + 18.0, "quiet", Anchor::Middle, &label);
        }
        svg.text(
            across.place(1.0),
            foot + 36.0,
            "quiet",
            Anchor::Middle,
            "the best of the others",
        );
        for (number, row) in self.rows.iter().enumerate() {
            row.draw(&mut svg, &across, head + 20.0 + ROW_HEIGHT * number as f64);
        }
        svg.finish()
    }

    /// The same in words, for those who do not see it.
    fn description(&self) -> String {
        let lines: Vec<String> = self.rows.iter().map(RatioRow::in_words).collect();
        lines.join("; ")
    }
}

impl RatioRow {
    fn best(&self) -> &str {
        let best = self
            .others
            .iter()
            .max_by(|left, right| left.1.total_cmp(&right.1));
        best.map_or("nobody", |(name, _)| name)
    }

    fn in_words(&self) -> String {
        format!("{}: {} {}", self.label, times(self.ours), self.best())
    }

    fn draw(&self, svg: &mut Svg, across: &Across, y: f64) {
        svg.text(LABEL_WIDTH - 12.0, y + 4.5, "", Anchor::End, &self.label);
        let (one, ours) = (across.place(1.0), across.place(self.ours));
        let class = if self.ours >= 1.0 { "ahead" } else { "behind" };
        let width = (ours - one).abs().max(1.5);
        svg.bar(
            one.min(ours),
            y - BAR_HEIGHT / 2.0,
            width,
            BAR_HEIGHT,
            class,
            &self.in_words(),
        );
        for (name, ratio) in &self.others {
            svg.dot(
                across.place(*ratio),
                y,
                4.0,
                "peer",
                &format!("{name}: {}", times(*ratio)),
            );
        }
        let verdict = format!("{} {}", times(self.ours), self.best());
        let class = if self.ours >= 1.0 {
            "strong"
        } else {
            "strong behind"
        };
        svg.text(
            WIDTH - VERDICT_WIDTH + 14.0,
            y + 4.5,
            class,
            Anchor::Start,
            &verdict,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{RatioChart, RatioRow};

    fn chart(ours: f64) -> String {
        let row = RatioRow {
            label: "append".to_owned(),
            ours,
            others: vec![("slow".to_owned(), 0.25), ("fast".to_owned(), 1.0)],
        };
        let chart = RatioChart {
            title: "speed".to_owned(),
            notes: vec!["today".to_owned()],
            rows: vec![row],
        };
        chart.svg()
    }

    #[test]
    fn a_row_says_whom_it_beats_or_who_is_ahead() {
        assert!(
            chart(5.0).contains(">5.00× fast<"),
            "the best of the others is named"
        );
        assert!(chart(5.0).contains("class=\"ahead\""));
        assert!(chart(0.5).contains(">0.50× fast<"));
        assert!(chart(0.5).contains("class=\"behind\""));
    }

    #[test]
    fn a_figure_beyond_the_axis_stays_inside_the_picture() {
        assert!(!chart(1e12).contains("NaN"));
        assert!(!chart(0.0).contains("inf"));
    }
}
