//! Runs every workload of every engine in a process of its own, round after round, in an order that changes.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lanterman_benches::bare;

use crate::engine::{Failure, Outcome};
use crate::engines::{self, Entry};
use crate::workloads::{Figure, Figures, Workload, files_in};

/// What a run is told.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) directory: PathBuf,
    pub(crate) rounds: usize,
    pub(crate) scale: f64,
    pub(crate) sustained_gigabytes: f64,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) engines: Vec<&'static Entry>,
}

impl Plan {
    /// Whether it shows no more than that everything works.
    pub(crate) fn is_trial(&self) -> bool {
        self.scale < 1.0 && self.rounds == 1
    }

    /// What its outputs must say if it measures less than a full run.
    pub(crate) fn shortness(&self) -> Option<String> {
        if self.is_trial() {
            return Some("A short run: it shows that everything works, and is not for quoting.".to_owned());
        }
        let percent = self.scale * 100.0;
        let gigabytes = self.sustained_gigabytes;
        (self.scale < 1.0).then(|| {
            format!(
                "{percent:.0} % of the data and time that a full run takes; {gigabytes} GB at most where it is sustained."
            )
        })
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// By workload and engine, a set of figures a round.
    figures: BTreeMap<(String, &'static str), Vec<Figures>>,
    /// The machine's limits, a set a round.
    pub(crate) limits: Vec<Figures>,
}

impl Results {
    fn add(&mut self, workload: Workload, engine: &'static str, figures: Figures) {
        let key = (format!("{workload:?}"), engine);
        self.figures.entry(key).or_default().push(figures);
    }

    /// The figure of each round; empty if the workload was not run.
    pub(crate) fn of(&self, workload: Workload, engine: &'static str, figure: &str) -> Vec<Figure> {
        let rounds = self.figures.get(&(format!("{workload:?}"), engine));
        rounds
            .into_iter()
            .flatten()
            .filter_map(|figures| figures.get(figure).or_else(|| figures.get(FAILED)).cloned())
            .collect()
    }
}

/// The name under which a workload that gave nothing says why.
const FAILED: &str = "failed";
/// The name of the child that measures the machine.
pub(crate) const LIMITS: &str = "limits";
/// No workload takes longer, fillings included; what does is stopped and said to have taken too long.
const TIME_MAX: Duration = Duration::from_secs(180);

/// Runs it all.
pub(crate) fn run(plan: &Plan) -> Outcome<Results> {
    let mut results = Results::default();
    for round in 0..plan.rounds {
        let path = plan.fresh("limits")?;
        results.limits.push(child(plan, LIMITS, None, &path)?);
        std::fs::remove_dir_all(&path)?;
        for (number, workload) in plan.workloads.iter().enumerate() {
            for turn in 0..plan.engines.len() {
                // Another engine begins each round, and each workload.
                let engine = plan.engines[(turn + round + number) % plan.engines.len()];
                eprint!(
                    "\rround {} of {}: {workload:?} {:<24}",
                    round + 1,
                    plan.rounds,
                    engine.name
                );
                let figures = match one(plan, *workload, engine, round)? {
                    Some(figures) => figures,
                    None => continue,
                };
                let failed = figures
                    .get(FAILED)
                    .filter(|_| engine.name == engines::ALL[0].name);
                if let Some(failed) = failed {
                    return Err(Failure::because(format!("{workload:?}: {failed:?}")));
                }
                results.add(*workload, engine.name, figures);
                // What one left to be written must not be written while the next is measured.
                rustix::fs::syncfs(File::open(&plan.directory)?)?;
            }
        }
    }
    eprintln!();
    Ok(results)
}

/// One workload of one engine; nothing if it had been done before and is kept.
fn one(plan: &Plan, workload: Workload, engine: &'static Entry, round: usize) -> Outcome<Option<Figures>> {
    let library = plan.directory.join(format!("library-{}", engine.name));
    match workload {
        Workload::Fill if round > 0 => Ok(None),
        Workload::Fill => {
            std::fs::create_dir_all(&library)?;
            child(plan, engine.name, Some(workload), &library).map(Some)
        }
        Workload::Random | Workload::ScanWarm => child(plan, engine.name, Some(workload), &library).map(Some),
        Workload::ScanCold => {
            bare::drop_caches(&files_in(&library)?).map_err(Failure::Failed)?;
            child(plan, engine.name, Some(workload), &library).map(Some)
        }
        Workload::Reopen => reopen(plan, engine).map(Some),
        _ => {
            let path = plan.fresh("data")?;
            let figures = child(plan, engine.name, Some(workload), &path)?;
            std::fs::remove_dir_all(&path)?;
            Ok(Some(figures))
        }
    }
}

/// Fills and ends in either way, and opens.
fn reopen(plan: &Plan, engine: &'static Entry) -> Outcome<Figures> {
    let mut all = Figures::new();
    for (fill, name) in [
        (Workload::FillAndClose, "clean_ms"),
        (Workload::FillAndDie, "killed_ms"),
    ] {
        let path = plan.fresh("data")?;
        let mut figures = child(plan, engine.name, Some(fill), &path)?;
        if !figures.contains_key(FAILED) {
            figures = child(plan, engine.name, Some(Workload::Reopen), &path)?;
        }
        let figure = figures.remove("ms").or_else(|| figures.remove(FAILED));
        all.extend(figure.map(|figure| (name.to_owned(), figure)));
        std::fs::remove_dir_all(&path)?;
    }
    Ok(all)
}

impl Plan {
    fn fresh(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.directory.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::create_dir(&path)?;
        Ok(path)
    }
}

/// Starts this program again for one measurement. What it cannot do, and what fails, comes back as a figure that says so.
fn child(plan: &Plan, engine: &str, workload: Option<Workload>, directory: &Path) -> Outcome<Figures> {
    let log = directory.with_extension("log");
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--child", engine, "--directory"])
        .arg(directory)
        .args(["--scale", &plan.scale.to_string()])
        .args(["--sustained-gb", &plan.sustained_gigabytes.to_string()])
        .env("WALRUS_DATA_DIR", directory)
        .env("WALRUS_QUIET", "1")
        .stdin(Stdio::null())
        .stdout(File::create(&log)?)
        .stderr(Stdio::piped());
    if let Some(workload) = workload {
        let name = clap::ValueEnum::to_possible_value(&workload);
        command
            .arg("--only")
            .arg(name.map_or_else(String::new, |name| name.get_name().to_owned()));
    }
    let mut running = command.spawn()?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = running.try_wait()? {
            break status;
        }
        if start.elapsed() > TIME_MAX {
            running.kill()?;
            running.wait()?;
            return Ok(failed(format!("took longer than {} s", TIME_MAX.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let text = std::fs::read_to_string(&log)?;
    let found = text
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str(line).ok());
    match (found, workload) {
        (Some(figures), _) => Ok(figures),
        (None, Some(Workload::FillAndDie)) if !status.success() => Ok(Figures::new()),
        (None, _) => {
            let output = running.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Ok(failed(format!(
                "{status}: {}",
                said.lines().next_back().unwrap_or_default()
            )))
        }
    }
}

fn failed(text: String) -> Figures {
    Figures::from([(FAILED.to_owned(), Figure::Cannot(text))])
}

/// What a child prints when its engine cannot do what it was asked for.
pub(crate) fn cannot(reason: &str) -> Figures {
    failed(reason.to_owned())
}
