//! Our compaction beside the rule of Kafka's log cleaner, over the same puts.
//!
//! Lanterman does the work; Kafka's rule is simulated, in bytes alone. Messages go to an active segment. When one closes and
//! the bytes that came since the last cleaning are at least `min.cleanable.dirty.ratio` of all that is closed, everything that is
//! closed is written anew without what is superseded in it (Kafka's documentation of that setting and of `log.segment.bytes`).
//! All messages have one size, so that the newest of each key take as many bytes as there are keys, wherever they stand.
//!
//! Time is simulated too: Lanterman looks once a second whether it has to compact, and here a second has
//! [`PUTS_PER_SECOND`] puts. So the figures are the same on a busy machine.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lanterman::{Background, Clock, Durability, Keyed, NewMessage, Options};

use crate::Result;
use crate::random::{Random, key};

const VALUE_BYTES: usize = 100;
const PUTS_PER_SECOND: u64 = 10_000;
/// How many puts come between two turns of the background.
const PUTS_PER_TURN: u64 = 500;
/// How often what is kept is looked at.
const POINTS: u64 = 100;
/// Kafka's default of `min.cleanable.dirty.ratio`.
const DIRTY_PERCENT_MIN: u64 = 50;
/// Kafka's default is 1 GiB, of which none closes in so short a stream.
const SEGMENT_MIB: [u64; 2] = [1, 16];
/// Our default, and what Kafka's ratio leaves right before a cleaning.
const SPACE_AMPLIFICATION_PERCENT: [u32; 2] = [150, 200];

/// Which keys are put.
#[derive(Clone, Copy)]
enum Distribution {
    Uniform,
    Skewed,
}

impl Distribution {
    fn next(self, random: &mut Random, keys: u64) -> u64 {
        match self {
            Distribution::Uniform => random.below(keys),
            Distribution::Skewed => {
                let unit = random.below(1 << 32) as f64 / (1_u64 << 32) as f64;
                (keys as f64 * unit.powi(4)) as u64
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Distribution::Uniform => "uniform",
            Distribution::Skewed => "skewed",
        }
    }
}

/// The keys of all puts, in their order.
struct Stream {
    distribution: Distribution,
    puts: u64,
    keys: u64,
}

impl Stream {
    fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let mut random = Random(5);
        (0..self.puts).map(move |_| self.distribution.next(&mut random, self.keys))
    }

    fn is_point(&self, puts: u64) -> bool {
        puts.is_multiple_of((self.puts / POINTS).max(1))
    }
}

/// What a rule did, in messages.
#[derive(Default)]
struct Outcome {
    rewritten: f64,
    /// At each point what was kept, for each message that is the newest of its key.
    amplifications: Vec<f64>,
}

impl Outcome {
    fn print(&self, distribution: Distribution, rule: &str, puts: u64) {
        let mean = self.amplifications.iter().sum::<f64>() / self.amplifications.len() as f64;
        let greatest = self.amplifications.iter().copied().fold(0.0, f64::max);
        let rewritten = self.rewritten / puts as f64;
        let name = distribution.name();
        println!("| {name} | {rule} | {rewritten:.2} | {mean:.2} | {greatest:.2} |");
    }
}

/// Kafka's rule, with segments of so many messages.
fn simulate_cleaner(stream: &Stream, segment_messages: u64) -> Outcome {
    let mut outcome = Outcome::default();
    let mut closed_keys = HashSet::new();
    let mut keys = HashSet::new();
    let mut active = Vec::new();
    let (mut clean, mut dirty) = (0_u64, 0_u64);
    for (index, key) in (1..).zip(stream.iter()) {
        keys.insert(key);
        active.push(key);
        if active.len() as u64 >= segment_messages {
            dirty += active.len() as u64;
            closed_keys.extend(active.drain(..));
            if dirty * 100 >= (clean + dirty) * DIRTY_PERCENT_MIN {
                clean = closed_keys.len() as u64;
                dirty = 0;
                outcome.rewritten += clean as f64;
            }
        }
        if stream.is_point(index) {
            let kept = clean + dirty + active.len() as u64;
            outcome.amplifications.push(kept as f64 / keys.len() as f64);
        }
    }
    outcome
}

