//! Promise: no rule that somebody sets, and no message that somebody sends to it, takes the process more than a bounded time,
//! memory and stack: what costs too much whatever the message is refused when it is set, and a message that costs too much
//! is refused. Schemas and expressions as people write them are taken.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking"
)]

mod common;

use common::{memory, open_on};
use lanterman::{Constraints, Error, NewMessage, Store, ValueType};
use serde_json::{Value, json};

const LOG: &str = "events";

fn constraints(require: &Value) -> Result<Constraints, Error> {
    let rule = json!({"name": "a rule", "require": require});
    Constraints::from_json(&json!({"rules": [rule]}).to_string())
}

fn refused_when_set(require: &Value) -> (String, String) {
    match constraints(require) {
        Err(Error::InvalidConstraints { rule, place, reason }) => {
            assert_eq!(rule.as_deref(), Some("a rule"));
            (place, reason)
        }
        other => panic!("{require}: {other:?}"),
    }
}

fn store_with(require: &Value) -> Store {
    let store = open_on(memory());
    drop(store.writer(LOG).unwrap());
    store
        .set_constraints(LOG, Some(&constraints(require).unwrap()))
        .unwrap();
    store
}

fn append(store: &Store, value: &Value) -> Result<(), Error> {
    let text = value.to_string();
    let message = NewMessage::new(text.as_bytes()).value_type(ValueType::JSON);
    store.writer(LOG).unwrap().append_message(&message).map(|_| ())
}

/// What was expected of a message that is refused.
fn expected(store: &Store, value: &Value) -> String {
    match append(store, value) {
        Err(Error::Constraint(violation)) => violation.expected,
        other => panic!("{other:?}"),
    }
}

fn schema(schema: &Value) -> Value {
    json!({"json_schema": schema})
}

/// Definitions that each ask the next one twice, by a keyword.
fn doubling(definitions: usize, keyword: &str) -> Value {
    let next = |number: usize| json!({"$ref": format!("#/$defs/{number}")});
    let mut each: serde_json::Map<String, Value> = (0..definitions)
        .map(|number| {
            (
                number.to_string(),
                json!({keyword: [next(number + 1), next(number + 1)]}),
            )
        })
        .collect();
    each.insert(definitions.to_string(), json!({"type": "number"}));
    json!({"$ref": "#/$defs/0", "$defs": each})
}

/// Definitions that each ask the next one, and the last one about the elements of a list.
fn chain(definitions: usize) -> Value {
    let next = |number: usize| json!({"$ref": format!("#/$defs/{}", number + 1)});
    let mut each: serde_json::Map<String, Value> = (0..definitions)
        .map(|number| (number.to_string(), json!({"not": next(number)})))
        .collect();
    each.insert(definitions.to_string(), json!({"items": {"$ref": "#/$defs/0"}}));
    json!({"$ref": "#/$defs/0", "$defs": each})
}

fn nested_lists(levels: usize) -> Value {
    (0..levels).fold(json!(1), |value, _| json!([value]))
}

fn nested_objects(levels: usize) -> Value {
    (0..levels).fold(json!(1), |value, _| json!({"a": value}))
}

#[test]
fn a_schema_that_doubles_with_each_definition_is_refused_when_it_is_set() {
    for keyword in ["allOf", "anyOf", "oneOf"] {
        let (place, reason) = refused_when_set(&schema(&doubling(40, keyword)));
        assert_eq!(place, "require.json_schema");
        assert!(reason.contains("10000000 steps"), "{reason}");
        let store = store_with(&schema(&doubling(8, keyword)));
        assert_eq!(append(&store, &json!(1)).is_ok(), keyword != "oneOf");
        assert!(append(&store, &json!("text")).is_err());
    }
    // It may also double where it asks by an anchor, or names a part of itself.
    for reference in ["#here", "part.json", "#/%24defs/0"] {
        let twice = json!([{"$ref": reference}, {"$ref": reference}]);
        let mut doubled = doubling(30, "allOf");
        doubled["$defs"]["0"]["$anchor"] = json!("here");
        if reference == "part.json" {
            doubled["$defs"]["0"]["$id"] = json!("part.json");
        }
        doubled["$ref"] = Value::Null;
        doubled.as_object_mut().unwrap().remove("$ref");
        doubled["allOf"] = twice;
        refused_when_set(&schema(&doubled));
    }
}

