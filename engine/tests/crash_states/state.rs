//! What names one crash: where in a trace it happens, and what it takes. Written as text, so that a state that fails can
//! be tried again alone.

use std::fmt;
use std::str::FromStr;

use lanterman::disk::{Fate, MemoryDisk};

/// A moment of a trace: after so many changes, and perhaps within the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub changes: usize,
    /// A durable write is written and not yet durable.
    pub within: bool,
}

/// What ends the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The process dies, and what it wrote stays with the system.
    Killed,
    /// Power goes; each unit that was not synced meets its fate.
    PowerCut(Vec<Fate>),
}

/// A crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    pub moment: Moment,
    pub end: End,
}

impl Crash {
    /// What the crash leaves of a disk that stands at its moment.
    pub fn image(&self, disk: &MemoryDisk) -> MemoryDisk {
        match &self.end {
            End::Killed => disk.kill_image().unwrap(),
            End::PowerCut(fates) => disk
                .crash_image(|unit, _| fates.get(unit).copied().unwrap_or(Fate::Lost))
                .unwrap(),
        }
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let within = if self.moment.within { "+" } else { "" };
        write!(formatter, "{}{within}:", self.moment.changes)?;
        match &self.end {
            End::Killed => formatter.write_str("killed"),
            End::PowerCut(fates) => {
                formatter.write_str("cut")?;
                fates.iter().try_for_each(|fate| match fate {
                    Fate::Lost => formatter.write_str("-L"),
                    Fate::Kept => formatter.write_str("-K"),
                    Fate::Torn { bytes } => write!(formatter, "-T{bytes}"),
                })
            }
        }
    }
}

impl FromStr for Crash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} names no crash");
        let (moment, end) = text.split_once(':').ok_or_else(wrong)?;
        let within = moment.ends_with('+');
        let changes = moment.trim_end_matches('+').parse().map_err(|_| wrong())?;
        let end = match end.split_once("cut") {
            None if end == "killed" => End::Killed,
            Some(("", fates)) => {
                let fate = |fate: &str| match fate.split_at(fate.len().min(1)) {
                    ("L", "") => Ok(Fate::Lost),
                    ("K", "") => Ok(Fate::Kept),
                    ("T", bytes) => bytes
                        .parse()
                        .map(|bytes| Fate::Torn { bytes })
                        .map_err(|_| wrong()),
                    _ => Err(wrong()),
                };
                End::PowerCut(fates.split('-').skip(1).map(fate).collect::<Result<_, _>>()?)
            }
            _ => return Err(wrong()),
        };
        Ok(Self {
            moment: Moment { changes, within },
            end,
        })
    }
}

#[test]
fn a_crash_is_read_as_it_was_written() {
    let fates = vec![Fate::Kept, Fate::Lost, Fate::Torn { bytes: 512 }];
    for (changes, within, end) in [
        (0, false, End::Killed),
        (17, true, End::PowerCut(fates)),
        (3, false, End::PowerCut(Vec::new())),
    ] {
        let moment = Moment { changes, within };
        let crash = Crash { moment, end };
        assert_eq!(crash.to_string().parse(), Ok(crash));
    }
    assert!("17".parse::<Crash>().is_err());
    assert!("17:cut-X".parse::<Crash>().is_err());
}
