//! Progress bars, for long work in front of a person only.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::text::Size;

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
        let total = self.total_bytes;
        let text = self.text();
        let bar = self.bar.get_or_insert_with(|| make_bar(total));
        bar.set_position(self.done_bytes);
        bar.set_message(text);
    }

    /// What is done, how fast, and how long it will take: from the whole time, so that a late bar begins with the truth.
    fn text(&self) -> String {
        let seconds = self.began.elapsed().as_secs().max(1);
        let rate = (self.done_bytes / seconds).max(1);
        let (what, done, rate_text) = (self.what, Size(self.done_bytes), Size(rate));
        match self
            .total_bytes
            .and_then(|total| total.checked_sub(self.done_bytes))
        {
            Some(left) => format!("{what} {done}, {rate_text}/s, {} s left", left / rate),
            None => format!("{what} {done}, {rate_text}/s"),
        }
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

fn make_bar(total_bytes: Option<u64>) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(5);
    let template = if total_bytes.is_some() {
        "{bar:30} {msg}"
    } else {
        "{msg}"
    };
    let bar = ProgressBar::with_draw_target(total_bytes, target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
