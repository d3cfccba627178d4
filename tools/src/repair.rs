//! `lanterman repair`: a plan of what can be done about damage, and its execution.

mod apply;
mod plan;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::check::report::Finding;
use crate::output::Output;
use crate::problem::{Outcome, Problem};
use crate::repair::plan::{Plan, plan};
use crate::verify::verify;

/// Plan what can be done about damage, and do it if told so
///
/// Prints what `verify` finds, what would be done about it, and what cannot be repaired. Nothing is changed without
/// --apply. With it, files that will be changed are first copied into a new directory beside the store, whose name is
/// printed; then the plan is carried out, and the store is verified again.
///
/// What it can do: write a damaged root slot anew from the whole one; write the header of a segment anew from what the
/// checksum of the segment's first block proves; give up commits that stand in a damaged part of the journal, so that the
/// store opens again with everything else, naming what they held as far as the rest tells. It never computes a checksum over bytes that
/// failed theirs. Damaged slabs, nodes, catalog pages and checkpoints cannot be repaired, only restored from a copy.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman repair demo\n  \
    lanterman repair demo --apply\n\n\
    Exit codes:\n  \
    0  nothing is damaged, or with --apply: nothing is damaged any more\n  \
    1  damage was found, or is left\n  \
    2  it could not be carried out: no store, or the store is open for writing elsewhere")]
pub(crate) struct RepairCall {
    /// The store's directory
    store: PathBuf,
    /// Carry the plan out
    #[arg(long)]
    apply: bool,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    applied: bool,
    kept_in: Option<PathBuf>,
    damage: &'a [Finding],
    #[serde(flatten)]
    plan: &'a Plan,
    remaining: Option<Vec<Finding>>,
}

pub(crate) fn run(call: &RepairCall, output: &mut Output) -> Result<Outcome, Problem> {
    crate::files::check_is_store(&call.store)?;
    // Held until the end: nobody writes between finding and acting.
    let lock = if call.apply {
        Some(apply::lock(&call.store)?)
    } else {
        None
    };
    let report = verify(&call.store)?;
    let plan = plan(&report);
    let mut answer = Answer {
        applied: false,
        kept_in: None,
        damage: &report.damage,
        plan: &plan,
        remaining: None,
    };
    if !call.json {
        tell(&report.damage, &plan, output)?;
    }
    if call.apply && !plan.actions.is_empty() {
        output.flush()?;
        answer.kept_in = Some(apply::apply(&call.store, &plan, lock)?);
        answer.applied = true;
        answer.remaining = Some(verify(&call.store)?.damage);
    }
    let well = answer
        .remaining
        .as_ref()
        .map_or(report.damage.is_empty(), Vec::is_empty);
    match call.json {
        true => output.json(&answer)?,
        false => tell_end(call, &answer, output)?,
    }
    Ok(if well { Outcome::Well } else { Outcome::Found })
}

fn tell(damage: &[Finding], plan: &Plan, output: &mut Output) -> Result<(), Problem> {
    if damage.is_empty() {
        return output.line("no damage found, nothing to do");
    }
    for finding in damage {
        output.line(format_args!("damage: {finding}"))?;
    }
    for action in &plan.actions {
        output.line(format_args!("plan: {action}"))?;
        for lost in action.lost() {
            let (log, first) = (&lost.log, lost.first);
            match lost.end {
                Some(end) => output.line(format_args!("  gives up: log {log:?}, offsets {first}..{end}"))?,
                None => output.line(format_args!(
                    "  in doubt: log {log:?} may have had messages from offset {first} on; new ones take these offsets"
                ))?,
            }
        }
    }
    for beyond in &plan.beyond_repair {
        output.line(format_args!("cannot be repaired: {beyond}"))?;
    }
    Ok(())
}

fn tell_end(call: &RepairCall, answer: &Answer<'_>, output: &mut Output) -> Result<(), Problem> {
    if let Some(kept) = &answer.kept_in {
        output.line(format_args!(
            "done; the files as they were are in {}",
            kept.display()
        ))?;
    } else if call.apply && !answer.damage.is_empty() {
        output.line("nothing was changed: there is nothing that could be done")?;
    } else if !answer.plan.actions.is_empty() {
        output.line("nothing was changed; --apply carries the plan out")?;
    }
    match &answer.remaining {
        Some(remaining) if remaining.is_empty() => output.line("no damage is left"),
        Some(remaining) => {
            remaining
                .iter()
                .try_for_each(|finding| output.line(format_args!("still damaged: {finding}")))?;
            output.line("some damage is left; call repair again to see whether more can be done now")
        }
        None => Ok(()),
    }
}
