//! Promise: SPEC.md says what the code does. The tables of structures are read from the text and compared with the
//! structures by name, offset and width; the table of limits is compared with the limits.

use lanterman_format::convert::wide;
use lanterman_format::layout::{ALL, StructLayout};
use lanterman_format::limits;
use std::collections::BTreeMap;

/// A field as a table gives it: offset, bytes, name.
type Row = (usize, usize, String);

const SPEC: &str = include_str!("../../SPEC.md");

/// The cells of a row of a table; `None` if the line is none.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

/// Name and size of a heading `### Name (n bytes)`.
fn structure_heading(line: &str) -> Option<(&str, usize)> {
    let (name, size) = line.trim_start_matches('#').trim().split_once(" (")?;
    let size = size.strip_suffix(" bytes)")?.parse().ok()?;
    (line.starts_with('#') && !name.contains(' ')).then_some((name, size))
}

/// All structures of the text: size, and the rows of the first table behind the heading that is one of fields.
fn structures(text: &str) -> BTreeMap<String, (usize, Vec<Row>)> {
    let mut found: BTreeMap<String, (usize, Vec<Row>)> = BTreeMap::new();
    let mut current: Option<String> = None;
    let mut in_fields = false;
    for line in text.lines() {
        if line.starts_with('#') {
            current = structure_heading(line).map(|(name, size)| {
                found.insert(name.to_owned(), (size, Vec::new()));
                name.to_owned()
            });
        }
        let cells = cells(line).unwrap_or_default();
        in_fields = match cells.as_slice() {
            ["offset", "bytes", "name", "meaning"] => true,
            [] => false,
            _ => in_fields,
        };
        let row = match cells.as_slice() {
            [offset, bytes, name, _] if in_fields => offset
                .parse()
                .ok()
                .zip(bytes.parse().ok())
                .map(|pair| (pair, name)),
            _ => None,
        };
        let target = current.as_ref().and_then(|name| found.get_mut(name));
        if let (Some(((offset, bytes), name)), Some((_, rows))) = (row, target) {
            rows.push((offset, bytes, (*name).to_owned()));
        }
    }
    found
}

fn rows_of(layout: &StructLayout) -> Vec<Row> {
    layout
        .fields
        .iter()
        .map(|field| (field.offset, field.bytes, field.name.to_owned()))
        .collect()
}

#[test]
fn each_structure_of_the_code_stands_in_the_text_as_it_is() {
    let text = structures(SPEC);
    for layout in ALL {
        let (bytes, rows) = text
            .get(layout.name)
            .unwrap_or_else(|| panic!("no heading for {}", layout.name));
        assert_eq!(*bytes, layout.bytes, "size of {}", layout.name);
        assert_eq!(*rows, rows_of(layout), "fields of {}", layout.name);
    }
}

#[test]
fn the_text_has_no_structure_that_the_code_lacks() {
    let known: Vec<&str> = ALL.iter().map(|layout| layout.name).collect();
    let unknown: Vec<String> = structures(SPEC)
        .into_keys()
        .filter(|name| !known.contains(&name.as_str()))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn the_fields_of_each_structure_follow_one_another_to_its_end() {
    for (name, (bytes, rows)) in structures(SPEC) {
        let end = rows.iter().fold(0, |end, (offset, width, field)| {
            assert_eq!(*offset, end, "{name}.{field}");
            end + width
        });
        assert_eq!(end, bytes, "{name}");
    }
}

#[test]
fn the_limits_in_the_text_are_those_of_the_code() {
    let expected = BTreeMap::from([
        ("LOG_ID_MAX", limits::LOG_ID_MAX),
        ("NAME_BYTES_MAX", wide(limits::NAME_BYTES_MAX)),
        ("KEY_BYTES_MAX", limits::KEY_BYTES_MAX.into()),
        ("HEADERS_BYTES_MAX", limits::HEADERS_BYTES_MAX.into()),
        ("VALUE_BYTES_DEFAULT_MAX", limits::VALUE_BYTES_DEFAULT_MAX.into()),
        ("VALUE_BYTES_MAX", limits::VALUE_BYTES_MAX.into()),
        ("VALUE_PARTS_MAX", limits::VALUE_PARTS_MAX.into()),
        (
            "COMPRESSED_SLAB_BYTES_MAX",
            limits::COMPRESSED_SLAB_BYTES_MAX.into(),
        ),
        (
            "COMPRESSED_BATCH_BYTES_MAX",
            limits::COMPRESSED_BATCH_BYTES_MAX.into(),
        ),
        ("BLOCK_BYTES_MAX", limits::BLOCK_BYTES_MAX.into()),
        ("SEGMENT_BYTES_MAX", limits::SEGMENT_BYTES_MAX),
        ("SETTINGS_BYTES_MAX", limits::SETTINGS_BYTES_MAX.into()),
        ("NODE_ENTRIES_MAX", limits::NODE_ENTRIES_MAX.into()),
        ("NODE_LEVEL_MAX", limits::NODE_LEVEL_MAX.into()),
        ("CATALOG_PAGE_LOGS", limits::CATALOG_PAGE_LOGS),
        ("GATHERED_SLABS_MAX", limits::GATHERED_SLABS_MAX.into()),
    ]);
    let found: BTreeMap<&str, u64> = SPEC
        .lines()
        .filter_map(cells)
        .filter_map(|cells| match cells.as_slice() {
            [name, value, _] if name.ends_with("_MAX") || name.ends_with("_LOGS") => {
                value.parse().ok().map(|value| (*name, value))
            }
            _ => None,
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_wrong_table_would_be_noticed() {
    let wrong = SPEC.replace("| 12 | 4 | payload_crc |", "| 12 | 2 | payload_crc |");
    assert_ne!(wrong, SPEC);
    assert_ne!(structures(&wrong), structures(SPEC));
}
