//! Retention: how much of a log is kept, found out slab by slab from the front.
//!
//! What a limit names is always kept: the newest so many messages or bytes, everything younger than an age. Older slabs go
//! whole, so that up to a slab more than asked for stays, and the newest messages, which are not in a slab yet, always do.
//! The work is in the slabs that go.
//!
//! Ages are counted on the store's own clock (see [`StoreTime`]), and a slab is as old as its newest message or the moment
//! at which it was written, whichever is later. So neither a clock that jumps while the store is open nor a message that
//! says that it is old makes anything go early.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use lanterman_format::ids::Offset;
use lanterman_format::name::LogName;
use lanterman_format::settings::Retention as Told;

use crate::clock::Clock;
use crate::core::Core;
use crate::deletion::{DeletionPlan, DeletionReceipt};
use crate::edit::{Destroyed, Edit};
use crate::error::{Error, Result};
use crate::log::{LogState, Root};

/// The greatest age that can be asked for: a hundred years. What is meant to stay for ever has no limit.
const AGE_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// How often the background applies the retentions of logs at most.
const APPLY_INTERVAL: Duration = Duration::from_secs(1);

/// What of a log is kept. Without any limit: everything.
///
/// Of several limits the one counts that keeps the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Retention {
    /// Everything younger is kept.
    pub max_age: Option<Duration>,
    /// The newest so many bytes of keys and values are kept.
    pub max_bytes: Option<u64>,
    /// The newest so many messages are kept.
    pub max_messages: Option<u64>,
    /// Everything from this offset on is kept, and nothing before; exact, and not by slabs.
    pub from: Option<u64>,
}

impl Retention {
    /// Keeps everything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps what is younger.
    #[must_use]
    pub fn max_age(self, age: Duration) -> Self {
        Retention {
            max_age: Some(age),
            ..self
        }
    }

    /// Keeps the newest so many bytes of keys and values.
    #[must_use]
    pub fn max_bytes(self, bytes: u64) -> Self {
        Retention {
            max_bytes: Some(bytes),
            ..self
        }
    }

    /// Keeps the newest so many messages.
    #[must_use]
    pub fn max_messages(self, messages: u64) -> Self {
        Retention {
            max_messages: Some(messages),
            ..self
        }
    }

    /// Keeps everything from `offset` on, and nothing before.
    #[must_use]
    pub fn from(self, offset: u64) -> Self {
        Retention {
            from: Some(offset),
            ..self
        }
    }

    /// As a log's settings keep it.
    fn as_setting(&self) -> Result<Told> {
        self.check()?;
        if self.from.is_some() {
            return Err(Error::InvalidOption {
                option: "from",
                reason: "an offset is no lasting limit: apply it once",
            });
        }
        let age_ms = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Ok(Told {
            max_age_ms: self.max_age.map(age_ms),
            max_value_bytes: self.max_bytes,
            max_messages: self.max_messages,
        })
    }

    pub(crate) fn of_setting(told: &Told) -> Option<Self> {
        (!told.is_unlimited()).then_some(Retention {
            max_age: told.max_age_ms.map(Duration::from_millis),
            max_bytes: told.max_value_bytes,
            max_messages: told.max_messages,
            from: None,
        })
    }

    /// # Errors
    /// [`Error::InvalidOption`] for a limit that keeps nothing, an age of centuries, or no limit at all.
    fn check(&self) -> Result<()> {
        let refuse = |option, reason| Err(Error::InvalidOption { option, reason });
        let keeps_nothing = "keeps nothing: delete the messages instead";
        if *self == Retention::default() {
            return refuse("retention", "has no limit: nothing would go");
        }
        if self.max_age.is_some_and(|age| age.is_zero()) {
            return refuse("max_age", keeps_nothing);
        }
        if self.max_age.is_some_and(|age| age > AGE_MAX) {
            return refuse(
                "max_age",
                "is more than a hundred years: leave it out to keep everything",
            );
        }
        if self.max_bytes == Some(0) {
            return refuse("max_bytes", keeps_nothing);
        }
        if self.max_messages == Some(0) {
            return refuse("max_messages", keeps_nothing);
        }
        Ok(())
    }
}

/// The store's clock for ages: the wall clock as it was when the store was opened, or the time of the newest commit if
/// that is later, and from there on the monotonic clock.
#[derive(Debug)]
pub(crate) struct StoreTime {
    begin: Duration,
    begin_ms: i64,
    /// Of the newest commit that was found when the store was opened.
    floor_ms: AtomicI64,
}

impl StoreTime {
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        StoreTime {
            begin: clock.monotonic(),
            begin_ms: clock.wall_ms(),
            floor_ms: AtomicI64::new(i64::MIN),
        }
    }

    /// Takes up the time of a commit that was found: the store's time when it was opened was not before.
    pub(crate) fn found(&self, time_ms: i64) {
        self.floor_ms.fetch_max(time_ms, Ordering::Relaxed);
    }

    /// Milliseconds since 1970, never going back.
    pub(crate) fn now_ms(&self, clock: &dyn Clock) -> i64 {
        let open = clock.monotonic().saturating_sub(self.begin);
        let open_ms = i64::try_from(open.as_millis()).unwrap_or(i64::MAX);
        let begin_ms = self.begin_ms.max(self.floor_ms.load(Ordering::Relaxed));
        begin_ms.saturating_add(open_ms)
    }
}

