//! `distill predict`: label and probabilities for each line of text, as lines arrive.

use crate::cli::PredictArgs;
use crate::inference::Running;
use crate::jobs::predict::predict;
use crate::tasks::single_label::{self, Prediction};
use crate::ui::Ui;

pub(crate) fn run(args: PredictArgs, ui: &Ui) -> anyhow::Result<()> {
    let compute = args.compute.device.resolve()?;
    let model = single_label::load(&args.model, &args.hub.into())?;
    let max_length = model.max_length(args.max_length)?;
    let running = Running::new(&compute, args.compute.batch_tokens);
    predict(model, args.file.as_deref(), max_length, running, args.logits, |predictions| {
        Ok(ui.results(predictions, Prediction::text_line)?)
    })
}
