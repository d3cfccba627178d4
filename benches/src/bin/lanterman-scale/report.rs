//! The text and the charts.

use lanterman_benches::chart::{Axis, LineChart, Scale, Series};
use lanterman_benches::growth::Growth;
use lanterman_benches::machine::Facts;
use lanterman_benches::spread::{Spread, short};

use crate::series::{Figure, SeriesPlan};

/// How the names of lines begin that show the machine's limits.
const LIMIT: &str = "bare";

/// A line of a chart.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, Spread)>,
}

/// A series with what was found.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) plan: &'static SeriesPlan,
    pub(crate) lines: Vec<Line>,
}

impl Measured {
    fn growth(&self, line: &Line) -> Option<Growth> {
        let cost = |value: f64| match self.plan.figure {
            Figure::Rate => 1.0 / value,
            Figure::Cost => value,
        };
        let costs: Vec<_> = line
            .points
            .iter()
            .map(|(x, spread)| (*x, cost(spread.median)))
            .collect();
        Growth::of(&costs)
    }

    /// What is said of a line's growth.
    fn verdict(&self, line: &Line) -> String {
        let Some(growth) = self.growth(line) else {
            return "too few points".to_owned();
        };
        let verdict = match (growth.is_worse_than_logarithmic(), self.plan.bytes) {
            (false, _) => "no worse than a logarithm",
            (true, true) if growth.exponent < 1.15 => "as the payload, or less",
            (true, _) => "**worse than a logarithm**",
        };
        format!(
            "{:.2} (a logarithm: {:.2}), {verdict}",
            growth.exponent, growth.logarithmic
        )
    }

    fn table(&self) -> String {
        let mut places: Vec<f64> = self
            .lines
            .iter()
            .flat_map(|line| line.points.iter().map(|(x, _)| *x))
            .collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        let names: Vec<_> = self.lines.iter().map(|line| line.name.as_str()).collect();
        let mut out = format!("| {} | {} |", self.plan.x, names.join(" | "));
        if self.plan.bytes {
            names.iter().for_each(|name| out += &format!(" {name}, MB/s |"));
        }
        out += "\n|---:|";
        let columns = self.lines.len() * if self.plan.bytes { 2 } else { 1 };
        out += &"---:|".repeat(columns);
        out += "\n";
        for place in places {
            out += &format!("| {} |", with_unit(place, self.plan.x.contains("bytes")));
            let found = |line: &Line| {
                line.points
                    .iter()
                    .find(|(x, _)| *x == place)
                    .map(|(_, spread)| *spread)
            };
            for line in &self.lines {
                out += &found(line).map_or_else(|| " |".to_owned(), |spread| format!(" {} |", cell(spread)));
            }
            if self.plan.bytes {
                for line in &self.lines {
                    let rate = found(line).map(|spread| short(spread.median * place / 1e6));
                    out += &format!(" {} |", rate.unwrap_or_default());
                }
            }
            out += "\n";
        }
        out
    }
}

fn cell(spread: Spread) -> String {
    if spread.least == spread.greatest {
        return short(spread.median);
    }
    format!(
        "{} ({} to {})",
        short(spread.median),
        short(spread.least),
        short(spread.greatest)
    )
}

/// A round number with its power of two, or as it is.
fn with_unit(value: f64, is_bytes: bool) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    if !is_bytes {
        return format!("{value:.0}");
    }
    let (mut rest, mut units) = (value, UNITS.iter());
    let mut unit = units.next();
    while rest >= 1024.0 {
        let Some(next) = units.next() else { break };
        unit = Some(next);
        rest /= 1024.0;
    }
    format!("{rest} {}", unit.unwrap_or(&"B"))
}

fn head(facts: &Facts, quick: bool, rounds: usize) -> Vec<String> {
    let mut out = vec![format!("{}; {}", facts.date(), facts.short())];
    out.push(if quick {
        "A quick run on a busy machine: not for quoting.".to_owned()
    } else {
        format!("Medians of {rounds} rounds; each point in a process of its own.")
    });
    out
}

