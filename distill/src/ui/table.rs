//! A small table of results for a terminal.

use std::fmt;

/// Columns of text aligned to the left and of figures aligned to the right, under a line of headings.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new<S: Into<String>>(headings: impl IntoIterator<Item = S>) -> Self {
        Self { headings: headings.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row; a cell too few is empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) -> &mut Self {
        self.rows.push(cells.into_iter().collect());
        self
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<Column> = (0..self.headings.len()).map(|number| Column::of(self, number)).collect();
        for row in std::iter::once(&self.headings).chain(&self.rows) {
            let cells = columns.iter().enumerate().map(|(number, column)| column.pad(cell(row, number)));
            let line = cells.collect::<Vec<_>>().join("  ");
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

struct Column {
    width: usize,
    figures: bool,
}

impl Column {
    fn of(table: &Table, number: usize) -> Self {
        let cells = || table.rows.iter().map(|row| cell(row, number));
        let width = cells().chain([cell(&table.headings, number)]).map(|cell| cell.chars().count()).max();
        let filled = || cells().filter(|cell| !matches!(*cell, "" | "-"));
        let figures = filled().next().is_some() && filled().all(is_figure);
        Self { width: width.unwrap_or(0), figures }
    }

    fn pad(&self, cell: &str) -> String {
        let width = self.width;
        if self.figures { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
    }
}

fn cell(row: &[String], number: usize) -> &str {
    row.get(number).map_or("", String::as_str)
}

fn is_figure(cell: &str) -> bool {
    cell.trim_start_matches(['-', '+']).starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_to_the_right_and_words_to_the_left() {
        let mut table = Table::new(["", "accuracy", "agreement", "size"]);
        let row = |cells: [&str; 4]| cells.map(str::to_owned);
        table.row(row(["teacher", "0.9280", "-", "11.5 MB"]));
        table.row(row(["student", "0.9", "0.951", "7.2 MB"]));
        assert_eq!(
            table.to_string(),
            "         accuracy  agreement     size\n\
             teacher    0.9280          -  11.5 MB\n\
             student       0.9      0.951   7.2 MB\n"
        );
    }

    #[test]
    fn a_short_row_and_a_column_of_words() {
        let mut table = Table::new(["name", "note"]);
        table.row(["a".to_owned(), "ümlaut".to_owned()]).row(["long".to_owned()]);
        assert_eq!(table.to_string(), "name  note\na     ümlaut\nlong\n");
    }
}