#[test]
fn a_schema_that_doubles_with_each_level_of_a_value_refuses_values_of_many_levels() {
    let again = json!({"$ref": "#"});
    for keyword in ["allOf", "anyOf"] {
        let lists = json!({keyword: [{"items": again}, {"items": again}]});
        let objects = json!({keyword: [{"properties": {"a": again}}, {"additionalProperties": again}],
            "unevaluatedProperties": again});
        let dynamic = json!({"$dynamicAnchor": "n", keyword: [
            {"items": {"$dynamicRef": "#n"}}, {"contains": {"$dynamicRef": "#n"}}]});
        for (doubling, nested) in [
            (&lists, nested_lists as fn(usize) -> Value),
            (&objects, nested_objects),
            (&dynamic, nested_lists),
        ] {
            let store = store_with(&schema(doubling));
            append(&store, &nested(5)).unwrap();
            let expected = expected(&store, &nested(60));
            assert!(expected.contains("10000000 steps"), "{expected}");
        }
    }
}

#[test]
fn schemas_that_lead_deep_are_refused_before_the_stack_ends() {
    // Deep in itself, and in what it does with a value of many levels.
    refused_when_set(&schema(&chain(1_400)));
    let store = store_with(&schema(&chain(90)));
    append(&store, &nested_lists(5)).unwrap_or_else(|error| assert!(matches!(error, Error::Constraint(_))));
    let expected = expected(&store, &nested_lists(120));
    assert!(expected.contains("steps"), "{expected}");
}

#[test]
fn schemas_that_lead_in_a_circle_without_a_step_end() {
    for circle in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"anyOf": [{"not": {"$ref": "#"}}, {"$ref": "#"}]}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
    ] {
        let store = store_with(&schema(&circle));
        for value in [json!(1), json!("text"), json!([1, {"a": [2]}])] {
            if let Err(error) = append(&store, &value) {
                assert!(matches!(error, Error::Constraint(_)), "{error}");
            }
        }
    }
}

