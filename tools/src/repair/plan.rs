//! From what was found to what can be done: a pure function.

use std::fmt;

use lanterman_format::{FileKind, Generation, SegmentId, SegmentKind, Version};
use serde::{Serialize, Serializer};

use crate::check::report::{DamageKind, Finding, Hole, LostMessages, ProvenSegment, Report};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Write a root slot anew, from the whole one.
    RewriteRootSlot { slot: u32 },
    /// Write a segment's header anew, from what its first block proves.
    RebuildSegmentHeader {
        segment: SegmentId,
        kind: SegmentKind,
        generation: Generation,
        first_version: Version,
    },
    /// Give up commits that stand in a damaged part of the journal, and keep what stands behind them.
    GiveUpCommits { holes: Vec<Hole> },
}

impl Action {
    /// What it gives up.
    pub(crate) fn lost(&self) -> Vec<&LostMessages> {
        match self {
            Action::GiveUpCommits { holes } => holes.iter().flat_map(|hole| &hole.lost).collect(),
            Action::RewriteRootSlot { .. } | Action::RebuildSegmentHeader { .. } => Vec::new(),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::RewriteRootSlot { slot } => {
                write!(
                    formatter,
                    "write root slot {slot} anew from the other one, which is whole"
                )
            }
            Action::RebuildSegmentHeader {
                segment,
                kind,
                generation,
                ..
            } => {
                let name = lanterman_format::name::segment_file_name(*segment, FileKind::from(*kind));
                write!(
                    formatter,
                    "write the header of {name} anew, as generation {}, which the checksum of its first block proves",
                    generation.get()
                )
            }
            Action::GiveUpCommits { holes } => {
                for (number, hole) in holes.iter().enumerate() {
                    let name = lanterman_format::name::segment_file_name(hole.segment, FileKind::Journal);
                    let (and, first, last) = (if number > 0 { ", and " } else { "" }, hole.first, hole.last);
                    write!(
                        formatter,
                        "{and}give up versions {first} to {last}, which are damaged at position {} of {name}",
                        hole.position
                    )?;
                }
                formatter.write_str("; what stands behind them is kept")
            }
        }
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Action", 2)?;
        out.serialize_field("action", &self.to_string())?;
        out.serialize_field("gives_up", &self.lost())?;
        out.end()
    }
}

/// What can be done, and what cannot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    /// In words: what stays as it is, and what that means.
    pub(crate) beyond_repair: Vec<String>,
}

/// Says what can be done about what was found.
pub(crate) fn plan(report: &Report) -> Plan {
    let mut plan = Plan::default();
    let bad_slots = report
        .damage
        .iter()
        .filter(|finding| finding.kind == DamageKind::RootSlot)
        .count();
    for finding in &report.damage {
        match finding.kind {
            DamageKind::RootSlot if bad_slots == 1 && !report.store_id.is_empty() => {
                plan.actions.push(Action::RewriteRootSlot {
                    slot: u32::from(finding.position != 0),
                });
            }
            DamageKind::SegmentHeader => match proven(report, finding) {
                Some(known) => plan.actions.push(Action::RebuildSegmentHeader {
                    segment: known.segment,
                    kind: known.kind,
                    generation: known.generation,
                    first_version: known.first_version,
                }),
                None => plan.beyond_repair.push(consequence(finding)),
            },
            DamageKind::Journal => {}
            _ => plan.beyond_repair.push(consequence(finding)),
        }
    }
    plan_journal(report, &mut plan);
    plan
}

fn proven<'a>(report: &'a Report, finding: &Finding) -> Option<&'a ProvenSegment> {
    report.proven.iter().find(|known| {
        let name = lanterman_format::name::segment_file_name(known.segment, FileKind::from(known.kind));
        finding.file.ends_with(&name)
    })
}

/// Commits are given up last and only where the journal was read as far as can be: what a lost header hides may close the
/// hole.
fn plan_journal(report: &Report, plan: &mut Plan) {
    if report.journal.holes.is_empty() {
        return;
    }
    let rebuilt = |action: &Action| {
        matches!(
            action,
            Action::RebuildSegmentHeader {
                kind: SegmentKind::Journal,
                ..
            }
        )
    };
    if plan.actions.iter().any(rebuilt) {
        plan.beyond_repair.push(
            "the journal has a hole, which the new header of a segment may close: call repair again afterwards".to_owned(),
        );
        return;
    }
    for hole in &report.journal.holes {
        let name = lanterman_format::name::segment_file_name(hole.segment, FileKind::Journal);
        let unreadable = |finding: &Finding| {
            matches!(
                finding.kind,
                DamageKind::SegmentHeader | DamageKind::SegmentMissing
            ) && finding.file.ends_with(&name)
        };
        if report.damage.iter().any(unreadable) {
            plan.beyond_repair.push(format!(
                "{name}, in which the journal goes on, cannot be read: restore it from a copy"
            ));
            return;
        }
    }
    plan.actions.push(Action::GiveUpCommits {
        holes: report.journal.holes.clone(),
    });
}

