//! The report of an export.

use serde::Serialize;

use crate::card::CardFigures;
use crate::recipe::ExportDtype;
use crate::ui::{self, Table};

/// What `export` prints.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ExportReport {
    pub(super) dtype: ExportDtype,
    /// Number of rows on which the export and its source were compared.
    pub(super) compared_rows: usize,
    /// Largest difference between corresponding logits.
    pub(super) largest_difference: f32,
    /// Number of these rows with another predicted label, because of rounding.
    pub(super) label_changes: usize,
    /// The scores on the model card.
    pub(super) figures: Option<CardFigures>,
    pub(super) parameters: usize,
    /// Of the weights' file.
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    pub(super) output: String,
}

impl ExportReport {
    pub(crate) fn text(&self) -> String {
        let mut table = Table::new(["export", ""]);
        table.row(["parameters".to_string(), ui::count(self.parameters as u64)]);
        table.row(["bytes".to_string(), ui::bytes(self.bytes)]);
        table.row(["rows compared with its source".to_string(), ui::count(self.compared_rows as u64)]);
        table.row(["largest difference of a logit".to_string(), self.largest_difference.to_string()]);
        table.row(["labels changed by rounding".to_string(), ui::count(self.label_changes as u64)]);
        if let Some(figures) = &self.figures
            && let Some(accuracy) = figures.scores.accuracy
        {
            table.row([format!("accuracy on {}", figures.measured_on), format!("{accuracy:.4}")]);
        }
        format!("{table}\nwritten: {}", self.output)
    }
}
