//! What is set of logs: keys, rules, compression; `deleting` sets what is kept.

use std::time::Duration;

use lanterman::{Compression, Error, Keyed, Log, Result, Retention};

use super::judging::Recall;
use super::log::ModelSettings;
use super::rules::{SETS, constraints};
use super::{Driver, NAMES, trace};

/// How long delete markers are kept at least, where they are kept.
pub(super) const GRACE: Duration = Duration::from_secs(3600);

impl Driver<'_> {
    /// Makes a log keyed, or one that is an ordinary one again; what is in its way is deleted first, mostly.
    pub(super) fn set_keyed(&mut self) {
        let number = self.choices.index(NAMES.len());
        let what = self.choices.byte();
        let end = self.logs[number].end();
        if what & 3 != 0 && !self.logs[number].is_keyed() && end > 0 {
            let outcome = self.store().retain(NAMES[number], &Retention::new().from(end));
            trace!(self, "clear {number}: {outcome:?}");
            self.edited(number, 0..end, outcome);
            if self.is_broken {
                return;
            }
        }
        let keyed = (what >> 2 & 7 != 0).then(|| {
            let grace = [Duration::ZERO, GRACE][usize::from(what >> 5 & 1)];
            let percent = [110, 150, 150, 300][usize::from(what >> 6)];
            Keyed::new()
                .marker_grace(grace)
                .space_amplification_percent(percent)
        });
        let outcome = self.store().set_keyed(NAMES[number], keyed.as_ref());
        trace!(self, "set {keyed:?} of {number}: {:?}", outcome.as_ref().err());
        let log = &self.logs[number];
        let must_be_empty = keyed.is_some() && !log.is_keyed();
        if let Err(Error::NotEmpty { .. }) = outcome {
            let found = self.store().log(NAMES[number]).expect("it has messages");
            assert!(
                must_be_empty && found.start() < found.end(),
                "there is nothing in its way"
            );
            return;
        }
        assert!(
            outcome.is_err() || !must_be_empty || log.shown().next().is_none(),
            "a log with messages has become keyed"
        );
        let settings = ModelSettings {
            keyed,
            ..log.settings.clone()
        };
        self.settings_changed(number, settings, outcome);
    }

    pub(super) fn set_compression(&mut self) {
        let number = self.choices.index(NAMES.len());
        let what = self.choices.byte();
        let batch_bytes = 256 << (what >> 4 & 7);
        let compression = match what & 7 {
            0..=1 => None,
            2..=4 => Some(Compression::lz4().with_batch_bytes(batch_bytes)),
            level => Some(Compression::zstd(level - 4).with_batch_bytes(batch_bytes)),
        };
        let outcome = self.store().set_compression(NAMES[number], compression.as_ref());
        trace!(
            self,
            "set {compression:?} of {number}: {:?}",
            outcome.as_ref().err()
        );
        let settings = ModelSettings {
            compression,
            ..self.logs[number].settings.clone()
        };
        self.settings_changed(number, settings, outcome);
    }

    pub(super) fn set_constraints(&mut self) {
        let number = self.choices.index(NAMES.len());
        // Two of three times there are some.
        let rules = Some(self.choices.index(SETS.len() * 3 / 2)).filter(|set| *set < SETS.len());
        let constraints = rules.map(|set| constraints(set, number));
        let outcome = self.store().set_constraints(NAMES[number], constraints.as_ref());
        trace!(
            self,
            "set rules {rules:?} of {number}: {:?}",
            outcome.as_ref().err()
        );
        if let Err(Error::UnknownLog { .. }) = outcome {
            self.expect_unknown(number);
            return;
        }
        if outcome.is_ok() {
            self.logs[number].recall = Recall::default();
        }
        let settings = ModelSettings {
            rules,
            ..self.logs[number].settings.clone()
        };
        self.settings_changed(number, settings, outcome);
    }

    /// Makes sure that it is known what the rules of a log compare with, by setting them anew; says whether it is.
    pub(super) fn make_rules_known(&mut self, number: usize) -> bool {
        let log = &self.logs[number];
        let Some(set) = log.settings.rules.filter(|_| !log.knows_rules()) else {
            return true;
        };
        let settings = log.settings.clone();
        let outcome = self
            .store()
            .set_constraints(NAMES[number], Some(&constraints(set, number)));
        let is_known = outcome.is_ok();
        trace!(self, "set rules of {number} anew: {is_known}");
        if is_known {
            self.logs[number].recall = Recall::default();
        }
        self.settings_changed(number, settings, outcome);
        is_known
    }

    pub(super) fn settings_changed(&mut self, number: usize, settings: ModelSettings, outcome: Result<()>) {
        match outcome {
            Ok(()) => {
                let log = &mut self.logs[number];
                log.settings = settings;
                log.is_created = true;
            }
            Err(error) => {
                self.expect_trouble(&error);
                if self.is_broken {
                    // Its block may have reached the disk all the same.
                    self.logs[number].may_be_set = Some(settings);
                }
            }
        }
        if !self.is_broken {
            self.check_settings(number);
        }
    }

    fn check_settings(&self, number: usize) {
        if let Ok(log) = self.store().log(NAMES[number]) {
            let settings = &self.logs[number].settings;
            assert!(
                is_set(&log, number, settings),
                "{:?} should have {settings:?}",
                NAMES[number]
            );
        }
    }

    /// After a reopening: what is set is what was, or may have been.
    pub(super) fn find_settings(&mut self, number: usize) {
        let may_be = self.logs[number].may_be_set.take();
        let Ok(found) = self.store().log(NAMES[number]) else {
            self.logs[number].settings = ModelSettings::default();
            return;
        };
        let log = &mut self.logs[number];
        if let Some(settings) = may_be.filter(|settings| is_set(&found, number, settings)) {
            log.settings = settings;
        }
        assert!(
            is_set(&found, number, &log.settings),
            "{:?} should have {:?}; it is keyed {:?}, compressed {:?}, retained {:?}, constrained {:?}",
            NAMES[number],
            log.settings,
            found.keyed(),
            found.compression(),
            found.retention(),
            found.constraints()
        );
    }

    /// A log that the store does not know has never been made.
    pub(super) fn expect_unknown(&self, number: usize) {
        let log = &self.logs[number];
        assert!(
            log.end() == 0 && !log.is_created,
            "a log that has messages is unknown"
        );
    }
}

fn is_set(found: &Log, number: usize, settings: &ModelSettings) -> bool {
    let told = found
        .constraints()
        .expect("constraints that were set can be read");
    let rules = settings.rules.map(|set| constraints(set, number));
    found.keyed() == settings.keyed
        && found.compression() == settings.compression
        && found.retention() == settings.retention
        && told == rules
}
