//! `distill cache`: runs the frozen teacher over a data set and stores what it says; its subcommands look after that.

mod estimate;
mod export;
mod gc;
mod inspect;
mod merge;
mod verify;

use cache::{Captured, HiddenStates, HiddenTokens, LogitForm, Outputs};

use crate::capture::{CacheReport, Capturing, ExistingCache, Source, capture, check_hidden};
use crate::cli::{CacheArgs, CacheCommand, CaptureArgs, StoredArgs};
use crate::inference::Running;
use crate::model::{self, TextModel};
use crate::recipe::ColumnsRecipe;
use crate::task_data;
use crate::ui::{self, Table, Ui};

/// Stores what a teacher says of a data set, or looks after what is stored.
pub(crate) fn run(args: CacheArgs, ui: &Ui) -> anyhow::Result<()> {
    match args {
        CacheArgs::Capture(args) => capture_file(&args, ui),
        CacheArgs::Stored(CacheCommand::Inspect(args)) => inspect::run(&args, ui),
        CacheArgs::Stored(CacheCommand::Verify(args)) => verify::run(&args, ui),
        CacheArgs::Stored(CacheCommand::Estimate(args)) => estimate::run(&args, ui),
        CacheArgs::Stored(CacheCommand::Merge(args)) => merge::run(&args, ui),
        CacheArgs::Stored(CacheCommand::Export(args)) => export::run(&args, ui),
        CacheArgs::Stored(CacheCommand::Gc(args)) => gc::run(&args, ui),
    }
}

fn capture_file(args: &CaptureArgs, ui: &Ui) -> anyhow::Result<()> {
    let compute = args.compute.device.resolve()?;
    let columns = ColumnsRecipe::from(&args.columns);
    let mut teacher = model::load_classifier(&args.teacher, &args.hub)?;
    teacher.name_labels(&columns.label_names)?;
    let max_length = teacher.max_length(columns.max_length)?;
    let captured = stored(&args.stored, &teacher)?;
    let source = Source::File { path: &args.data, columns: task_data::columns_of(&columns) };
    let how = Capturing {
        output: &args.output.output,
        existing: match (args.refresh, args.output.overwrite) {
            (true, _) => ExistingCache::Refresh,
            (false, true) => ExistingCache::Overwrite,
            (false, false) => ExistingCache::Resume,
        },
        running: Running { compute: &compute, batch_tokens: args.compute.batch_tokens },
        captured,
        force: args.force,
    };
    let report = capture(teacher, &source, max_length, &how)?;
    ui.result(&report, CacheReport::text)?;
    Ok(())
}

/// What the flags ask to be stored of this teacher's answers.
fn stored(args: &StoredArgs, teacher: &TextModel) -> anyhow::Result<Captured> {
    let encoder = &teacher.config.encoder;
    let dtype = args.dtype.into();
    let logits = match (args.top_k, args.sample) {
        (Some(k), _) => {
            let temperatures =
                if args.temperatures.is_empty() { vec![1.0, 2.0, 4.0] } else { args.temperatures.clone() };
            LogitForm::TopK { k, dtype, temperatures }
        }
        (None, Some(draws)) => LogitForm::Sample { draws, temperature: args.sample_temperature, seed: args.seed },
        (None, None) => LogitForm::Dense { dtype },
    };
    let hidden_states = (!args.hidden_states.is_empty()).then(|| {
        let mut layers = args.hidden_states.clone();
        layers.sort_unstable();
        layers.dedup();
        let tokens = if args.all_tokens { HiddenTokens::All } else { HiddenTokens::First };
        HiddenStates { layers, tokens, width: encoder.hidden_size }
    });
    if let Some(form) = &hidden_states {
        check_hidden(form, encoder.num_layers)?;
    }
    let captured = Captured { width: encoder.num_labels, outputs: Outputs::Row, logits, hidden_states };
    captured.check().map_err(|finding| cache::Error::Captured { finding })?;
    Ok(captured)
}

impl CacheReport {
    fn text(&self) -> String {
        let mut table = Table::new(["cache", ""]);
        for (what, number) in [
            ("rows", self.rows),
            ("unique", self.unique),
            ("forwarded", self.forwarded),
            ("skipped", self.skipped),
            ("truncated", self.truncated),
        ] {
            table.row([what.to_string(), ui::count(number)]);
        }
        table.row(["bytes".to_string(), ui::bytes(self.bytes)]);
        if let Some(accuracy) = self.accuracy {
            table.row(["teacher's accuracy".to_string(), format!("{accuracy:.4}")]);
        }
        format!("{table}\nwritten: {}", self.output)
    }
}
