//! What judging a value by a JSON Schema may cost, told before it is done.
//!
//! The library that judges goes over a value once for each way that leads through the schema to it. References make these
//! ways as many as they like: twenty definitions that each ask the next one twice come to a million, and a schema that asks
//! itself twice about what stands below doubles with each level of the value. It goes down as deep as they lead, too, on
//! the stack. So the ways are counted first, each definition once for each place of the value, rather too high than too low.
//!
//! Keywords as of the drafts 4 to 2020-12 (<https://json-schema.org/specification>); those that hold no schema cost nothing.

use std::collections::HashMap;

use serde_json::Value;

use super::document::Rule;
use super::{Refusal, STEPS_MAX};

/// Definitions and levels of the value below each other, which is how deep the stack gets; 2 MiB of it hold ten times as many.
const DEPTH_MAX: u64 = 1_000;
/// What is known of shared schemas takes about 50 bytes each.
const KNOWN_MAX: usize = 2_000_000;
/// A schema of the standard itself, which is not gone through here, is taken to need so many steps for each place of a value.
const STANDARD_STEPS: u64 = 200;

/// Schemas refer to each other by their place in the list.
type Id = usize;

/// What a schema asks of other schemas.
#[derive(Debug, Default)]
struct Node {
    /// About the same value.
    same: Vec<Id>,
    /// About the same value, one of each group.
    choices: Vec<Vec<Id>>,
    /// About a field of this name.
    named: HashMap<String, Id>,
    /// About the elements of a list, one after the other.
    placed: Vec<Id>,
    /// About fields and elements that the two before do not name.
    rest: Vec<Id>,
    /// About each field and element.
    each: Vec<Id>,
    /// About the names of fields.
    names: Vec<Id>,
    /// What it asks about the same value may be asked again for each field and element.
    asks_again: bool,
    /// A schema of the standard.
    is_standard: bool,
    /// Some reference leads here, so it may be asked along several ways.
    is_shared: bool,
}

/// Steps and depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    steps: u64,
    depth: u64,
}

/// The value costs more than is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooCostly;

/// How the schemas of a document ask each other.
#[derive(Debug)]
pub(super) struct SchemaCost {
    nodes: Vec<Node>,
    /// Steps for each place of a value, whatever it is like, if no schema leads back to itself.
    steps_each: Option<u64>,
}

impl SchemaCost {
    /// Goes through a schema, of which the first is asked about the whole value.
    pub(super) fn of(rule: &Rule, schema: &Value) -> Result<Self, Refusal> {
        let mut reader = Reader::new(rule, schema);
        reader.read()?;
        let nodes = reader.nodes;
        let mut cost = SchemaCost {
            nodes,
            steps_each: None,
        };
        cost.steps_each = cost.ways(0, 0, &mut vec![Known::Not; cost.nodes.len()]);
        // What the smallest of values costs, any other does.
        if cost.steps(&Value::Null).is_err() {
            return rule.refuse(
                "require.json_schema",
                format!("it takes more than {STEPS_MAX} steps for any value, or leads through more than {DEPTH_MAX} schemas"),
            );
        }
        Ok(cost)
    }

    /// Whether `value`, which comes from `bytes` of JSON, can be judged within the limits.
    pub(super) fn allows(&self, value: &Value, bytes: usize) -> Result<(), TooCostly> {
        // Each place of the value but the first has a separator.
        let places = (bytes as u64 / 2).saturating_add(1);
        match self.steps_each.map(|steps| steps.saturating_mul(places)) {
            Some(steps) if steps <= STEPS_MAX => Ok(()),
            _ => self.steps(value).map(|_| ()),
        }
    }

    /// Steps that judging `value` takes at most.
    pub(super) fn steps(&self, value: &Value) -> Result<u64, TooCostly> {
        let mut walk = Walk {
            nodes: &self.nodes,
            known: HashMap::new(),
            visits: 0,
        };
        walk.cost(0, value, 0).map(|cost| cost.steps)
    }

