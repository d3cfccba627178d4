//! Bytes, sizes and tables as people and JSON readers take them.

use std::fmt;

use serde::{Serialize, Serializer};

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
    fn columns_line_up() {
        let mut table = Table::new(1, &["log", "end"]);
        table.row(vec!["a".to_owned(), "1000".to_owned()]);
        assert_eq!(table.to_string(), "log   end\na    1000");
    }
}
