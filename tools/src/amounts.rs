//! Ages, sizes and ranges of offsets as they stand on the command line.
//!
//! Whole numbers only, each with a unit where one is needed, and nothing that could be read in two ways: a limit that is
//! misread destroys messages.

use std::time::Duration;

/// Units of ages, in seconds.
const AGE_UNITS: [(&str, u64); 5] = [
    ("s", 1),
    ("m", 60),
    ("h", 60 * 60),
    ("d", 24 * 60 * 60),
    ("w", 7 * 24 * 60 * 60),
];

/// Units of sizes, in bytes.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("", 1),
    ("B", 1),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// The greatest age: a hundred years, as the library has it.
const AGE_MAX_SECONDS: u64 = 100 * 366 * 24 * 60 * 60;

/// A range of offsets; where it has no end, the end of the log is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OffsetRange {
    pub(crate) first: u64,
    pub(crate) end: Option<u64>,
}

/// Takes `90s`, `15m`, `36h`, `7d` or `2w`.
pub(crate) fn parse_age(given: &str) -> Result<Duration, String> {
    let (amount, unit) = amount_and_unit(given)?;
    let seconds = AGE_UNITS
        .iter()
        .find(|(known, _)| *known == unit)
        .map(|(_, seconds)| *seconds)
        .ok_or("an age needs a unit: s, m, h, d or w, as in 90s, 15m, 36h, 7d, 2w")?;
    let age = amount
        .checked_mul(seconds)
        .filter(|age| *age <= AGE_MAX_SECONDS)
        .ok_or("an age is at most a hundred years: without a limit everything is kept anyhow")?;
    if age == 0 {
        return Err(
            "nothing is younger than that: it would keep nothing (`delete` deletes messages)".to_owned(),
        );
    }
    Ok(Duration::from_secs(age))
}

/// Takes bytes, as in `1000`, `64KiB`, `500MB`, `2GiB`.
pub(crate) fn parse_size(given: &str) -> Result<u64, String> {
    let (amount, unit) = amount_and_unit(given)?;
    let bytes = SIZE_UNITS
        .iter()
        .find(|(known, _)| *known == unit)
        .map(|(_, bytes)| *bytes)
        .ok_or("the units of sizes are KiB, MiB, GiB, TiB (of 1024) and KB, MB, GB (of 1000)")?;
    let size = amount
        .checked_mul(bytes)
        .ok_or("no store can hold so many bytes")?;
    kept(size)
}

/// Takes a number of messages to be kept.
pub(crate) fn parse_message_count(given: &str) -> Result<u64, String> {
    kept(parse_number(given)?)
}

/// Takes an offset.
pub(crate) fn parse_offset(given: &str) -> Result<u64, String> {
    parse_number(given)
}

/// Takes `FROM..TO`, `FROM..`, `..TO` and `..`.
pub(crate) fn parse_range(given: &str) -> Result<OffsetRange, String> {
    let (first, end) = given
        .split_once("..")
        .ok_or("a range is FROM..TO: from offset FROM up to and not with TO, as in 100..200")?;
    if end.starts_with('=') {
        return Err("a range is FROM..TO, where TO is the first offset that is kept".to_owned());
    }
    let first = if first.is_empty() { 0 } else { parse_number(first)? };
    let end = match end {
        "" => None,
        end => Some(parse_number(end)?),
    };
    if let Some(end) = end.filter(|end| *end < first) {
        return Err(format!("it ends at {end}, before it begins at {first}"));
    }
    Ok(OffsetRange { first, end })
}

fn kept(amount: u64) -> Result<u64, String> {
    match amount {
        0 => Err("that would keep nothing (`delete` deletes messages)".to_owned()),
        amount => Ok(amount),
    }
}

fn amount_and_unit(given: &str) -> Result<(u64, &str), String> {
    let digits = given.bytes().take_while(u8::is_ascii_digit).count();
    let unit = given.get(digits..).unwrap_or_default();
    let Some(digits) = given.get(..digits).filter(|digits| !digits.is_empty()) else {
        return Err(no_number(given));
    };
    if unit.starts_with(['.', ',']) {
        return Err("whole numbers only: take a smaller unit".to_owned());
    }
    Ok((parse_number(digits)?, unit))
}

