//! `distill train`: trains a student on a teacher's stored logits and on labels.

use std::path::Path;
use std::time::Instant;

use teacher::HubOptions;

use crate::cli::TrainArgs;
use crate::data;
use crate::files::refuse_source;
use crate::jobs::{TrainReport, Training};
use crate::recipe::ColumnsRecipe;
use crate::tasks::single_label;
use crate::ui::Ui;

pub(crate) fn run(args: TrainArgs, ui: &Ui) -> anyhow::Result<()> {
    let compute = args.compute.device.resolve()?;
    let start = Instant::now();
    refuse_source(Path::new(&args.teacher), &args.output.output)?;
    args.cache.as_deref().map(|cache| refuse_source(cache, &args.output.output)).transpose()?;
    let columns = ColumnsRecipe::from(&args.columns);
    let mut teacher = single_label::load(&args.teacher, &HubOptions::from(args.hub.clone()))?;
    let names = single_label::name_labels(&mut teacher, &columns.label_names)?;
    let data = data::read_split(&args.data, args.validation.as_deref(), &columns, Some(&names))?;
    let max_length = teacher.max_length(columns.max_length)?;
    let trained = Training {
        teacher,
        data,
        max_length,
        student: &args.student(),
        objective: args.loss_terms(),
        fit: args.fit(),
        cache: args.cache.as_deref(),
        output: &args.output.output,
        force: args.force,
        compute: &compute,
    }
    .run(args.output.existing(args.resume))?;
    let report = TrainReport::new(&args.output.output, &trained.figures, trained.speed, start);
    ui.result(&report, TrainReport::text)?;
    Ok(())
}
