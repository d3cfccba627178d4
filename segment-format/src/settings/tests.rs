use super::*;
use proptest::prelude::*;

fn retention() -> Retention {
    Retention {
        max_age_ms: Some(86_400_000),
        max_value_bytes: None,
        max_messages: Some(0),
    }
}

fn snapshot(label: &str, automatic: bool) -> SnapshotSettings {
    SnapshotSettings {
        label: label.to_owned(),
        version: Version::new(77),
        time_ms: -3,
        automatic,
    }
}

fn constraints(version: u64, document: &str) -> ConstraintSettings {
    ConstraintSettings {
        version,
        document: document.to_owned(),
    }
}

/// A setting of a later version.
fn later(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    push(&mut out, kind, &[payload]).unwrap();
    out[2..4].copy_from_slice(&flags.to_le_bytes());
    out
}

fn key_run(first: u64, end: u64) -> KeyRun {
    let sealed = crate::Sealed {
        block_bytes: 5000,
        header_crc: crate::Crc::new(0xFEDC),
    };
    KeyRun {
        base: 3,
        first,
        end,
        entries: end - first,
        stored_bytes: 800,
        superseded_bytes: 16,
        page_count: 5,
        leaf_count: 3,
        root_page: 3,
        filter_page: 4,
        filter_blocks: 63,
        level: 1,
        tree: Reference::local(BlockKind::Node, &crate::testing::identity(), &sealed),
    }
}

const KEYED: KeyedSettings = KeyedSettings {
    space_amplification_percent: 150,
    marker_grace_ms: 86_400_000,
};

const COMPRESSION: CompressionSettings = CompressionSettings {
    codec: Codec::Zstd,
    level: 3,
    batch_bytes: 65_536,
};

fn all() -> Settings {
    let mut unknown = later(9, 1, b"a");
    unknown.extend(later(u16::MAX, 1, b""));
    Settings {
        retention: retention(),
        snapshot: Some(snapshot("before the move", false)),
        constraints: Some(constraints(3, "{}")),
        keyed: Some(KEYED),
        key_runs: vec![key_run(3, 7), key_run(7, 9)],
        compression: Some(COMPRESSION),
        unknown,
    }
}

fn refused(bytes: &[u8]) -> Rule {
    Settings::decode(bytes).unwrap_err().rule
}

#[test]
fn what_is_written_is_read() {
    let only_retention = Settings {
        retention: retention(),
        ..Settings::default()
    };
    let automatic = Settings {
        snapshot: Some(snapshot("", true)),
        ..Settings::default()
    };
    for settings in [all(), only_retention, automatic] {
        let encoded = settings.encode().unwrap();
        assert!(encoded.len().is_multiple_of(8));
        assert_eq!(Settings::decode(&encoded), Ok(settings));
    }
}

#[test]
fn no_settings_are_no_bytes() {
    assert_eq!(Settings::default().encode(), Ok(Vec::new()));
    assert_eq!(Settings::decode(b""), Ok(Settings::default()));
    assert!(Retention::default().is_unlimited() && !retention().is_unlimited());
}

#[test]
fn what_a_later_version_wrote_stays_byte_for_byte_or_is_refused() {
    let mut bytes = all().encode().unwrap();
    let unknown = later(40_000, 1, b"something of the future");
    bytes.truncate(bytes.len() - all().unknown.len());
    bytes.extend_from_slice(&unknown);
    let found = Settings::decode(&bytes).unwrap();
    assert_eq!((&found.unknown, found.encode()), (&unknown, Ok(bytes)));
    assert_eq!(
        refused(&later(40_000, 0, b"")),
        Rule::Kind,
        "not to be passed over"
    );
}

