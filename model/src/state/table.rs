//! Columns that line up.

use std::fmt;

/// Text in columns under headings; a column is as wide as its widest cell. Columns whose heading starts with `>` are flush right.
pub(super) struct Table<const N: usize> {
    headings: [&'static str; N],
    rows: Vec<[String; N]>,
    empty: &'static str,
}

impl<const N: usize> Table<N> {
    /// `empty` is printed, with a line feed, in place of a table without rows.
    pub(super) fn new(headings: [&'static str; N], empty: &'static str) -> Self {
        Self { headings, rows: Vec::new(), empty }
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return writeln!(f, "{}", self.empty);
        }
        let headings = self.headings.map(|h| h.trim_start_matches('>').to_owned());
        let mut widths = headings.each_ref().map(|h| h.chars().count());
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), heading) in row.iter().zip(widths).zip(self.headings) {
                if heading.starts_with('>') {
                    line.push_str(&format!("{cell:>width$}  "));
                } else {
                    line.push_str(&format!("{cell:<width$}  "));
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The value, or `-`.
pub(super) fn or_dash<T: fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| v.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_end_without_spaces() {
        let mut table = Table::new(["Name", ">Count", "Note"], "nothing");
        assert_eq!(table.to_string(), "nothing\n");
        table.row(["a".into(), "1".into(), "x".into()]);
        table.row(["longer".into(), "1234567".into(), String::new()]);
        assert_eq!(table.to_string(), "Name      Count  Note\na             1  x\nlonger  1234567\n");
    }
}