/// Digits alone; the standard library takes a plus sign too.
fn parse_number(given: &str) -> Result<u64, String> {
    if given.is_empty() || !given.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(no_number(given));
    }
    given
        .parse()
        .map_err(|_| format!("the greatest number is {}", u64::MAX))
}

fn no_number(given: &str) -> String {
    match given.strip_prefix('-') {
        Some(rest) if rest.starts_with(|digit: char| digit.is_ascii_digit()) => {
            "it must not be negative".to_owned()
        }
        _ => "it must begin with digits, and there are none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_a_unit_and_are_neither_nothing_nor_centuries() {
        let seconds = |given| parse_age(given).map(|age| age.as_secs());
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("15m"), Ok(900));
        assert_eq!(seconds("36h"), Ok(129_600));
        assert_eq!(seconds("7d"), Ok(604_800));
        assert_eq!(seconds("2w"), Ok(1_209_600));
        assert_eq!(seconds("36600d"), Ok(AGE_MAX_SECONDS));
        for (given, words) in [
            ("90", "unit"),
            ("90ms", "unit"),
            ("7D", "unit"),
            ("1 d", "unit"),
            ("1d12h", "unit"),
            ("1.5h", "smaller unit"),
            ("0s", "keep nothing"),
            ("0d", "keep nothing"),
            ("-5m", "negative"),
            ("d", "digits"),
            ("", "digits"),
            ("+5m", "digits"),
            ("36601d", "hundred years"),
            ("18446744073709551615w", "hundred years"),
            ("18446744073709551616s", "greatest"),
        ] {
            let refused = seconds(given).unwrap_err();
            assert!(refused.contains(words), "{given:?}: {refused}");
        }
    }

    #[test]
    fn sizes_tell_powers_of_two_from_powers_of_ten() {
        assert_eq!(parse_size("1"), Ok(1));
        assert_eq!(parse_size("12B"), Ok(12));
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("64KB"), Ok(64_000));
        assert_eq!(parse_size("3MiB"), Ok(3_145_728));
        assert_eq!(parse_size("3MB"), Ok(3_000_000));
        assert_eq!(parse_size("2GiB"), Ok(2_147_483_648));
        assert_eq!(parse_size("2GB"), Ok(2_000_000_000));
        assert_eq!(parse_size("1TiB"), Ok(1_099_511_627_776));
        for (given, words) in [
            ("0", "keep nothing"),
            ("0GiB", "keep nothing"),
            ("-1", "negative"),
            ("10k", "units"),
            ("10 MiB", "units"),
            ("1.5GiB", "smaller unit"),
            ("GiB", "digits"),
            ("18446744073709551615KiB", "so many"),
            ("99999999999999999999", "greatest"),
        ] {
            let refused = parse_size(given).unwrap_err();
            assert!(refused.contains(words), "{given:?}: {refused}");
        }
    }

    #[test]
    fn ranges_may_leave_out_either_side_and_never_run_backwards() {
        let range = |first, end| Ok(OffsetRange { first, end });
        assert_eq!(parse_range("3..8"), range(3, Some(8)));
        assert_eq!(parse_range("8..8"), range(8, Some(8)));
        assert_eq!(parse_range("3.."), range(3, None));
        assert_eq!(parse_range("..8"), range(0, Some(8)));
        assert_eq!(parse_range(".."), range(0, None));
        for (given, words) in [
            ("8..3", "before it begins"),
            ("3", "FROM..TO"),
            ("", "FROM..TO"),
            ("3..=8", "first offset that is kept"),
            ("-3..8", "negative"),
            ("3..-8", "negative"),
            ("3...8", "digits"),
            ("a..b", "digits"),
            ("0..18446744073709551616", "greatest"),
        ] {
            let refused = parse_range(given).unwrap_err();
            assert!(refused.contains(words), "{given:?}: {refused}");
        }
    }

    #[test]
    fn counts_and_offsets_are_digits_alone() {
        assert_eq!(parse_message_count("5"), Ok(5));
        assert!(parse_message_count("0").unwrap_err().contains("keep nothing"));
        assert!(parse_message_count("-5").unwrap_err().contains("negative"));
        assert_eq!(parse_offset("0"), Ok(0));
        assert!(parse_offset("+1").unwrap_err().contains("digits"));
    }
}