#[test]
fn schemas_as_people_write_them_are_taken_and_tell_the_place() {
    let tree = json!({"$ref": "#/$defs/expression", "$defs": {"expression": {"oneOf": [
        {"type": "number"},
        {"type": "object", "required": ["left", "right"], "additionalProperties": false,
            "properties": {"left": {"$ref": "#/$defs/expression"}, "right": {"$ref": "#/$defs/expression"}}},
        {"type": "object", "required": ["all"], "additionalProperties": false,
            "properties": {"all": {"type": "array", "items": {"$ref": "#/$defs/expression"}}}},
    ]}}});
    let store = store_with(&schema(&tree));
    let many: Vec<Value> = (0..2_000)
        .map(|number| json!({"left": number, "right": {"all": [1, 2]}}))
        .collect();
    append(&store, &json!({"all": many})).unwrap();
    let deep = (0..40).fold(json!(1), |value, _| json!({"left": value, "right": 2}));
    append(&store, &deep).unwrap();
    assert!(append(&store, &json!({"left": 1})).is_err());

    // A schema of schemas, which the library brings along.
    let standard = json!({"$ref": "https://json-schema.org/draft/2020-12/schema"});
    let store = store_with(&schema(&standard));
    append(&store, &tree).unwrap();
    assert!(append(&store, &json!({"type": "nothing"})).is_err());

    let address = json!({"type": "object", "properties": {"to": {"$ref": "address.json#/$defs/place"}},
        "$defs": {"address": {"$id": "address.json", "$defs": {"place": {"required": ["street"]}}}}});
    let store = store_with(&schema(&address));
    append(&store, &json!({"to": {"street": "x"}})).unwrap();
    match append(&store, &json!({"to": {}})) {
        Err(Error::Constraint(violation)) => assert_eq!(violation.place, "value at /to"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reference_that_leads_nowhere_is_refused_when_it_is_set() {
    for reference in ["#/$defs/none", "#none", "none.json", "file:///etc/passwd"] {
        let (place, reason) = refused_when_set(&schema(&json!({"$ref": reference})));
        assert_eq!(place, "require.json_schema");
        assert!(reason.contains(reference), "{reason}");
    }
}

#[test]
fn expressions_that_nest_deep_are_refused_when_they_are_set() {
    for (before, middle, behind) in [
        ("", "1", "+1"),
        ("", "true", "||true"),
        ("true&&", "true", ""),
        ("", "json", ".b"),
        ("", "json", "[0]"),
        ("", "value", ".size()"),
        ("", "true", "==true"),
        ("[", "1", "]"),
        ("true?true:", "true", ""),
    ] {
        for times in [1_000, 2_000] {
            let expression = format!("{}{middle}{}", before.repeat(times), behind.repeat(times));
            let (place, _) = refused_when_set(&json!({"cel": expression}));
            assert!(place.starts_with("require.cel"), "{expression}: {place}");
        }
        let expression = format!("{}{middle}{}", before.repeat(20), behind.repeat(20));
        constraints(&json!({"cel": expression})).unwrap();
    }
}

#[test]
fn what_goes_over_all_of_a_value_at_each_of_its_elements_is_counted() {
    let numbers = |length: usize| json!(vec![1; length]);
    let text = |bytes: usize| json!({"list": vec![1; 2_000], "text": "a".repeat(bytes)});
    for (expression, small, large) in [
        ("json.all(a, json == json)", numbers(100), numbers(20_000)),
        ("json.all(a, !(2 in json))", numbers(100), numbers(20_000)),
        (
            "json.list.all(a, !json.text.contains('b'))",
            text(100),
            text(8 << 20),
        ),
        (
            "json.list.all(a, json.text + json.text != 'b')",
            text(100),
            text(4 << 20),
        ),
        (
            "json.all(a, json.exists(b, b == a))",
            numbers(100),
            numbers(20_000),
        ),
        (
            "json.all(a, string(a).matches('^[0-9]+$'))",
            numbers(100),
            numbers(100_000),
        ),
    ] {
        let store = store_with(&json!({"cel": expression}));
        append(&store, &small).unwrap_or_else(|error| panic!("{expression}: {error}"));
        let expected = expected(&store, &large);
        assert!(expected.contains("10000000 steps"), "{expression}: {expected}");
    }
    // What a macro joins can be joined again.
    let doubled = format!("[json]{}.size() > 0", ".map(a, a + a)".repeat(60));
    let store = store_with(&json!({"cel": doubled}));
    assert!(expected(&store, &json!("text")).contains("10000000 steps"));
    let joined = ["json"; 150].join(" + ");
    let store = store_with(&json!({"cel": format!("size({joined}) > 0")}));
    append(&store, &json!("text")).unwrap();
    assert!(expected(&store, &json!("a".repeat(8 << 20))).contains("10000000 steps"));
}

#[test]
fn what_costs_no_more_than_its_length_is_taken_at_any_length() {
    let store = store_with(&json!({"cel": "json.all(a, a > 0 && a != 7) && json.map(a, a + 1).size() > 0"}));
    append(&store, &json!(vec![1; 1_000])).unwrap();
    let store = store_with(&json!({"cel": "size(json) > 10 && !json.contains('b') && json.matches('^a+$')"}));
    append(&store, &json!("a".repeat(4 << 20))).unwrap();
}

#[test]
fn patterns_are_texts_of_bounded_size() {
    for (expression, reason) in [
        ("json.matches(json)", "text in quotes"),
        ("json.matches(key)", "text in quotes"),
        ("matches(json, 'a' + 'b')", "text in quotes"),
        ("json.matches('(')", "unclosed"),
        ("json.matches('(a{1000}){1000}')", "bytes"),
        ("json.matches('\\\\w{500}')", "bytes"),
    ] {
        let (place, found) = refused_when_set(&json!({"cel": expression}));
        assert_eq!(place, "require.cel");
        assert!(found.contains(reason), "{expression}: {found}");
    }
    let store = store_with(&json!({"cel": "json.all(a, a.matches('^\\\\w{3,20}$'))"}));
    append(&store, &json!(["abc", "with_a_number_7"])).unwrap();
    assert!(expected(&store, &json!(vec!["abc"; 10_000])).contains("10000000 steps"));
}

#[test]
fn a_large_value_is_shown_by_its_beginning() {
    let store = store_with(&json!({"cel": "json"}));
    match append(&store, &json!(vec![1; 100_000])) {
        Err(Error::Constraint(violation)) => {
            assert!(
                violation.found.len() < 300 && violation.found.ends_with("..."),
                "{violation}"
            );
        }
        other => panic!("{other:?}"),
    }
}
