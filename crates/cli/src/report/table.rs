//! Aligned tables.

use super::Style;

/// On which side of a column its text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Names and bars.
    Left,
    /// Numbers.
    Right,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A bar, which has its own colour.
    Bar,
}

/// A table: columns with headings, then rows.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<(&'static str, Align, Kind)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of text columns.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        let columns = columns
            .iter()
            .map(|&(title, align)| (title, align, Kind::Text));
        Self {
            columns: columns.collect(),
            rows: Vec::new(),
        }
    }

    /// The same with a column of bars at the end.
    pub fn with_bars(mut self) -> Self {
        self.columns.push(("", Align::Left, Kind::Bar));
        self
    }

    /// Appends a row; missing cells are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<String> = cells.into_iter().collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
    }

    /// Lines of text, each indented by two columns; without headings if they are all empty.
    pub fn render(&self, style: Style) -> String {
        let width = |c: usize| {
            let cells = self.rows.iter().map(|row| row[c].chars().count());
            cells
                .max()
                .unwrap_or(0)
                .max(self.columns[c].0.chars().count())
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cell: &dyn Fn(usize) -> String| {
            let mut text = String::from(" ");
            for (c, &(_, align, kind)) in self.columns.iter().enumerate() {
                let cell = cell(c);
                let space = " ".repeat(widths[c].saturating_sub(cell.chars().count()));
                text.push(' ');
                match (align, kind) {
                    (_, Kind::Bar) => text.push_str(&style.bar(&cell)),
                    (Align::Left, _) => text.push_str(&format!("{cell}{space} ")),
                    (Align::Right, _) => text.push_str(&format!("{space}{cell} ")),
                }
            }
            text.trim_end().to_owned()
        };
        let mut text = String::new();
        if self.columns.iter().any(|(title, ..)| !title.is_empty()) {
            text.push_str(&style.quiet(&line(&|c| self.columns[c].0.to_owned())));
            text.push('\n');
        }
        for row in &self.rows {
            text.push_str(&line(&|c| row[c].clone()));
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("name", Align::Left), ("ms", Align::Right)]).with_bars();
        table.row(["a".to_owned(), "1.25".to_owned(), "██".to_owned()]);
        table.row(["gelu σ".to_owned(), "10.5".to_owned()]);
        let text = table.render(Style::PLAIN);
        assert_eq!(text, "  name      ms\n  a       1.25  ██\n  gelu σ  10.5\n");
    }
}