impl Core {
    /// The time on the store's clock, in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        self.time.now_ms(self.clock.as_ref())
    }

    /// Where a log would begin if `retention` were applied now.
    fn retained_start(&self, log: &LogState, root: &Root, retention: &Retention) -> Result<u64> {
        let end = root.end();
        let from = retention.from.unwrap_or(root.start);
        if from > end {
            return Err(Error::InvalidRange {
                name: log.name.as_str().to_owned(),
                first: Offset::new(from),
                end: Offset::new(from),
                start: Offset::new(root.start),
                log_end: Offset::new(end),
                reason: "it begins behind the last message",
            });
        }
        let mut start = root.start;
        if retention.max_age.is_some() || retention.max_bytes.is_some() || retention.max_messages.is_some() {
            start = self.retained_slabs(log, root, retention)?;
        }
        Ok(start.max(from))
    }

    /// The first slab that a limit keeps begins there.
    fn retained_slabs(&self, log: &LogState, root: &Root, retention: &Retention) -> Result<u64> {
        let whole = self.summarise(log, root, root.end())?;
        let mut messages = whole.messages();
        let mut bytes = whole.value_bytes().saturating_add(whole.key_bytes());
        let oldest_ms = retention.max_age.map(|age| {
            let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            self.now_ms().saturating_sub(age_ms)
        });
        let mut start = root.start;
        for placed in root.tree.slabs_from(self.source.as_ref(), 0) {
            let placed = placed.map_err(|error| self.tree_error(log, error))?;
            let summary = &placed.entry.summary;
            let fewer = messages.saturating_sub(summary.messages);
            let less = bytes
                .saturating_sub(summary.value_bytes)
                .saturating_sub(summary.key_bytes);
            let goes = retention.max_messages.is_some_and(|kept| fewer >= kept)
                || retention.max_bytes.is_some_and(|kept| less >= kept)
                || oldest_ms.is_some_and(|oldest| summary.time_max_ms < oldest);
            if !goes {
                break;
            }
            messages = fewer;
            bytes = less;
            start = placed.end_offset().saturating_add(root.start);
        }
        Ok(start)
    }

    /// What applying `retention` would destroy.
    pub(crate) fn plan_retention(&self, name: &str, retention: &Retention) -> Result<DeletionPlan> {
        retention.check()?;
        LogName::parse(name)?;
        let log = self.find_log(name)?;
        let root = self.root_to_edit(&log)?;
        let start = self.retained_start(&log, &log.root(), retention)?;
        let (_, destroyed) = self.beginning_at(&log, &root, start)?;
        Ok(DeletionPlan::new(
            name,
            root.start..start.max(root.start),
            destroyed,
        ))
    }

    /// Keeps `retention` as a setting of the log, which the background applies; none keeps everything from now on.
    pub(crate) fn set_retention(&self, name: &str, retention: Option<&Retention>) -> Result<()> {
        self.check_writable("set a retention")?;
        LogName::parse(name)?;
        let log = self.find_log(name)?;
        let told = match retention {
            None => Told::default(),
            Some(retention) => retention.as_setting()?,
        };
        self.change_settings(&log, |settings| {
            settings.retention = told;
            Ok(())
        })
    }

    /// Applies the retentions that logs have as a setting, at most once an interval; says whether anything went.
    pub(crate) fn apply_retentions(&self) -> Result<bool> {
        if self.options.read_only {
            return Ok(false);
        }
        let now = self.clock.monotonic();
        {
            let mut last = self.retained_at.lock();
            if now.saturating_sub(*last) < APPLY_INTERVAL {
                return Ok(false);
            }
            *last = now;
        }
        let mut edits = Vec::new();
        for log in self.catalog.awake() {
            let Some(retention) = Retention::of_setting(&log.settings().retention) else {
                continue;
            };
            let root = log.root();
            let start = self.retained_start(&log, &root, &retention)?;
            if start > root.start {
                edits.push(Edit::Retain { log, start });
            }
        }
        if edits.is_empty() {
            return Ok(false);
        }
        match self.commit_edits(edits) {
            // One of them was dropped, or is being filled, just then: the next turn comes.
            Err(Error::UnknownLog { .. } | Error::Reserved { .. }) => Ok(false),
            outcome => outcome.map(|_| true),
        }
    }

    /// Applies `retention` to a log once, durably.
    pub(crate) fn retain(&self, name: &str, retention: &Retention) -> Result<DeletionReceipt> {
        self.check_writable("apply a retention")?;
        retention.check()?;
        LogName::parse(name)?;
        let log = self.find_log(name)?;
        let root = log.root();
        let start = self.retained_start(&log, &root, retention)?;
        if start <= root.start {
            let version = self.catalog.version();
            return Ok(DeletionReceipt::new(
                name,
                root.start..root.start,
                Destroyed::default(),
                version,
            ));
        }
        let edit = Edit::Retain {
            log: Arc::clone(&log),
            start,
        };
        let (version, destroyed) = self.commit_edits(vec![edit])?;
        Ok(DeletionReceipt::new(name, root.start..start, destroyed, version))
    }
}
