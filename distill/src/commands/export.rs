//! `distill export`: writes a folder that Hugging Face `transformers` loads, with a model card.

use crate::cli::ExportArgs;
use crate::data::{self, NO_FIGURES};
use crate::device::{self, PrecisionChoice};
use crate::inference::Running;
use crate::jobs::export::{Export, ExportReport, Figures, Source};
use crate::recipe::ColumnsRecipe;
use crate::tasks::single_label;
use crate::ui::Ui;

pub(crate) fn run(args: ExportArgs, ui: &Ui) -> anyhow::Result<()> {
    // Always in f32: rounded activations would hide the effect of rounded weights.
    let compute = device::find(args.compute.device.device, PrecisionChoice::F32)?;
    let columns = ColumnsRecipe::from(&args.columns);
    let mut source = Source::load(&args.model)?;
    let names = single_label::name_labels(&mut source.model, &columns.label_names)?;
    let max_length = source.max_length(columns.max_length)?;
    let data = match &args.data {
        None => None,
        Some(path) => {
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            let split = data::read(path, &columns, Some(&names))?;
            split.say_unlabelled(&format!("row of {name}"), NO_FIGURES);
            Some((name, split))
        }
    };
    let report = Export {
        output: &args.output.output,
        existing: args.output.existing(false),
        dtype: args.dtype,
        max_length,
        running: Running::new(&compute, args.compute.batch_tokens),
        figures: match &data {
            None => Figures::OfTheRun,
            Some((name, split)) => Figures::Measure(name, split),
        },
    }
    .run(source)?;
    ui.result(&report, ExportReport::text)?;
    Ok(())
}
