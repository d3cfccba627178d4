//! Progress bars, for long work in front of a person only.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work shorter than this shows nothing.
const PATIENCE: Duration = Duration::from_millis(600);

/// How far the work has come, shown on standard error if that is a terminal.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    total_bytes: Option<u64>,
    began: Instant,
    done_bytes: u64,
    what: &'static str,
    wanted: bool,
}

impl Progress {
    pub(crate) fn new(what: &'static str, total_bytes: Option<u64>) -> Self {
        let wanted = std::io::stderr().is_terminal();
        Progress {
            bar: None,
            total_bytes,
            began: Instant::now(),
            done_bytes: 0,
            what,
            wanted,
        }
    }

    /// Counts work that is done.
    pub(crate) fn advance(&mut self, bytes: u64) {
        self.done_bytes = self.done_bytes.saturating_add(bytes);
        if !self.wanted || (self.bar.is_none() && self.began.elapsed() < PATIENCE) {
            return;
        }
        let (total, what) = (self.total_bytes, self.what);
        let bar = self.bar.get_or_insert_with(|| make_bar(what, total));
        bar.set_position(self.done_bytes);
    }

    /// Takes the bar away.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn make_bar(what: &'static str, total_bytes: Option<u64>) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(5);
    let (bar, template) = match total_bytes {
        Some(total) => (
            ProgressBar::with_draw_target(Some(total), target),
            "{msg} {bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
        ),
        None => (
            ProgressBar::with_draw_target(None, target),
            "{msg} {bytes}, {bytes_per_sec}, {elapsed}",
        ),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}
