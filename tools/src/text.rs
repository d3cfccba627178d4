//! Bytes, sizes and tables as people and JSON readers take them.

use std::fmt::{self, Write};
use std::io;

use lanterman_format::weakened;
use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;

/// Whether a character steers a terminal, or turns round what stands beside it, in place of being shown: names of files
/// and logs are chosen by others.
fn steers(character: char) -> bool {
    let is_layout = matches!(character, '\n' | '\t');
    let turns_round = matches!(character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (character.is_control() && !is_layout || turns_round) && !weakened!("terminal-escapes-raw")
}

/// Text in which nothing steers the terminal: such characters come as `\u{1b}`.
pub(crate) struct Visible<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Visible<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(formatter), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, character)) = rest.char_indices().find(|(_, character)| steers(*character)) {
            let (before, after) = rest.split_at(at);
            self.0.write_str(before)?;
            write!(self.0, "{}", character.escape_unicode())?;
            rest = after.get(character.len_utf8()..).unwrap_or_default();
        }
        self.0.write_str(rest)
    }
}

/// JSON in which nothing steers the terminal either: what its grammar lets stand raw is written as an escape all the
/// same, which means the same to whoever parses it.
pub(crate) struct VisibleJson;

impl Formatter for VisibleJson {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        // The first bytes of all such characters that the grammar leaves alone; mostly none of them is there.
        let is_plain = !fragment
            .bytes()
            .any(|byte| matches!(byte, 0x7f | 0xc2 | 0xd8 | 0xe2));
        if is_plain {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some((at, character)) = rest.char_indices().find(|(_, character)| steers(*character)) {
            let (before, after) = rest.split_at(at);
            write!(writer, "{before}\\u{:04x}", u32::from(character))?;
            rest = after.get(character.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Bytes as lower-case hexadecimal digits, without a copy.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A size with a unit, and exact where that is short.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    #[allow(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return formatter.pad(&format!("{} B", self.0));
        }
        let mut amount = self.0 as f64 / 1024.0;
        let mut shown = "KiB";
        for unit in units {
            shown = unit;
            if amount < 1024.0 {
                break;
            }
            amount /= 1024.0;
        }
        formatter.pad(&format!("{amount:.1} {shown}"))
    }
}

/// A share of a greatest number, drawn, and as wide as any other.
pub(crate) struct Bar(pub(crate) u64, pub(crate) u64);

impl fmt::Display for Bar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WIDTH: usize = 40;
        let Bar(part, most) = *self;
        let length = (u128::from(part) * WIDTH as u128).checked_div(u128::from(most));
        // Whatever is there is seen.
        let length = length.unwrap_or(0).max(u128::from(part > 0));
        let bar = "#".repeat(usize::try_from(length).unwrap_or(WIDTH));
        write!(formatter, "{bar:<WIDTH$}")
    }
}

/// Columns of text, each as wide as its widest cell; the first `left` columns are aligned to the left.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    left: usize,
}

impl Table {
    pub(crate) fn new(left: usize, head: &[&str]) -> Self {
        Table {
            rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()],
            left,
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            if number > 0 {
                writeln!(formatter)?;
            }
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
                let gap = if column == 0 { "" } else { "  " };
                line.push_str(gap);
                if column < self.left {
                    line.push_str(cell);
                    line.push_str(&pad);
                } else {
                    line.push_str(&pad);
                    line.push_str(cell);
                }
            }
            write!(formatter, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_get_the_unit_that_keeps_them_short() {
        let shown: Vec<String> = [0, 1023, 1024, 1536, 1 << 20, u64::MAX]
            .map(|bytes| Size(bytes).to_string())
            .into();
        assert_eq!(
            shown,
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "16.0 EiB"]
        );
    }

    #[test]
    fn what_steers_a_terminal_is_shown_and_all_else_is_left_as_it_is() {
        let shown = Visible("a\u{1b}[2Jb\u{9b}c\u{202e}d\r\u{7f}").to_string();
        assert_eq!(shown, "a\\u{1b}[2Jb\\u{9b}c\\u{202e}d\\u{d}\\u{7f}");
        let kept = "zażółć ☃ 家族 \u{1f468}\u{200d}\u{1f469} \\ \" \n\t";
        assert_eq!(Visible(kept).to_string(), kept);
    }

    #[test]
    fn json_keeps_its_meaning_and_steers_nothing() {
        let text = "a\u{1b}b\u{9b}c\u{202e}d\u{7f}e\u{2066}f é ☃ \\u{1b} \u{61c}";
        let mut bytes = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, VisibleJson);
        text.serialize(&mut serializer).unwrap();
        let json = String::from_utf8(bytes).unwrap();
        assert!(!json.chars().any(steers), "{json:?}");
        assert!(json.contains("é ☃"), "{json:?}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn a_bar_is_as_long_as_its_share_and_never_vanishes() {
        let drawn = |part, most| Bar(part, most).to_string().trim_end().len();
        assert_eq!(
            [
                drawn(0, 9),
                drawn(1, 1 << 40),
                drawn(5, 10),
                drawn(u64::MAX, u64::MAX)
            ],
            [0, 1, 20, 40]
        );
        assert_eq!((drawn(0, 0), Bar(1, 2).to_string().len()), (0, 40));
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(1, &["log", "end"]);
        table.row(vec!["a".to_owned(), "1000".to_owned()]);
        assert_eq!(table.to_string(), "log   end\na    1000");
    }
}
