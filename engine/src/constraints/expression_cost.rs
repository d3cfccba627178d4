//! What an expression in CEL may cost, told from its shape before a message is looked at, and from how much the message
//! has for it.
//!
//! The library that evaluates knows no limit and cannot be stopped, so whatever could take long is counted here, rather too
//! high than too low: macros go over lists, some operators and functions over all of a text or a list, each `+` may copy
//! what the one before it made, and each use of a pattern compiles it.

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use regex::RegexBuilder;

use super::Refusal;
use super::document::Rule;

/// Evaluation goes down as deep as an expression is nested, and a stack of 2 MiB ends before 2,000.
const DEPTH_MAX: usize = 200;
/// A pattern that takes more memory than this takes milliseconds to compile.
const PATTERN_BYTES_MAX: usize = 1 << 20;
const PATTERN_BYTES_MIN: usize = 4 << 10;
/// So many bytes of a compiled pattern take as long as one step of evaluation.
const PATTERN_BYTES_PER_STEP: usize = 16;
/// So many nodes of an expression, and so many elements that an operator goes over, make a step.
const NODES_PER_STEP: u64 = 16;
const ELEMENTS_PER_STEP: u64 = 16;
/// Joining copies.
const JOINED_ELEMENTS_PER_STEP: u64 = 4;

/// What of an expression decides its cost.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// How many macros go over lists, and how many of them within each other.
    macros: u64,
    loops: u32,
    /// The names that macros bind.
    pub(super) bound: BTreeSet<String>,
    nodes: u64,
    /// Operators and functions that may go over all of a text or a list.
    wide: u64,
    /// Where texts or lists may be joined: once, and over and over with what a macro bound to a name.
    joins: u64,
    joins_in_loops: u32,
    pattern_steps: u64,
}

/// A part of an expression that is to be looked at.
struct Open<'a> {
    expression: &'a IdedExpr,
    depth: usize,
    /// How many macros repeat it within each other.
    loops: u32,
}

impl Shape {
    /// Refuses what is nested too deep, and patterns that are no texts or too large.
    pub(super) fn of(rule: &Rule, expression: &IdedExpr) -> Result<Self, Refusal> {
        let mut shape = Shape::default();
        let mut open = vec![Open {
            expression,
            depth: 0,
            loops: 0,
        }];
        while let Some(next) = open.pop() {
            if next.depth > DEPTH_MAX {
                let reason = format!(
                    "an expression is nested at most {DEPTH_MAX} deep; each operator of a chain nests"
                );
                return rule.refuse("require.cel", reason);
            }
            shape.nodes = shape.nodes.saturating_add(1);
            shape.loops = shape.loops.max(next.loops);
            shape.count(rule, &next.expression.expr, next.loops)?;
            let depth = next.depth.saturating_add(1);
            each_part(&next.expression.expr, |expression, is_repeated| {
                let loops = next.loops.saturating_add(u32::from(is_repeated));
                open.push(Open {
                    expression,
                    depth,
                    loops,
                });
            });
        }
        Ok(shape)
    }

    /// Steps that evaluation takes at most where a message has so many elements for it.
    pub(super) fn steps(&self, elements: u64) -> u64 {
        // No list or text gets longer but by joining, and a name that a macro binds to what was joined can be joined again.
        let doubled = 1u64.checked_shl(self.joins_in_loops).unwrap_or(u64::MAX);
        let longest = elements
            .saturating_mul(self.joins.saturating_add(1))
            .saturating_mul(doubled);
        let joins = self.joins.saturating_add(u64::from(self.joins_in_loops));
        let each = (self.nodes / NODES_PER_STEP)
            .saturating_add(self.wide.saturating_mul(longest) / ELEMENTS_PER_STEP)
            .saturating_add(joins.saturating_mul(longest) / JOINED_ELEMENTS_PER_STEP)
            .saturating_add(self.pattern_steps)
            .saturating_add(1);
        let turns = longest
            .saturating_pow(self.loops)
            .saturating_mul(self.macros.max(1));
        turns.saturating_mul(each)
    }

    fn count(&mut self, rule: &Rule, expression: &Expr, loops: u32) -> Result<(), Refusal> {
        match expression {
            Expr::Comprehension(comprehension) => {
                self.macros = self.macros.saturating_add(1);
                self.bound.insert(comprehension.iter_var.clone());
                self.bound.extend(comprehension.iter_var2.clone());
                self.bound.insert(comprehension.accu_var.clone());
            }
            Expr::Call(call) => self.count_call(rule, call, loops)?,
            _ => {}
        }
        Ok(())
    }

