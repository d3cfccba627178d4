//! The table for people, the same for machines, and the chart.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use lanterman_benches::chart::{RatioChart, RatioRow};
use lanterman_benches::machine::Facts;
use lanterman_benches::spread::{Spread, short};
use serde_json::{Value, json};

use crate::campaign::{Plan, Results};
use crate::engines;
use crate::rows::{self, Better, Row};
use crate::workloads::{Figure, Figures};

/// A cell of the table.
enum Cell {
    Measured { spread: Spread, rounds: Vec<f64> },
    Cannot(String),
}

/// A row with what was measured.
struct Measured {
    row: &'static Row,
    limit: Option<Spread>,
    /// In the order of the engines.
    cells: Vec<(&'static str, Cell)>,
}

/// All rows that were measured.
pub(crate) struct Report<'a> {
    facts: &'a Facts,
    plan: &'a Plan,
    limits: BTreeMap<String, Spread>,
    rows: Vec<Measured>,
}

fn value(figure: &Figure) -> Option<f64> {
    match figure {
        Figure::Value(value) => Some(*value),
        Figure::Cannot(_) => None,
    }
}

fn cell(figures: &[Figure], factor: f64) -> Option<Cell> {
    let cannot = figures.iter().find_map(|figure| match figure {
        Figure::Cannot(reason) => Some(Cell::Cannot(reason.clone())),
        Figure::Value(_) => None,
    });
    if cannot.is_some() || figures.is_empty() {
        return cannot;
    }
    let rounds: Vec<f64> = figures
        .iter()
        .filter_map(value)
        .map(|value| value * factor)
        .collect();
    Some(Cell::Measured {
        spread: Spread::of(rounds.iter().copied()),
        rounds,
    })
}

fn all_limits(rounds: &[Figures]) -> BTreeMap<String, Spread> {
    let names = rounds.iter().flat_map(|figures| figures.keys());
    names
        .map(|name| {
            let values = rounds
                .iter()
                .filter_map(|figures| figures.get(name).and_then(value));
            (name.clone(), Spread::of(values))
        })
        .collect()
}

impl Measured {
    fn ours(&self) -> Option<(&Spread, &[f64])> {
        self.measured()
            .find(|cell| cell.0 == engines::ALL[0].name)
            .map(|cell| (cell.1, cell.2))
    }

    fn measured(&self) -> impl Iterator<Item = (&'static str, &Spread, &[f64])> {
        self.cells.iter().filter_map(|(name, cell)| match cell {
            Cell::Measured { spread, rounds } => Some((*name, spread, rounds.as_slice())),
            Cell::Cannot(_) => None,
        })
    }

    /// How many times as good as `than` a figure is.
    fn times(&self, figure: f64, than: f64) -> f64 {
        match self.row.better {
            Better::Higher => figure / than.max(f64::MIN_POSITIVE),
            Better::Lower => than / figure.max(f64::MIN_POSITIVE),
        }
    }

    /// The peer with the best median.
    fn best_peer(&self) -> Option<(&'static str, &Spread, &[f64])> {
        let peers = self.measured().filter(|cell| cell.0 != engines::ALL[0].name);
        peers.max_by(|left, right| {
            self.times(left.1.median, 1.0)
                .total_cmp(&self.times(right.1.median, 1.0))
        })
    }

    /// The ratios of the rounds to the best peer, each within its round.
    fn ratio(&self) -> Option<Spread> {
        let (_, ours) = self.ours()?;
        let (_, _, theirs) = self.best_peer()?;
        let ratios = ours
            .iter()
            .zip(theirs)
            .map(|(ours, theirs)| self.times(*ours, *theirs));
        Some(Spread::of(ratios))
    }

    fn chart_row(&self) -> Option<RatioRow> {
        let (_, best, _) = self.best_peer()?;
        let peers = self.measured().filter(|cell| cell.0 != engines::ALL[0].name);
        Some(RatioRow {
            label: self.row.label.to_owned(),
            ours: self.ratio()?.median,
            others: peers
                .map(|(name, spread, _)| (name.to_owned(), self.times(spread.median, best.median)))
                .collect(),
        })
    }

