//! What a log must hold, message by message, and how that is compared with what it holds; for work at random.

use lanterman::{Error, LogItem, Snapshot};

/// What a log must hold: a message or nothing at each offset.
pub type Model = Vec<Option<Vec<u8>>>;

/// Numbers that a seed tells.
pub struct Random(u64);

impl Random {
    pub fn from_seed(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

pub fn message(random: &mut Random, number: u64) -> Vec<u8> {
    let length = match random.below(10) {
        0 => 0,
        1..=6 => random.below(120),
        7 | 8 => random.below(5000),
        _ => random.below(60_000),
    };
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(8 + usize::try_from(length).unwrap(), (number % 251) as u8);
    bytes
}

/// Every offset answers as the model says, one by one and in order.
pub fn check_snapshot(snapshot: &Snapshot, model: &Model, context: &str) {
    assert_eq!(snapshot.end().get(), model.len() as u64, "{context}: end");
    let start = model.iter().position(Option::is_some).unwrap_or(model.len());
    assert!(snapshot.start().get() <= start as u64, "{context}: start");
    let mut cursor = snapshot.cursor(0u64).unwrap();
    for (offset, expected) in model.iter().enumerate() {
        let found = cursor.get(offset as u64);
        match (expected, found) {
            (Some(expected), Ok(found)) => {
                assert!(
                    found.value() == &expected[..],
                    "{context}: another message at {offset}"
                );
            }
            (None, Err(Error::Deleted { run, .. })) => {
                assert!(
                    run.contains(&(offset as u64)),
                    "{context}: {offset} is not in {run:?}"
                );
                for deleted in run.start..run.end.min(model.len() as u64) {
                    assert!(
                        model[usize::try_from(deleted).unwrap()].is_none(),
                        "{context}: {deleted} of the run {run:?} at {offset} is there"
                    );
                }
            }
            (expected, found) => panic!(
                "{context}: offset {offset}: expected {:?}, found {:?}",
                expected.as_ref().map(Vec::len),
                found.map(|message| message.value().len())
            ),
        }
    }
    let kept: Vec<(u64, &Vec<u8>)> = (0u64..)
        .zip(model)
        .filter_map(|(offset, message)| Some((offset, message.as_ref()?)))
        .collect();
    let mut cursor = snapshot.cursor(0u64).unwrap();
    for (offset, expected) in &kept {
        let found = cursor
            .next()
            .unwrap()
            .unwrap_or_else(|| panic!("{context}: no message {offset}"));
        assert_eq!(found.offset().get(), *offset, "{context}");
        assert!(
            found.value() == &expected[..],
            "{context}: another message at {offset}"
        );
    }
    assert!(cursor.next().unwrap().is_none(), "{context}: too many messages");
    let ranged: Vec<u64> = snapshot
        .range(..)
        .unwrap()
        .map(|message| message.unwrap().offset().get())
        .collect();
    assert!(
        ranged.iter().eq(kept.iter().map(|(offset, _)| offset)),
        "{context}: range"
    );
    check_items(snapshot, model, context);
    let summary = snapshot.summary().unwrap();
    let bytes: usize = kept.iter().map(|(_, message)| message.len()).sum();
    let (counted, expected) = ((summary.messages(), summary.value_bytes()), (kept.len(), bytes));
    assert_eq!(
        counted,
        (expected.0 as u64, expected.1 as u64),
        "{context}: counted"
    );
    assert!(summary.is_exact(), "{context}: nothing was estimated");
}

/// With what is deleted shown, every offset is answered for, and no two runs stand side by side.
fn check_items(snapshot: &Snapshot, model: &Model, context: &str) {
    let mut cursor = snapshot.cursor(0u64).unwrap();
    let mut at = 0;
    let mut was_run = false;
    while let Some(item) = cursor.next_item().unwrap() {
        match item {
            LogItem::Message(message) => {
                let expected = model[usize::try_from(at).unwrap()].as_deref();
                assert_eq!(message.offset().get(), at, "{context}");
                assert!(expected == Some(message.value()), "{context}: item {at}");
                (at, was_run) = (at + 1, false);
            }
            LogItem::Deleted(run) => {
                assert!(
                    run.start == at && !run.is_empty() && !was_run,
                    "{context}: {run:?} at {at}"
                );
                for offset in run.clone() {
                    assert!(
                        model[usize::try_from(offset).unwrap()].is_none(),
                        "{context}: {offset}"
                    );
                }
                (at, was_run) = (run.end, true);
            }
            other => panic!("{context}: {other:?}"),
        }
    }
    assert_eq!(at, model.len() as u64, "{context}: items");
}