    /// The number of all ways from a schema; nothing if one leads back, or is too long.
    fn ways(&self, id: Id, depth: u64, known: &mut [Known]) -> Option<u64> {
        match known.get(id)? {
            Known::Open => return None,
            Known::Done(cost) => {
                return (cost.depth.saturating_add(depth) <= DEPTH_MAX).then_some(cost.steps);
            }
            Known::Not => {}
        }
        let node = self.nodes.get(id)?;
        if depth > DEPTH_MAX || node.is_standard || node.asks_again {
            return None;
        }
        *known.get_mut(id)? = Known::Open;
        let mut cost = Cost { steps: 1, depth: 0 };
        for asked in node.asked() {
            let steps = self.ways(asked, depth.saturating_add(1), known)?;
            let below = match known.get(asked)? {
                Known::Done(below) => below.depth,
                Known::Open | Known::Not => return None,
            };
            cost.steps = cost.steps.saturating_add(steps);
            cost.depth = cost.depth.max(below.saturating_add(1));
        }
        *known.get_mut(id)? = Known::Done(cost);
        Some(cost.steps)
    }
}

impl Node {
    fn asked(&self) -> impl Iterator<Item = Id> + '_ {
        let same = self.same.iter().chain(self.choices.iter().flatten());
        let below = self.named.values().chain(&self.placed).chain(&self.rest);
        same.chain(below).chain(&self.each).chain(&self.names).copied()
    }
}

/// Whether a sum is known, or just being made.
#[derive(Debug, Clone, Copy)]
enum Known {
    Not,
    Open,
    Done(Cost),
}

/// Counts the steps for one value.
struct Walk<'a> {
    nodes: &'a [Node],
    /// What shared schemas cost at a place of the value, which stays where it is meanwhile.
    known: HashMap<(Id, *const Value), Known>,
    visits: u64,
}

impl Walk<'_> {
    fn cost(&mut self, id: Id, value: &Value, depth: u64) -> Result<Cost, TooCostly> {
        let nodes = self.nodes;
        let Some(node) = nodes.get(id) else {
            return Ok(Cost { steps: 0, depth: 0 });
        };
        self.visits = self.visits.saturating_add(1);
        if depth > DEPTH_MAX || self.visits > STEPS_MAX || self.known.len() > KNOWN_MAX {
            return Err(TooCostly);
        }
        let key = (id, std::ptr::from_ref(value));
        if node.is_shared {
            match self.known.get(&key) {
                // It leads back to itself about the same value: then it is not asked again.
                Some(Known::Open) => return Ok(Cost { steps: 1, depth: 0 }),
                Some(Known::Done(cost)) if cost.depth.saturating_add(depth) > DEPTH_MAX => {
                    return Err(TooCostly);
                }
                Some(Known::Done(cost)) => return Ok(*cost),
                Some(Known::Not) | None => {
                    self.known.insert(key, Known::Open);
                }
            }
        }
        let cost = self.cost_of(node, value, depth.saturating_add(1))?;
        if cost.steps > STEPS_MAX {
            return Err(TooCostly);
        }
        if node.is_shared {
            self.known.insert(key, Known::Done(cost));
        }
        Ok(cost)
    }

    fn cost_of(&mut self, node: &Node, value: &Value, below: u64) -> Result<Cost, TooCostly> {
        if node.is_standard {
            return Ok(Cost {
                steps: places(value).saturating_mul(STANDARD_STEPS),
                depth: 0,
            });
        }
        let mut sum = Sum::default();
        for asked in &node.same {
            sum.add(self.cost(*asked, value, below)?, 1);
        }
        for group in &node.choices {
            let mut most = Sum::default();
            for asked in group {
                most.raise(self.cost(*asked, value, below)?);
            }
            sum.add(most.0, 1);
        }
        let children = match value {
            Value::Array(list) => list.len() as u64,
            Value::Object(object) => object.len() as u64,
            _ => 0,
        };
        if node.asks_again {
            sum.0.steps = sum.0.steps.saturating_mul(children.saturating_add(2));
        }
        match value {
            Value::Array(list) => {
                for (number, element) in list.iter().enumerate() {
                    match node.placed.get(number) {
                        Some(asked) => sum.add(self.cost(*asked, element, below)?, 1),
                        None => self.all(&node.rest, element, below, &mut sum)?,
                    }
                    self.all(&node.each, element, below, &mut sum)?;
                }
            }
            Value::Object(object) => {
                for (name, field) in object {
                    match node.named.get(name) {
                        Some(asked) => sum.add(self.cost(*asked, field, below)?, 1),
                        None => self.all(&node.rest, field, below, &mut sum)?,
                    }
                    self.all(&node.each, field, below, &mut sum)?;
                }
                for asked in &node.names {
                    sum.add(self.cost(*asked, &Value::Null, below)?, children);
                }
            }
            _ => {}
        }
        sum.add(Cost { steps: 1, depth: 0 }, 1);
        Ok(sum.0)
    }

    fn all(&mut self, asked: &[Id], value: &Value, below: u64, sum: &mut Sum) -> Result<(), TooCostly> {
        for id in asked {
            sum.add(self.cost(*id, value, below)?, 1);
        }
        Ok(())
    }
}