    fn json(&self) -> Value {
        let cells: BTreeMap<&str, Value> = self
            .cells
            .iter()
            .map(|(name, cell)| {
                let value = match cell {
                    Cell::Measured { spread, rounds } => json!({"spread": spread, "rounds": rounds}),
                    Cell::Cannot(reason) => json!({"cannot": reason}),
                };
                (*name, value)
            })
            .collect();
        json!({
            "row": self.row.label,
            "unit": self.row.unit,
            "better": if self.row.better == Better::Higher { "higher" } else { "lower" },
            "limit": self.limit,
            "limit_is": self.row.limit.map(|limit| limit.1),
            "engines": cells,
            "best_peer": self.best_peer().map(|peer| peer.0),
            "ratio_to_best_peer": self.ratio(),
        })
    }
}

impl<'a> Report<'a> {
    pub(crate) fn new(facts: &'a Facts, plan: &'a Plan, results: &Results) -> Self {
        let limits = all_limits(&results.limits);
        let measured = |row: &'static Row| {
            let cells: Vec<_> = plan
                .engines
                .iter()
                .filter_map(|engine| {
                    let figures = results.of(row.workload, engine.name, row.figure);
                    Some((engine.name, cell(&figures, row.factor)?))
                })
                .collect();
            let limit = row
                .limit
                .and_then(|(figure, _)| limits.get(figure))
                .map(|limit| Spread {
                    least: limit.least * row.factor,
                    median: limit.median * row.factor,
                    greatest: limit.greatest * row.factor,
                });
            (!cells.is_empty()).then_some(Measured { row, limit, cells })
        };
        Report {
            facts,
            plan,
            rows: rows::ALL.iter().filter_map(measured).collect(),
            limits,
        }
    }

    /// Who was measured.
    fn versions(&self) -> String {
        let named: Vec<String> = self
            .plan
            .engines
            .iter()
            .map(|engine| format!("{} {}", engine.name, engines::version(engine.package)))
            .collect();
        named.join(", ")
    }

    /// Chart, table, and whoever is ahead: what a reader wants to see first.
    pub(crate) fn summary(&self, chart: &str) -> String {
        let mut out = String::new();
        let rounds = self.plan.rounds;
        writeln!(
            out,
            "Measured on {} with {} on {}\nMedians of {rounds} round{}; ratios are of figures of the same round.\n",
            self.facts.date(),
            self.versions(),
            self.facts.markdown().trim_end(),
            if rounds == 1 { ", which says little" } else { "s" },
        )
        .expect("a string takes what is written");
        if let Some(short) = self.plan.shortness() {
            writeln!(out, "**{short}**\n").expect("a string takes what is written");
        }
        writeln!(
            out,
            "![How many times as good as the best of the others, a row a measurement]({chart})\n"
        )
        .expect("a string takes what is written");
        out += &self.table();
        out += &self.ahead();
        out
    }

    /// Medians, with dashes where an engine cannot, and the reasons below.
    fn table(&self) -> String {
        let mut out = String::from("| what | unit |");
        let names = self.plan.engines.iter().map(|engine| engine.name);
        names.clone().for_each(|name| out += &format!(" {name} |"));
        out += " limit | ratio to the best peer |\n|---|---|";
        names.clone().for_each(|_| out += "---:|");
        out += "---:|---:|\n";
        let mut reasons: Vec<String> = Vec::new();
        for measured in &self.rows {
            out += &format!("| {} | {} |", measured.row.label, measured.row.unit);
            for name in names.clone() {
                let cell = measured.cells.iter().find(|cell| cell.0 == name);
                let text = match cell.map(|cell| &cell.1) {
                    Some(Cell::Measured { spread, .. }) => short(spread.median),
                    Some(Cell::Cannot(reason)) => dash(&mut reasons, format!("{name}: {reason}")),
                    None => String::new(),
                };
                out += &format!(" {text} |");
            }
            let limit = measured
                .limit
                .map_or_else(String::new, |limit| short(limit.median));
            let ratio = measured.ratio().map_or_else(String::new, |ratio| {
                format!(
                    "{} ({} to {})",
                    short(ratio.median),
                    short(ratio.least),
                    short(ratio.greatest)
                )
            });
            out += &format!(" {limit} | {ratio} |\n");
        }
        out += "\n";
        for (number, reason) in reasons.iter().enumerate() {
            out += &format!("<sup>{}</sup> {reason}.  \n", number + 1);
        }
        out + "\n"
    }

    /// Every row where another engine is ahead.
    fn ahead(&self) -> String {
        let behind: Vec<String> = self
            .rows
            .iter()
            .filter_map(|measured| {
                let (ratio, best) = (measured.ratio()?.median, measured.best_peer()?.0);
                (ratio < 1.0)
                    .then(|| format!("- {}: {best}, {} times", measured.row.label, short(1.0 / ratio)))
            })
            .collect();
        if behind.is_empty() {
            return "No other engine is ahead in any row.\n".to_owned();
        }
        format!(
            "Another engine is ahead in these rows:\n\n{}\n",
            behind.join("\n")
        )
    }

    /// The whole document.
    pub(crate) fn markdown(&self, chart: &str) -> String {
        let mut out = String::from("# Lanterman beside its peers\n\n");
        out += &self.summary(chart);
        out += "\n## What «appended» means\n\nWithout a sync, an append returns when the message is:\n\n";
        for engine in &self.plan.engines {
            out += &format!("- {}: {}\n", engine.name, engine.appended_means);
        }
        out += "\n## Spread\n\nLeast and greatest of the rounds.\n\n| what | unit |";
        self.plan
            .engines
            .iter()
            .for_each(|engine| out += &format!(" {} |", engine.name));
        out += "\n|---|---|";
        self.plan.engines.iter().for_each(|_| out += "---:|");
        out += "\n";
        for measured in &self.rows {
            out += &format!("| {} | {} |", measured.row.label, measured.row.unit);
            for engine in &self.plan.engines {
                let found = measured.measured().find(|cell| cell.0 == engine.name);
                let text = found.map_or_else(String::new, |(_, spread, _)| {
                    format!("{} to {}", short(spread.least), short(spread.greatest))
                });
                out += &format!(" {text} |");
            }
            out += "\n";
        }
        out += "\n## The machine\n\n| limit | median | least to greatest |\n|---|---:|---:|\n";
        for (name, limit) in &self.limits {
            let name = name.replace('_', " ");
            out += &format!(
                "| {name} | {} | {} to {} |\n",
                short(limit.median),
                short(limit.least),
                short(limit.greatest)
            );
        }
        out
    }

    pub(crate) fn json(&self) -> Value {
        let versions: BTreeMap<&str, String> = self
            .plan
            .engines
            .iter()
            .map(|engine| (engine.name, engines::version(engine.package)))
            .collect();
        json!({
            "machine": self.facts,
            "versions": versions,
            "rounds": self.plan.rounds,
            "scale": self.plan.scale,
            "limits": self.limits,
            "rows": self.rows.iter().map(Measured::json).collect::<Vec<_>>(),
        })
    }

    pub(crate) fn chart(&self) -> String {
        let mut notes = vec![
            "How many times as good as the best of the others: right of 1× Lanterman is ahead, left of it behind.".to_owned(),
            "Grey dots are the others, those at the very left further away. At the right the ratio, and who that best is.".to_owned(),
            format!("{}; {}", self.facts.date(), self.facts.short()),
        ];
        notes.extend(self.plan.shortness());
        let chart = RatioChart {
            title: "Lanterman beside its peers".to_owned(),
            notes,
            rows: self.rows.iter().filter_map(Measured::chart_row).collect(),
        };
        chart.svg()
    }
}

/// A dash with the number of its reason.
fn dash(reasons: &mut Vec<String>, reason: String) -> String {
    let known = reasons.iter().position(|other| *other == reason);
    let number = known.unwrap_or_else(|| {
        reasons.push(reason);
        reasons.len() - 1
    });
    format!("– <sup>{}</sup>", number + 1)
}