pub(crate) fn text(measured: &[Measured], facts: &Facts, quick: bool, rounds: usize) -> String {
    let mut out = String::from("# How cost grows\n\n");
    out += &head(facts, quick, rounds).join(". ");
    out += "\n\nMade by `lanterman-scale` ([how](README.md#how-cost-grows)). An exponent is the power of what is across with which the cost grows, fitted over \
            the last decade, or its last two points: 0 is flat, 1 is linear. Beside it stands what a logarithm would seem to have over the same \
            points; what is more than 0.15 above that counts as worse. The lines that begin with «bare» are the machine's limits.\n\n## What grows worse than O(log n)\n\n";
    let mut worse = 0;
    for series in measured {
        for line in series.lines.iter().filter(|line| !line.name.starts_with(LIMIT)) {
            let verdict = series.verdict(line);
            if verdict.contains("worse than a logarithm**") {
                out += &format!("- {}, {}: {verdict}.\n", series.plan.title, line.name);
                worse += 1;
            }
        }
    }
    if worse == 0 {
        out += "Nothing but the payload.\n";
    }
    for series in measured {
        let plan = series.plan;
        out += &format!(
            "\n## {}\n\n![{}](scale-{}.svg)\n\n{}\n\n{}\n",
            plan.title,
            plan.title,
            plan.name,
            plan.remark,
            series.table()
        );
        for line in &series.lines {
            out += &format!("- {}: {}.\n", line.name, series.verdict(line));
        }
    }
    out
}

pub(crate) fn chart(series: &Measured, facts: &Facts, quick: bool, rounds: usize) -> LineChart {
    let plan = series.plan;
    let bytes = plan.x.contains("bytes");
    let mut places: Vec<f64> = series
        .lines
        .iter()
        .flat_map(|line| line.points.iter().map(|(x, _)| *x))
        .collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    // Names of close places would cover each other.
    let named = places.iter().step_by(places.len().div_ceil(8).max(1));
    LineChart {
        title: plan.title.to_owned(),
        notes: head(facts, quick, rounds),
        x: Axis {
            label: plan.x.to_owned(),
            scale: Scale::Logarithmic,
            names: named.map(|value| (*value, with_unit(*value, bytes))).collect(),
        },
        y: Axis {
            label: plan.y.to_owned(),
            scale: Scale::Logarithmic,
            names: Vec::new(),
        },
        series: series
            .lines
            .iter()
            .map(|line| Series {
                name: line.name.clone(),
                points: line
                    .points
                    .iter()
                    .map(|(x, spread)| (*x, spread.median))
                    .collect(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, Measured, with_unit};
    use crate::series::SERIES;
    use lanterman_benches::spread::Spread;

    fn measured(number: usize, figures: [f64; 2]) -> Measured {
        let point = |x: f64, y: f64| (x, Spread::of(std::iter::once(y)));
        Measured {
            plan: &SERIES[number],
            lines: vec![Line {
                name: "ours".to_owned(),
                points: vec![point(100.0, figures[0]), point(1000.0, figures[1])],
            }],
        }
    }

    #[test]
    fn a_rate_that_falls_is_a_cost_that_grows() {
        let rates = measured(1, [1000.0, 100.0]);
        assert!(rates.verdict(&rates.lines[0]).contains("**worse"));
        let payload = measured(0, [1000.0, 100.0]);
        assert!(payload.verdict(&payload.lines[0]).contains("as the payload"));
        let costs = measured(4, [1000.0, 100.0]);
        assert!(costs.verdict(&costs.lines[0]).contains("no worse"));
    }

    #[test]
    fn sizes_are_told_in_the_unit_in_which_they_are_round() {
        assert_eq!(with_unit(16.0, true), "16 B");
        assert_eq!(with_unit(65536.0, true), "64 KiB");
        assert_eq!(with_unit(f64::from(1 << 20) * 1048576.0, true), "1 TiB");
        assert_eq!(with_unit(100_000.0, false), "100000");
    }
}