struct Sum(Cost);

impl Default for Sum {
    fn default() -> Self {
        Sum(Cost { steps: 0, depth: 0 })
    }
}

impl Sum {
    fn add(&mut self, cost: Cost, times: u64) {
        self.0.steps = self.0.steps.saturating_add(cost.steps.saturating_mul(times));
        self.0.depth = self.0.depth.max(cost.depth.saturating_add(1));
    }

    fn raise(&mut self, cost: Cost) {
        self.0.steps = self.0.steps.max(cost.steps);
        self.0.depth = self.0.depth.max(cost.depth);
    }
}

fn places(value: &Value) -> u64 {
    let below = match value {
        Value::Array(list) => list.iter().map(places).fold(0, u64::saturating_add),
        Value::Object(object) => object.values().map(places).fold(0, u64::saturating_add),
        _ => 0,
    };
    below.saturating_add(1)
}

/// Goes through a document; what a reference leads to is read when it is met.
struct Reader<'a> {
    rule: &'a Rule,
    document: &'a Value,
    nodes: Vec<Node>,
    /// Schemas by where they are in memory.
    ids: HashMap<*const Value, Id>,
    /// Schemas to be read, and the resource that each stands in, to which its references are relative.
    open: Vec<(Id, &'a Value, &'a Value)>,
    /// All that has an identifier or an anchor.
    marked: Vec<&'a Value>,
}

impl<'a> Reader<'a> {
    fn new(rule: &'a Rule, document: &'a Value) -> Self {
        let mut marked = Vec::new();
        find_marked(document, &mut marked);
        Reader {
            rule,
            document,
            nodes: Vec::new(),
            ids: HashMap::new(),
            open: Vec::new(),
            marked,
        }
    }

    fn read(&mut self) -> Result<(), Refusal> {
        self.id(self.document, self.document);
        while let Some((id, schema, resource)) = self.open.pop() {
            let Value::Object(keywords) = schema else { continue };
            let mut node = Node::default();
            for (keyword, content) in keywords {
                self.keyword(&mut node, keyword, content, resource)?;
            }
            if let Some(place) = self.nodes.get_mut(id) {
                node.is_shared = place.is_shared;
                *place = node;
            }
        }
        Ok(())
    }

    /// The number of a schema, which is read later if it was not yet.
    fn id(&mut self, schema: &'a Value, resource: &'a Value) -> Id {
        let next = self.nodes.len();
        let id = *self.ids.entry(std::ptr::from_ref(schema)).or_insert(next);
        if id == next {
            self.nodes.push(Node::default());
            let own = if identifier(schema).is_some() {
                schema
            } else {
                resource
            };
            self.open.push((id, schema, own));
        }
        id
    }