/// What damage that stays means.
fn consequence(finding: &Finding) -> String {
    let meaning = match finding.kind {
        DamageKind::RootSlot => {
            "both root slots are lost, and with them the place of the checkpoint: restore the root file from a copy"
        }
        DamageKind::SegmentHeader => {
            "what the segment should be cannot be proven: restore the file from a copy"
        }
        DamageKind::SegmentMissing => "restore the file from a copy; what stood in it cannot be read",
        DamageKind::Checkpoint => "the store cannot be opened without it: restore the file from a copy",
        DamageKind::CatalogPage => {
            "its logs cannot be told, and the store may not open for writing: restore the file from a copy"
        }
        DamageKind::Node | DamageKind::Slab | DamageKind::Messages => {
            "these offsets answer `damaged` (`read --skip-damaged` reads around them); all others stay readable"
        }
        DamageKind::Gathered => {
            "no message is hidden by it; the next checkpoint of the log writes it elsewhere"
        }
        DamageKind::Journal | DamageKind::Disagreement | DamageKind::Opening => {
            "nothing that could be done about it is known to be right; restore the store from a copy"
        }
    };
    format!("{finding}: {meaning}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(kind: DamageKind, file: &str, position: u64) -> Finding {
        Finding {
            kind,
            file: file.to_owned(),
            segment: None,
            position,
            log: None,
            offsets: None,
            detail: String::new(),
        }
    }

    fn report(damage: Vec<Finding>) -> Report {
        Report {
            store_id: "00".to_owned(),
            damage,
            ..Report::default()
        }
    }

    fn with_hole(mut report: Report) -> Report {
        report.journal.holes.push(Hole {
            segment: SegmentId::new(7),
            position: 8192,
            first: Version::new(3),
            last: Version::new(4),
            reason: "it is torn".to_owned(),
            lost: vec![LostMessages {
                log: "a".to_owned(),
                first: 5,
                end: Some(9),
            }],
        });
        report.damage.push(finding(
            DamageKind::Journal,
            "segments/0000000000000007.journal",
            8192,
        ));
        report
    }

    #[test]
    fn a_sound_store_needs_nothing() {
        assert_eq!(plan(&report(Vec::new())), Plan::default());
    }

    #[test]
    fn one_lost_root_slot_is_written_anew_and_two_are_not() {
        let one = plan(&report(vec![finding(DamageKind::RootSlot, "root", 4096)]));
        assert_eq!(one.actions, [Action::RewriteRootSlot { slot: 1 }]);
        let both = vec![
            finding(DamageKind::RootSlot, "root", 0),
            finding(DamageKind::RootSlot, "root", 4096),
        ];
        let both = plan(&Report {
            store_id: String::new(),
            ..report(both)
        });
        assert!(both.actions.is_empty());
        assert_eq!(both.beyond_repair.len(), 2);
    }

    #[test]
    fn commits_in_a_hole_are_given_up_by_name() {
        let plan = plan(&with_hole(report(Vec::new())));
        assert_eq!(plan.actions.len(), 1);
        assert_eq!(plan.actions[0].lost()[0].end, Some(9));
        assert!(plan.actions[0].to_string().contains("versions 3 to 4"));
    }

    #[test]
    fn nothing_is_given_up_while_a_lost_header_may_explain_the_hole() {
        let header = finding(DamageKind::SegmentHeader, "segments/0000000000000008.journal", 0);
        let mut found = with_hole(report(vec![header]));
        found.proven.push(ProvenSegment {
            segment: SegmentId::new(8),
            kind: SegmentKind::Journal,
            generation: Generation::new(2),
            first_version: Version::new(3),
        });
        let plan = plan(&found);
        assert!(matches!(plan.actions[..], [Action::RebuildSegmentHeader { .. }]));
        assert_eq!(plan.beyond_repair.len(), 1);
    }

    #[test]
    fn nothing_is_ever_done_to_damaged_content() {
        let kinds = [
            DamageKind::Checkpoint,
            DamageKind::CatalogPage,
            DamageKind::Node,
            DamageKind::Slab,
            DamageKind::Messages,
            DamageKind::Gathered,
            DamageKind::Disagreement,
            DamageKind::Opening,
            DamageKind::SegmentMissing,
            DamageKind::SegmentHeader,
        ];
        for kind in kinds {
            let plan = plan(&report(vec![finding(kind, "segments/0000000000000001.slabs", 0)]));
            assert!(plan.actions.is_empty(), "{kind:?}");
            assert_eq!(plan.beyond_repair.len(), 1, "{kind:?}");
        }
    }
}