    fn count_call(&mut self, rule: &Rule, call: &CallExpr, loops: u32) -> Result<(), Refusal> {
        let is_wide = match call.func_name.as_str() {
            operators::EQUALS
            | operators::NOT_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS
            | "startsWith"
            | "endsWith" => !call.args.iter().any(is_literal),
            operators::IN => !call
                .args
                .last()
                .is_some_and(|list| matches!(list.expr, Expr::List(_))),
            operators::ADD => {
                let adds_numbers = call.args.iter().any(is_number);
                let is_join = !adds_numbers && !is_grown_by_a_macro(call);
                match loops {
                    0 => self.joins = self.joins.saturating_add(u64::from(is_join)),
                    _ => self.joins_in_loops = self.joins_in_loops.saturating_add(u32::from(is_join)),
                }
                false
            }
            "matches" => {
                let steps = pattern_steps(rule, call.args.last())?;
                self.pattern_steps = self.pattern_steps.saturating_add(steps);
                true
            }
            "bool" | "bytes" | "contains" | "double" | "int" | "size" | "string" | "uint" => true,
            _ => false,
        };
        self.wide = self.wide.saturating_add(u64::from(is_wide));
        Ok(())
    }
}

fn is_literal(expression: &IdedExpr) -> bool {
    matches!(expression.expr, Expr::Literal(_))
}

fn is_number(expression: &IdedExpr) -> bool {
    matches!(
        expression.expr,
        Expr::Literal(LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_))
    )
}

/// Lists that macros make grow at their end, which copies nothing; the names of such lists cannot be written.
fn is_grown_by_a_macro(call: &CallExpr) -> bool {
    let grown = call.args.first().map(|list| &list.expr);
    matches!(grown, Some(Expr::Ident(name)) if name.starts_with('@'))
}

/// What it takes to compile a pattern, which happens at each use.
fn pattern_steps(rule: &Rule, pattern: Option<&IdedExpr>) -> Result<u64, Refusal> {
    let Some(Expr::Literal(LiteralValue::String(pattern))) = pattern.map(|pattern| &pattern.expr) else {
        return rule.refuse(
            "require.cel",
            "the pattern of \"matches\" must be a text in quotes",
        );
    };
    let mut bytes = PATTERN_BYTES_MIN;
    while bytes <= PATTERN_BYTES_MAX {
        match RegexBuilder::new(pattern.inner()).size_limit(bytes).build() {
            Ok(_) => return Ok((bytes / PATTERN_BYTES_PER_STEP) as u64),
            Err(regex::Error::CompiledTooBig(_)) => bytes = bytes.saturating_mul(2),
            Err(error) => return rule.refuse("require.cel", error.to_string()),
        }
    }
    let reason = format!(
        "the pattern {:?} takes more than {PATTERN_BYTES_MAX} bytes",
        pattern.inner()
    );
    rule.refuse("require.cel", reason)
}

/// Calls `take` for what an expression is made of, with whether it is evaluated for each element of a list.
fn each_part<'a>(expression: &'a Expr, mut take: impl FnMut(&'a IdedExpr, bool)) {
    match expression {
        Expr::Call(call) => {
            call.target.iter().for_each(|target| take(target, false));
            call.args.iter().for_each(|argument| take(argument, false));
        }
        Expr::Comprehension(comprehension) => {
            take(&comprehension.iter_range, false);
            take(&comprehension.accu_init, false);
            take(&comprehension.loop_cond, true);
            take(&comprehension.loop_step, true);
            take(&comprehension.result, false);
        }
        Expr::List(list) => list.elements.iter().for_each(|element| take(element, false)),
        Expr::Map(map) => map
            .entries
            .iter()
            .for_each(|entry| each_of(&entry.expr, &mut take)),
        Expr::Struct(made) => {
            let entries = made.entries.iter();
            entries.for_each(|entry| each_of(&entry.expr, &mut take));
        }
        Expr::Select(select) => take(&select.operand, false),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
    }
}

fn each_of<'a>(entry: &'a EntryExpr, take: &mut impl FnMut(&'a IdedExpr, bool)) {
    match entry {
        EntryExpr::StructField(field) => take(&field.value, false),
        EntryExpr::MapEntry(entry) => {
            take(&entry.key, false);
            take(&entry.value, false);
        }
    }
}
