//! Samples of rounds, and the one table that they become.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::Outcome;
use crate::machine::Facts;
use lanterman_benches::spread::{Spread, short};

/// Which way a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    /// Rates.
    Higher,
    /// Times and sizes.
    Lower,
}

/// One figure of one round, beside the limit that was measured with it.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) row: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    pub(crate) ours: f64,
    pub(crate) limit: f64,
    pub(crate) limit_name: &'static str,
    /// The ratio to reach: at least for rates, at most for times and sizes.
    pub(crate) target: Option<f64>,
}

impl Sample {
    pub(crate) fn rate(
        row: &'static str,
        unit: &'static str,
        ours: f64,
        limit: f64,
        limit_name: &'static str,
    ) -> Self {
        Sample {
            row,
            unit,
            better: Better::Higher,
            ours,
            limit,
            limit_name,
            target: None,
        }
    }

    pub(crate) fn cost(
        row: &'static str,
        unit: &'static str,
        ours: f64,
        limit: f64,
        limit_name: &'static str,
    ) -> Self {
        Sample {
            better: Better::Lower,
            ..Self::rate(row, unit, ours, limit, limit_name)
        }
    }

    pub(crate) fn target(mut self, ratio: f64) -> Self {
        self.target = Some(ratio);
        self
    }

    fn ratio(&self) -> f64 {
        self.ours / self.limit
    }
}

/// All rounds of a row.
#[derive(Debug)]
struct Row {
    samples: Vec<Sample>,
    /// In which the last of them was measured; a row may be missing in some.
    last_round: usize,
}

/// Rows in the order in which they first came.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

impl Row {
    fn first(&self) -> &Sample {
        &self.samples[0]
    }

    fn ours(&self) -> Spread {
        Spread::of(self.samples.iter().map(|sample| sample.ours))
    }

    fn limit(&self) -> Spread {
        Spread::of(self.samples.iter().map(|sample| sample.limit))
    }

    fn ratio(&self) -> Spread {
        Spread::of(self.samples.iter().map(Sample::ratio))
    }

    fn verdict(&self) -> &'static str {
        let ratio = self.ratio().median;
        match (self.first().target, self.first().better) {
            (None, _) => "",
            (Some(target), Better::Higher) if ratio >= target => "reached",
            (Some(target), Better::Lower) if ratio <= target => "reached",
            _ => "missed",
        }
    }
}

impl Table {
    /// Takes what one group measured in round `round`, from 0.
    ///
    /// # Errors
    /// The name of a row that is there in this round already: two rows of one name would become one, and the table would
    /// show the median of two different things.
    pub(crate) fn add(&mut self, round: usize, samples: Vec<Sample>) -> Outcome<()> {
        for sample in samples {
            match self.rows.iter_mut().find(|row| row.first().row == sample.row) {
                Some(row) if row.last_round == round => {
                    return Err(format!("two rows are called {:?}", sample.row).into());
                }
                Some(row) => {
                    row.samples.push(sample);
                    row.last_round = round;
                }
                None => self.rows.push(Row {
                    samples: vec![sample],
                    last_round: round,
                }),
            }
        }
        Ok(())
    }

    /// The table for people.
    pub(crate) fn markdown(&self, rounds: usize) -> String {
        let mut out = format!(
            "Medians of {rounds} rounds; the ratio is that of each round, with least and greatest.\n\n\
             | what | unit | store | limit | ratio | least to greatest | target | | limit is |\n\
             |---|---|---|---|---|---|---|---|---|\n"
        );
        for row in &self.rows {
            let (sample, ratio) = (row.first(), row.ratio());
            let sign = if sample.better == Better::Higher {
                "≥"
            } else {
                "≤"
            };
            let target = sample
                .target
                .map_or_else(String::new, |target| format!("{sign} {target}"));
            writeln!(
                out,
                "| {} | {} | {} | {} | {:.2} | {:.2} to {:.2} | {target} | {} | {} |",
                sample.row,
                sample.unit,
                short(row.ours().median),
                short(row.limit().median),
                ratio.median,
                ratio.least,
                ratio.greatest,
                row.verdict(),
                sample.limit_name,
            )
            .expect("a string takes what is written");
        }
        out
    }

    /// Everything that was measured, for machines.
    pub(crate) fn json(&self, facts: &Facts, rounds: usize) -> Value {
        let spread = |spread: Spread| json!({"least": spread.least, "median": spread.median, "greatest": spread.greatest});
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let sample = row.first();
                json!({
                    "row": sample.row,
                    "unit": sample.unit,
                    "better": if sample.better == Better::Higher { "higher" } else { "lower" },
                    "store": spread(row.ours()),
                    "limit": spread(row.limit()),
                    "limit_is": sample.limit_name,
                    "ratio": spread(row.ratio()),
                    "target": sample.target,
                    "verdict": row.verdict(),
                    "rounds": row.samples.iter().map(|sample| json!([sample.ours, sample.limit])).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({"machine": facts, "rounds": rounds, "rows": rows})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_rows_of_one_name_in_a_round_are_refused() {
        let sample = |row| Sample::cost(row, "us", 1.0, 1.0, "nothing");
        let mut table = Table::default();
        for round in 0..3 {
            table.add(round, vec![sample("first"), sample("second")]).unwrap();
        }
        assert_eq!(
            table.rows.iter().map(|row| row.samples.len()).collect::<Vec<_>>(),
            [3, 3]
        );
        assert!(table.add(2, vec![sample("second")]).is_err());
        assert!(table.add(3, vec![sample("third"), sample("third")]).is_err());
    }
}
