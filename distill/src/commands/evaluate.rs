//! `distill evaluate`: evaluates a model on labelled rows, and compares it with its teacher.

use serde::Serialize;
use teacher::HubOptions;

use crate::cli::EvaluateArgs;
use crate::data::{self, NO_FIGURES};
use crate::inference::Running;
use crate::jobs::evaluate::{Measured, measure, teacher_predictions};
use crate::model;
use crate::recipe::ColumnsRecipe;
use crate::tasks::single_label;
use crate::ui::Ui;

pub(crate) fn run(args: EvaluateArgs, ui: &Ui) -> anyhow::Result<()> {
    let compute = args.compute.device.resolve()?;
    let how = Running::new(&compute, args.compute.batch_tokens);
    let columns = ColumnsRecipe::from(&args.columns);
    let hub = HubOptions::from(args.hub);
    let mut model = single_label::load(&args.model, &hub)?;
    let names = single_label::name_labels(&mut model, &columns.label_names)?;
    let split = data::read(&args.data, &columns, Some(&names))?;
    let bytes = model::weights_bytes(&args.model, &hub)?;
    let max_length = model.max_length(columns.max_length)?;
    let teacher = match &args.teacher {
        None => None,
        Some(name) => {
            let mut teacher = single_label::load(name, &hub)?;
            single_label::name_labels(&mut teacher, &columns.label_names)?;
            let max_length = teacher.max_length(columns.max_length)?;
            Some(teacher_predictions(teacher, &model.config.labels, &split, max_length, how)?)
        }
    };
    split.say_unlabelled(&format!("row of {}", args.data.display()), NO_FIGURES);
    let measured = measure(model, &split, max_length, how, bytes, teacher.as_deref(), "evaluate")?;
    ui.result(&EvaluateReport { measured, output: None }, |report| report.measured.text())?;
    Ok(())
}

/// What `evaluate` prints; its keys are shared with `train`, `finetune` and `demo`.
#[derive(Debug, Serialize)]
struct EvaluateReport {
    #[serde(flatten)]
    measured: Measured,
    /// Always `None`: nothing is written.
    output: Option<String>,
}