/// Time that passes when it is told to.
#[derive(Debug, Default)]
struct ToldClock {
    milliseconds: AtomicU64,
}

impl ToldClock {
    fn pass(&self, milliseconds: u64) {
        self.milliseconds.fetch_add(milliseconds, Ordering::Relaxed);
    }
}

impl Clock for ToldClock {
    fn wall_ms(&self) -> i64 {
        let began_ms = 1_700_000_000_000;
        began_ms + self.milliseconds.load(Ordering::Relaxed) as i64
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.milliseconds.load(Ordering::Relaxed))
    }
}

/// The same puts to a store, whose background this thread steps.
fn compact(stream: &Stream, percent: u32) -> Result<Outcome> {
    let directory = tempfile::tempdir_in(std::env::current_dir()?)?;
    let clock = Arc::new(ToldClock::default());
    let options = Options::new()
        .background(Background::Manual)
        .compact(true)
        .clock(clock.clone());
    // SAFETY: no other program touches the directory, which was made for this run.
    let store = unsafe { options.open(directory.path().join("table")) }?;
    store.set_keyed("table", Some(&Keyed::new().space_amplification_percent(percent)))?;
    let mut writer = store.writer("table")?;
    let mut keys = HashSet::new();
    let mut points = Vec::new();
    for (index, number) in (1..).zip(stream.iter()) {
        keys.insert(number);
        writer.append_message(&NewMessage::new(&[b'v'; VALUE_BYTES]).key(&key(number)))?;
        if index % PUTS_PER_TURN == 0 {
            writer.commit(Durability::Process)?;
            clock.pass(PUTS_PER_TURN * 1000 / PUTS_PER_SECOND);
            while store.step()? {}
        }
        if stream.is_point(index) {
            points.push((index, keys.len(), store.counters().compaction_removed_bytes));
        }
    }
    writer.commit(Durability::Process)?;
    let plan = store.plan_compaction("table")?;
    if plan.keys == 0 || plan.keys != keys.len() as u64 {
        return Err(format!("{} keys were put, and the log has {}", keys.len(), plan.keys).into());
    }
    let message_bytes = plan.live_bytes as f64 / plan.keys as f64;
    let amplification = |&(puts, keys, removed_bytes): &(u64, usize, u64)| {
        (puts as f64 - removed_bytes as f64 / message_bytes) / keys as f64
    };
    Ok(Outcome {
        rewritten: store.counters().compaction_rewritten_bytes as f64 / message_bytes,
        amplifications: points.iter().map(amplification).collect(),
    })
}

/// Prints a table of both, for two distributions of keys.
pub(crate) fn compare(puts: u64) -> Result<()> {
    let keys = (puts / 10).max(1);
    println!(
        "{puts} puts of {VALUE_BYTES} B over {keys} keys, {PUTS_PER_SECOND} in a simulated second; kept: mean and greatest at {POINTS} points. \
         Kafka's rule is simulated (dirty at least {DIRTY_PERCENT_MIN} %).\n"
    );
    println!(
        "| keys | rule | rewritten, bytes a byte put | kept, bytes a byte of the newest: mean | greatest |"
    );
    println!("|---|---|---:|---:|---:|");
    let message_bytes = (VALUE_BYTES + key(0).len()) as u64;
    for distribution in [Distribution::Uniform, Distribution::Skewed] {
        let stream = Stream {
            distribution,
            puts,
            keys,
        };
        for percent in SPACE_AMPLIFICATION_PERCENT {
            compact(&stream, percent)?.print(distribution, &format!("Lanterman, {percent} %"), puts);
        }
        for mebibytes in SEGMENT_MIB {
            let outcome = simulate_cleaner(&stream, (mebibytes << 20) / message_bytes);
            outcome.print(
                distribution,
                &format!("Kafka's, segments of {mebibytes} MiB"),
                puts,
            );
        }
    }
    Ok(())
}
