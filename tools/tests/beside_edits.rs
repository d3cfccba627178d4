//! Promise: the tools that read understand every edit as soon as it is durable, while the store stays open elsewhere and no
//! checkpoint says so yet: `verify` finds nothing wrong, `logs` and `read` show what the store holds. Shown by random edits,
//! after each of which they run. `LANTERMAN_SEED=n` replays one.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests stop at the first surprise"
)]

mod common;

use std::collections::BTreeMap;

use common::{Place, run, stderr, stdout};
use lanterman::{Background, Durability, Options, Retention, Store};
use serde_json::Value;

/// The line at each offset; nothing where it was deleted.
type Model = Vec<Option<String>>;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

struct Work {
    store: Store,
    path: String,
    random: Random,
    logs: BTreeMap<String, Model>,
    made: u64,
    lines: u64,
    context: String,
}

impl Work {
    fn any(&mut self) -> String {
        let number = self.random.below(self.logs.len() as u64);
        let nth = usize::try_from(number).unwrap();
        self.logs.keys().nth(nth).unwrap().clone()
    }

    fn append(&mut self, log: &str) {
        let mut writer = self.store.writer(log).unwrap();
        for _ in 0..1 + self.random.below(80) {
            self.lines += 1;
            let filling = "x".repeat(usize::try_from(self.random.below(700)).unwrap());
            let line = format!("{} {filling}", self.lines);
            writer.append(line.as_bytes()).unwrap();
            self.logs.get_mut(log).unwrap().push(Some(line));
        }
        writer.commit(Durability::Disk).unwrap();
    }

    fn part(&mut self, log: &str) -> std::ops::Range<usize> {
        let length = self.logs[log].len() as u64;
        let first = self.random.below(length);
        let end = first + self.random.below((length - first).min(90) + 1);
        usize::try_from(first).unwrap()..usize::try_from(end).unwrap()
    }

    fn edit(&mut self) -> &'static str {
        let log = self.any();
        let part = self.part(&log);
        let range = part.start as u64..part.end as u64;
        self.made += 1;
        let new = format!("log-{}", self.made);
        match self.random.below(12) {
            0..=2 => {
                self.append(&log);
                "append"
            }
            3 | 4 => {
                self.store.delete(&log, range).unwrap();
                self.logs.get_mut(&log).unwrap()[part].fill(None);
                "delete"
            }
            5 => {
                self.store
                    .retain(&log, &Retention::new().from(range.start))
                    .unwrap();
                self.logs.get_mut(&log).unwrap()[..part.start].fill(None);
                "retain"
            }
            6 if self.logs.len() < 8 => {
                self.store.fork(&log, &new).unwrap();
                self.logs.insert(new, self.logs[&log].clone());
                "fork"
            }
            7 | 8 if !part.is_empty() => {
                let other = self.any();
                if other == log || self.logs[&other].len() > 3_000 {
                    return "nothing";
                }
                self.store.splice(&other, &log, range).unwrap();
                let taken = self.logs[&log][part].to_vec();
                self.logs.get_mut(&other).unwrap().extend(taken);
                "splice"
            }
            9 if self.logs.len() > 2 => {
                self.store.drop_log(&log).unwrap();
                self.logs.remove(&log);
                "drop"
            }
            10 => {
                self.store.create_snapshot(&new, &[]).unwrap();
                "snapshot"
            }
            _ => {
                match self.random.below(3) {
                    0 => drop(self.store.collect().unwrap()),
                    1 => drop(self.store.checkpoint().unwrap()),
                    _ => while self.store.step().unwrap() {},
                }
                "checkpoint or collection"
            }
        }
    }

    fn tool(&self, arguments: &[&str]) -> String {
        let output = run(arguments);
        let (told, wrong) = (stdout(&output), stderr(&output));
        assert!(
            output.status.success(),
            "{}: {arguments:?}: {told}{wrong}",
            self.context
        );
        told
    }

    fn check(&mut self) {
        let path = self.path.clone();
        let verified: Value = serde_json::from_str(&self.tool(&["verify", &path, "--json"])).unwrap();
        assert_eq!(verified["well"], true, "{}: {verified}", self.context);
        self.tool(&["inspect", &path]);
        let log = self.any();
        let shown = self.tool(&["read", &path, &log]);
        let wanted: String = self.logs[&log]
            .iter()
            .flatten()
            .map(|line| format!("{line}\n"))
            .collect();
        assert!(shown == wanted, "{}: another content of {log}", self.context);
        let listed: Value = serde_json::from_str(&self.tool(&["logs", &path, "--json"])).unwrap();
        let ends: BTreeMap<String, u64> = listed
            .as_array()
            .or_else(|| listed["logs"].as_array())
            .unwrap()
            .iter()
            .map(|log| {
                (
                    log["log"].as_str().or(log["name"].as_str()).unwrap().to_owned(),
                    log["end"].as_u64().unwrap(),
                )
            })
            .collect();
        let wanted = self
            .logs
            .iter()
            .map(|(log, model)| (log.clone(), model.len() as u64));
        assert_eq!(ends, wanted.collect::<BTreeMap<_, _>>(), "{}", self.context);
    }
}

#[test]
fn the_tools_follow_every_edit_of_a_store_that_is_open() {
    let told = std::env::var("LANTERMAN_SEED").ok();
    let only: Option<u64> = told.and_then(|seed| seed.parse().ok());
    for seed in only.map_or(1..4, |seed| seed..seed + 1) {
        let place = Place::new();
        let path = place.text("store");
        let options = Options::new()
            .background(Background::Manual)
            .collect(false)
            .slab_bytes_max(64 << 10)
            .journal_bytes_max(256 << 10)
            .slab_segment_bytes(64 << 10, 512 << 10)
            .journal_segment_bytes(64 << 10, 256 << 10);
        let mut work = Work {
            store: options.open_copying(&path).unwrap(),
            path,
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            logs: ["first", "second"]
                .map(|log| (log.to_owned(), Model::new()))
                .into(),
            made: 0,
            lines: 0,
            context: format!("seed {seed}"),
        };
        work.append("first");
        work.append("second");
        for step in 0..60 {
            let done = work.edit();
            work.context = format!("seed {seed}, step {step}, after {done}");
            work.check();
        }
        work.store.close().unwrap();
    }
}
