//! How cost grows: with the size of messages, the number of logs and readers, and the size of the store.
//!
//! ```sh
//! cargo run --release -p lanterman-benches --no-default-features --bin lanterman-scale
//! ```
//!
//! Each point is measured in a process of its own, and a store that it needs is made by another. A round goes through all
//! points of a series; figures are medians of the rounds. Writes `scale.md` and a chart a series into `docs/benchmarks`.
//! `--quick` ends in about a minute, and its outputs say that they are not for quoting.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measuring program, which prints"
)]

mod report;
mod series;
mod work;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Parser, ValueEnum};
use lanterman_benches::spread::Spread;
use lanterman_benches::{Outcome, machine};

use report::{Line, Measured};
use series::{SERIES, SeriesPlan};
use work::{Point, Task};

/// Measures how cost grows.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
struct Arguments {
    /// Where the data is put; what a run makes there is removed at the end.
    #[arg(long, default_value = "target/scale-data")]
    directory: PathBuf,
    /// Where the text and the charts are put.
    #[arg(long, default_value = "docs/benchmarks")]
    output: PathBuf,
    /// Rounds; each measures every point once.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The largest store that is written, in GiB.
    #[arg(long, default_value_t = 4)]
    gib: u64,
    /// Less of everything and one round: shows that it works.
    #[arg(long)]
    quick: bool,
    /// The series whose names have this in them alone; their charts are written, the text is only printed.
    #[arg(long)]
    only: Option<String>,
    /// What one process does; used by the program itself.
    #[arg(long, hide = true, requires = "at")]
    task: Option<Task>,
    #[arg(long, hide = true)]
    at: Option<u64>,
    #[arg(long, hide = true)]
    prepare: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match (arguments.task, arguments.at) {
        (Some(task), Some(at)) => run_task(&arguments, task, at),
        _ => measure_all(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lanterman-scale: {error}");
            ExitCode::from(2)
        }
    }
}

fn run_task(arguments: &Arguments, task: Task, at: u64) -> Outcome<()> {
    if arguments.prepare {
        return work::prepare(task, at, &arguments.directory, arguments.quick);
    }
    let points = work::measure(task, at, &arguments.directory, arguments.quick)?;
    if task != Task::Reader {
        println!("{}", serde_json::to_string(&points)?);
    }
    Ok(())
}

fn measure_all(arguments: &Arguments) -> Outcome<()> {
    let own = arguments.directory.join(format!("run-{}", std::process::id()));
    std::fs::create_dir_all(&own)?;
    std::fs::create_dir_all(&arguments.output)?;
    let facts = machine::facts(&own, arguments.quick)?;
    let rounds = if arguments.quick {
        1
    } else {
        arguments.rounds.max(1)
    };
    let chosen = |plan: &&SeriesPlan| {
        let only = arguments.only.as_deref();
        only.is_none_or(|part| plan.name.contains(part))
    };
    let mut measured = Vec::new();
    for plan in SERIES.iter().filter(chosen) {
        let outcome = measure_series(arguments, plan, &own, rounds);
        if outcome.is_err() {
            std::fs::remove_dir_all(&own)?;
        }
        measured.push(outcome?);
    }
    std::fs::remove_dir_all(&own)?;
    let text = report::text(&measured, &facts, arguments.quick, rounds);
    println!("{text}");
    if arguments.only.is_none() {
        std::fs::write(arguments.output.join("scale.md"), text)?;
    }
    for series in &measured {
        let file = arguments.output.join(format!("scale-{}.svg", series.plan.name));
        std::fs::write(file, report::chart(series, &facts, arguments.quick, rounds).svg())?;
    }
    Ok(())
}

fn measure_series(
    arguments: &Arguments,
    plan: &'static SeriesPlan,
    own: &Path,
    rounds: usize,
) -> Outcome<Measured> {
    let mut places = Vec::new();
    for task in plan.tasks {
        for at in series::values(*task, arguments.quick, arguments.gib) {
            let path = own.join(format!("store-{}", places.len()));
            say(plan, "preparing", *task, at);
            start(arguments, *task, at, &path, true)?;
            places.push((*task, at, path));
        }
    }
    let mut points = Vec::new();
    for _ in 0..rounds {
        for (task, at, path) in &places {
            say(plan, "measuring", *task, *at);
            points.extend(start(arguments, *task, *at, path, false)?);
        }
    }
    eprintln!();
    for (_, _, path) in places {
        if path.exists() {
            std::fs::remove_dir_all(path)?;
        }
    }
    Ok(Measured {
        plan,
        lines: medians(&points),
    })
}

fn say(plan: &SeriesPlan, what: &str, task: Task, at: u64) {
    let task = format!("{task:?}");
    eprint!("\r{:<12} {what} {task:<18} {at:<16}", plan.name);
}

/// Does a task in another process, and takes what it tells.
fn start(arguments: &Arguments, task: Task, at: u64, path: &Path, prepare: bool) -> Outcome<Vec<Point>> {
    let name = task.to_possible_value().ok_or("a task without a name")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--task", name.get_name(), "--at", &at.to_string()]);
    command.arg("--directory").arg(path);
    if prepare {
        command.arg("--prepare");
    }
    if arguments.quick {
        command.arg("--quick");
    }
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} at {at}: {}, {said}", name.get_name(), output.status).into());
    }
    if prepare {
        return Ok(Vec::new());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The median of each place of each line, lines and places in the order in which they came first.
fn medians(points: &[Point]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for found in points {
        let known = lines
            .iter()
            .any(|line| line.name == found.line && line.points.iter().any(|(x, _)| *x == found.x));
        if known {
            continue;
        }
        let same = points
            .iter()
            .filter(|other| other.line == found.line && other.x == found.x);
        let place = (found.x, Spread::of(same.map(|other| other.y)));
        match lines.iter_mut().find(|line| line.name == found.line) {
            Some(line) => line.points.push(place),
            None => lines.push(Line {
                name: found.line.clone(),
                points: vec![place],
            }),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{Point, medians};

    #[test]
    fn rounds_of_a_place_become_its_median() {
        let point = |line: &str, x, y| Point {
            line: line.to_owned(),
            x,
            y,
        };
        let points = [
            point("ours", 1.0, 5.0),
            point("bare", 1.0, 9.0),
            point("ours", 10.0, 7.0),
            point("ours", 1.0, 4.0),
            point("ours", 1.0, 90.0),
        ];
        let lines = medians(&points);
        let found: Vec<_> = lines
            .iter()
            .map(|line| {
                let middles: Vec<_> = line.points.iter().map(|(x, y)| (*x, y.median)).collect();
                (line.name.as_str(), middles)
            })
            .collect();
        assert_eq!(
            found,
            [
                ("ours", vec![(1.0, 5.0), (10.0, 7.0)]),
                ("bare", vec![(1.0, 9.0)])
            ]
        );
    }
}
