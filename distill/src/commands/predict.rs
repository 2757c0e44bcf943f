//! `distill predict`: label and probabilities for each line of text, as the lines come, or for each row of a table.

use anyhow::bail;
use datasets::{Columns, LabelColumn, has_columns};

use crate::cli::PredictArgs;
use crate::inference::Running;
use crate::jobs::predict::{Texts, predict};
use crate::tasks::single_label::{self, Prediction};
use crate::ui::Ui;

pub(crate) fn run(args: PredictArgs, ui: &Ui) -> anyhow::Result<()> {
    let compute = args.compute.device.resolve()?;
    let texts = match (args.file, args.text_column) {
        (None, _) => Texts::Stdin,
        (Some(file), None) if has_columns(&file) => {
            bail!(
                "{}: a table and not one text a line; name the column that holds the texts with --text-column",
                file.display()
            );
        }
        (Some(file), None) => Texts::Lines(file),
        (Some(file), Some(column)) => Texts::Column(
            file,
            Columns {
                text: Some(column),
                pair: args.pair_column,
                label: LabelColumn::Ignored,
                quotes: args.quotes,
                ..Columns::default()
            },
        ),
    };
    let model = single_label::load(&args.model, &args.hub.into())?;
    let max_length = model.max_length(args.max_length)?;
    let running = Running::new(&compute, args.compute.batch_tokens);
    predict(model, texts, max_length, running, args.logits, |predictions| {
        Ok(ui.results(predictions, Prediction::text_line)?)
    })
}