#[test]
fn what_breaks_a_rule_is_not_written() {
    let refused = |change: fn(&mut Settings)| {
        let mut settings = all();
        change(&mut settings);
        settings.encode().unwrap_err().rule
    };
    assert_eq!(refused(|it| it.snapshot = Some(snapshot("", false))), Rule::Text);
    assert_eq!(
        refused(|it| it.snapshot = Some(snapshot("a\nb", true))),
        Rule::Text
    );
    let long = |it: &mut Settings| it.snapshot = Some(snapshot(&"x".repeat(256), true));
    assert_eq!(refused(long), Rule::Text);
    assert_eq!(
        refused(|it| it.constraints = Some(constraints(0, "{}"))),
        Rule::Zero
    );
    assert_eq!(
        refused(|it| it.constraints = Some(constraints(1, ""))),
        Rule::Text
    );
    assert_eq!(refused(|it| it.unknown = later(8, 0, b"")), Rule::Kind);
    assert_eq!(
        refused(|it| it.unknown = later(2, 1, b"")),
        Rule::Order,
        "a known one"
    );
    assert_eq!(refused(|it| it.unknown = vec![9]), Rule::Truncated);
    assert_eq!(refused(|it| it.unknown = later(8, 1, &[0; 65_528])), Rule::Limit);
    assert_eq!(refused(|it| it.unknown = vec![0; 65_537]), Rule::Limit);
}

#[test]
fn hostile_settings_are_refused() {
    let with = |at: usize, patch: &[u8]| {
        let mut bytes = all().encode().unwrap();
        bytes[at..at + patch.len()].copy_from_slice(patch);
        refused(&bytes)
    };
    let huge = u32::MAX.to_le_bytes();
    assert_eq!(with(0, &[0]), Rule::Zero);
    assert_eq!(with(0, &[8]), Rule::Kind, "unknown, not to be passed over");
    assert_eq!(with(2, &[1]), Rule::Flags, "a known one is never passed over");
    assert_eq!(with(2, &[2]), Rule::Flags);
    assert_eq!(with(4, &huge), Rule::Truncated);
    assert_eq!(with(4, &0x7FFF_FFFF_u32.to_le_bytes()), Rule::Truncated);
    assert_eq!(with(4, &[24]), Rule::Count, "shorter than the structure");
    assert_eq!(with(8, &[0]), Rule::Zero, "retention without a limit");
    assert_eq!(with(8, &[8]), Rule::Flags);
    assert_eq!(
        with(8, &[4]),
        Rule::Reserved,
        "a limit that is not set has a value"
    );
    assert_eq!(with(12, &[1]), Rule::Reserved);
    assert_eq!(
        with(24, &[1]),
        Rule::Reserved,
        "a limit that is not set has a value"
    );
    let snapshot = 40;
    assert_eq!(with(snapshot, &[1]), Rule::Order, "one kind twice");
    assert_eq!(
        with(snapshot + 4, &[38]),
        Rule::Reserved,
        "what was cut off is padding"
    );
    assert_eq!(with(snapshot + 8 + 16, &[2]), Rule::Flags);
    assert_eq!(with(snapshot + 8 + 20, &huge), Rule::Count);
    assert_eq!(with(snapshot + 8 + 24, &[0xFF]), Rule::Text);
    assert_eq!(with(snapshot + 8 + 24, b"\n"), Rule::Text);
    let mut nameless = later(KIND_SNAPSHOT, 0, &[0; 24]);
    assert_eq!(refused(&nameless), Rule::Text);
    nameless[8 + 16] = 1;
    assert!(Settings::decode(&nameless).is_ok());
    let label_bytes = "before the move".len();
    let constraints = (snapshot + 8 + 24 + label_bytes).next_multiple_of(8);
    assert_eq!(with(constraints, &[2]), Rule::Order, "one kind twice");
    assert_eq!(with(constraints + 8, &[0]), Rule::Zero, "version 0");
    assert_eq!(with(constraints + 8 + 8, &huge), Rule::Count);
    assert_eq!(with(constraints + 8 + 12, &[1]), Rule::Reserved);
    assert_eq!(with(constraints + 8 + 16, &[0xFF]), Rule::Text);
    assert_eq!(refused(&later(KIND_CONSTRAINTS, 0, &[0; 15])), Rule::Truncated);
    let short = later(KIND_SNAPSHOT, 0, &[0; 16]);
    assert_eq!(refused(&short), Rule::Truncated);
    let behind_the_last = [later(u16::MAX, 1, b""), later(u16::MAX, 1, b"")].concat();
    assert_eq!(refused(&behind_the_last), Rule::Order);
    assert_eq!(refused(&vec![0; 65_537]), Rule::Limit);
    assert_eq!(refused(&[0; 64]), Rule::Zero);
}

