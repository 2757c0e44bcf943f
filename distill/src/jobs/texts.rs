//! The texts without labels that a recipe names.

use std::collections::HashSet;

use datasets::Row;

use crate::data::read_unlabelled;
use crate::recipe::{Recipe, StageRecipe};

/// A recipe's texts without labels: those of the whole, and those of each stage alone.
#[derive(Clone, Default)]
pub(crate) struct Texts {
    pub(crate) of_all: Vec<Row>,
    pub(crate) of_stages: Vec<Vec<Row>>,
}

impl Texts {
    /// Reads them, without those that stand in the other rows. Two stages may have the same text.
    pub(crate) fn read(recipe: &Recipe, others: [Option<&Vec<Row>>; 3]) -> anyhow::Result<Self> {
        let columns = recipe.data.columns();
        let of_all = read_unlabelled(recipe.data.unlabelled.as_deref(), &columns, &others)?;
        let [rows, validation, test] = others;
        let others = [rows, validation, test, Some(&of_all)];
        let of_stage = |stage: &StageRecipe| read_unlabelled(stage.unlabelled.as_deref(), &columns, &others);
        let of_stages = recipe.stages.iter().map(of_stage).collect::<anyhow::Result<_>>()?;
        Ok(Self { of_all, of_stages })
    }

    /// Those of a stage alone, by its number.
    pub(crate) fn of_stage(&self, number: usize) -> &[Row] {
        self.of_stages.get(number).map_or(&[], Vec::as_slice)
    }

    /// All of them, each once.
    pub(crate) fn distinct(&self) -> Vec<Row> {
        let mut seen = HashSet::new();
        let all = self.of_all.iter().chain(self.of_stages.iter().flatten());
        all.filter(|row| seen.insert((&row.text, &row.text_b))).cloned().collect()
    }
}