    fn all(&mut self, content: &'a Value, resource: &'a Value) -> Vec<Id> {
        let schemas: Vec<&'a Value> = match content {
            Value::Array(list) => list.iter().collect(),
            Value::Object(object) => object.values().filter(|schema| !schema.is_array()).collect(),
            _ => Vec::new(),
        };
        schemas
            .into_iter()
            .map(|schema| self.id(schema, resource))
            .collect()
    }

    fn keyword(
        &mut self,
        node: &mut Node,
        keyword: &str,
        content: &'a Value,
        resource: &'a Value,
    ) -> Result<(), Refusal> {
        match keyword {
            "allOf" | "anyOf" | "oneOf" | "dependentSchemas" | "dependencies" => {
                node.same.extend(self.all(content, resource));
            }
            "not" | "if" | "then" | "else" => node.same.push(self.id(content, resource)),
            "$ref" | "$dynamicRef" | "$recursiveRef" => {
                if let Value::String(reference) = content {
                    let group = self.referred(node, keyword, reference, resource)?;
                    node.choices.push(group);
                }
            }
            "properties" => {
                if let Value::Object(fields) = content {
                    let of = |(name, schema): (&String, &'a Value)| (name.clone(), self.id(schema, resource));
                    node.named = fields.iter().map(of).collect();
                }
            }
            "items" if content.is_array() => node.placed = self.all(content, resource),
            "prefixItems" => node.placed = self.all(content, resource),
            "items" | "additionalItems" | "additionalProperties" => {
                node.rest.push(self.id(content, resource));
            }
            "patternProperties" => node.each.extend(self.all(content, resource)),
            "contains" => node.each.push(self.id(content, resource)),
            "unevaluatedItems" | "unevaluatedProperties" => {
                node.asks_again = true;
                node.each.push(self.id(content, resource));
            }
            "propertyNames" => node.names.push(self.id(content, resource)),
            _ => {}
        }
        Ok(())
    }

    /// The schemas of which a reference asks one.
    fn referred(
        &mut self,
        node: &mut Node,
        keyword: &str,
        reference: &str,
        resource: &'a Value,
    ) -> Result<Vec<Id>, Refusal> {
        let (name, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let mut resources = vec![resource];
        if !name.is_empty() {
            let is_named = |found: &&&'a Value| identifier(found).is_some_and(|known| may_be(known, name));
            resources = self.marked.iter().filter(is_named).copied().collect();
            if resources.is_empty() && name.contains("json-schema.org/") {
                node.is_standard = true;
                return Ok(Vec::new());
            }
        }
        if keyword == "$recursiveRef" {
            let is_open = |found: &&&'a Value| found.get("$recursiveAnchor") == Some(&Value::Bool(true));
            resources.extend(self.marked.iter().filter(is_open));
        }
        let fragment = percent_decoded(fragment);
        let mut targets: Vec<(&'a Value, &'a Value)> = Vec::new();
        if fragment.is_empty() {
            targets.extend(resources.iter().map(|found| (*found, *found)));
        } else if fragment.starts_with('/') {
            let found = resources
                .iter()
                .filter_map(|found| Some((found.pointer(&fragment)?, *found)));
            targets.extend(found);
            // What looks like an identifier is none in some drafts.
            if let Some(target) = self.document.pointer(&fragment).filter(|_| targets.is_empty()) {
                targets.push((target, self.document));
            }
        } else {
            let has_anchor = |found: &&&'a Value| {
                ["$anchor", "$dynamicAnchor"]
                    .iter()
                    .any(|word| found.get(word).and_then(Value::as_str) == Some(&fragment))
                    || ["$id", "id"].iter().any(|word| {
                        let known = found.get(word).and_then(Value::as_str);
                        known
                            .and_then(|known| known.split_once('#'))
                            .is_some_and(|(_, known)| known == fragment)
                    })
            };
            targets.extend(
                self.marked
                    .iter()
                    .filter(has_anchor)
                    .map(|found| (*found, resource)),
            );
        }
        if targets.is_empty() {
            let reason = format!("what {reference:?} refers to is not in the schema");
            return self.rule.refuse("require.json_schema", reason);
        }
        let group: Vec<Id> = targets
            .into_iter()
            .map(|(target, own)| self.id(target, own))
            .collect();
        for id in &group {
            if let Some(target) = self.nodes.get_mut(*id) {
                target.is_shared = true;
            }
        }
        Ok(group)
    }
}

/// Values that have an identifier or an anchor, wherever they stand: perhaps some that are no schemas.
fn find_marked<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    const WORDS: [&str; 5] = ["$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor"];
    match value {
        Value::Array(list) => list.iter().for_each(|element| find_marked(element, found)),
        Value::Object(object) => {
            if WORDS.iter().any(|word| object.contains_key(*word)) {
                found.push(value);
            }
            object.values().for_each(|field| find_marked(field, found));
        }
        _ => {}
    }
}

/// What names a resource of its own.
fn identifier(schema: &Value) -> Option<&str> {
    let named = ["$id", "id"].iter().find_map(|word| schema.get(word)?.as_str())?;
    (!named.starts_with('#')).then_some(named)
}

/// Whether a reference can mean what has this identifier: where it is relative, only its last part is compared.
fn may_be(identifier: &str, reference: &str) -> bool {
    let last = |name: &str| {
        let name = name.split('#').next().unwrap_or_default();
        name.rsplit(['/', ':']).next().unwrap_or_default().to_owned()
    };
    last(identifier) == last(reference)
}

fn percent_decoded(fragment: &str) -> String {
    let mut decoded = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits
            .filter(|_| *first == b'%')
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(byte.unwrap_or(*first));
        rest = match byte {
            Some(_) => behind.get(2..).unwrap_or_default(),
            None => behind,
        };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