#[test]
fn settings_that_end_too_early_are_refused_or_end_with_a_setting() {
    let bytes = all().encode().unwrap();
    let whole: Vec<usize> = (0..bytes.len())
        .filter(|length| Settings::decode(&bytes[..*length]).is_ok())
        .collect();
    assert_eq!(whole, [0, 40, 88, 120, 144, 440, 456, 472]);
}

proptest! {
    #[test]
    fn what_decodes_encodes_to_the_same_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(settings) = Settings::decode(&bytes) {
            prop_assert_eq!(settings.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn a_changed_byte_is_refused_or_reads_as_something_that_is_written_so(
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = all().encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(settings) = Settings::decode(&bytes) {
            prop_assert_eq!(settings.encode().unwrap(), bytes);
        }
    }
}

#[test]
fn what_a_keyed_log_cannot_be_is_not_written() {
    let refused = |change: &dyn Fn(&mut Settings)| {
        let mut settings = all();
        change(&mut settings);
        settings.encode().unwrap_err().rule
    };
    let less = KeyedSettings {
        space_amplification_percent: 99,
        ..KEYED
    };
    assert_eq!(refused(&|it| it.keyed = Some(less)), Rule::Bounds);
    let with = |change: fn(&mut KeyRun)| refused(&|it: &mut Settings| change(&mut it.key_runs[0]));
    assert_eq!(with(|run| run.end = 3), Rule::Order);
    assert_eq!(
        with(|run| run.end = 8),
        Rule::Order,
        "two runs lie over each other"
    );
    assert_eq!(with(|run| run.tree = Reference::EMPTY), Rule::Zero);
    assert_eq!(with(|run| run.root_page = 5), Rule::Bounds);
    assert_eq!(with(|run| run.leaf_count = 0), Rule::Bounds);
    assert_eq!(with(|run| run.filter_blocks = 64), Rule::Bounds);
    assert_eq!(with(|run| run.filter_blocks = 0), Rule::Bounds);
    assert_eq!(with(|run| run.filter_page = u64::MAX), Rule::Bounds);
    assert_eq!(super::decode_key_runs(&[], 0).unwrap_err().rule, Rule::Count);
    assert_eq!(
        super::decode_key_runs(&[0; 143], 0).unwrap_err().rule,
        Rule::Count
    );
}

#[test]
fn settings_of_compression_within_their_bounds_are_taken_and_no_others() {
    let with = |codec, level, batch_bytes| Settings {
        compression: Some(CompressionSettings {
            codec,
            level,
            batch_bytes,
        }),
        ..Settings::default()
    };
    let most = COMPRESSED_BATCH_BYTES_MAX;
    for good in [
        with(Codec::Lz4, 0, 1),
        with(Codec::Zstd, 1, most),
        with(Codec::Zstd, 19, 4096),
    ] {
        assert_eq!(Settings::decode(&good.encode().unwrap()), Ok(good));
    }
    let cases = [
        (with(Codec::Lz4, 1, 4096), Rule::Bounds),
        (with(Codec::Zstd, 0, 4096), Rule::Bounds),
        (with(Codec::Zstd, 20, 4096), Rule::Bounds),
        (with(Codec::Lz4, 0, 0), Rule::Limit),
        (with(Codec::Lz4, 0, most + 1), Rule::Limit),
    ];
    for (settings, rule) in cases {
        assert_eq!(settings.encode().unwrap_err().rule, rule, "{settings:?}");
    }
    // What stands in a file is held to the same.
    let payload = |bytes: [u8; 8]| refused(&later(6, 0, &bytes));
    assert_eq!(payload([1, 1, 0, 0, 0, 16, 0, 0]), Rule::Bounds);
    assert_eq!(payload([2, 3, 0, 0, 0, 0, 0, 0]), Rule::Limit);
    assert_eq!(payload([3, 3, 0, 0, 0, 16, 0, 0]), Rule::Kind);
    assert_eq!(payload([2, 3, 1, 0, 0, 16, 0, 0]), Rule::Reserved);
}
