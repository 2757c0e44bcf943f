//! `distill train`: trains a student on a teacher's cached logits and on labels.

use std::path::Path;
use std::time::Instant;

use cache::CacheReader;
use teacher::HubOptions;

use crate::cli::TrainArgs;
use crate::data;
use crate::files::refuse_source;
use crate::jobs::{Teacher, TrainReport, Training};
use crate::recipe::ColumnsRecipe;
use crate::tasks::single_label;
use crate::ui::Ui;

pub(crate) fn run(args: TrainArgs, ui: &Ui) -> anyhow::Result<()> {
    let compute = args.compute.device.resolve()?;
    let start = Instant::now();
    for model in [&args.teacher, &args.student].into_iter().flatten() {
        refuse_source(Path::new(model), &args.output.output)?;
    }
    args.cache.as_deref().map(|cache| refuse_source(cache, &args.output.output)).transpose()?;
    let columns = ColumnsRecipe::from(&args.columns);
    let hub = HubOptions::from(args.hub.clone());
    let recipe = args.student();
    recipe.check()?;
    let teacher = match (&args.teacher, &args.cache) {
        (None, Some(cache)) => Teacher::of_cache(cache, &columns)?,
        (name, _) => {
            let mut model = single_label::load(name.as_deref().unwrap_or_default(), &hub)?;
            single_label::name_labels(&mut model, &columns.label_names)?;
            // With a tokenizer of its own, a student has a limit of its own: its teacher's is then what the cache holds.
            let max_length = match (&recipe.model, &args.cache) {
                (Some(_), Some(cache)) => {
                    let reader = CacheReader::open(cache, None)?;
                    (!reader.fingerprint().keyed_by_text()).then_some(reader.fingerprint().max_length)
                }
                _ => columns.max_length,
            };
            Teacher::of_model(model, max_length)?
        }
    };
    let names = teacher.names()?;
    let data = data::read_split(&args.data, args.validation.as_deref(), &columns, Some(&names))?;
    let trained = Training {
        teacher,
        data,
        max_length: columns.max_length,
        student: &recipe,
        hub: &recipe.hub(&hub),
        objective: args.loss_terms()?,
        fit: args.fit(),
        cache: args.cache.as_deref(),
        output: &args.output.output,
        tensorboard: args.telemetry.tensorboard,
        force: args.force,
        labelled_alone: false,
        compute: &compute,
    }
    .run(args.output.existing(args.resume))?;
    let report = TrainReport::new(&args.output.output, &trained, start);
    ui.result(&report, TrainReport::text)?;
    Ok(())
}
