//! `distill cache`: runs the frozen teacher over a data set and stores what it says; its subcommands look after that.

mod estimate;
mod export;
mod gc;
mod inspect;
mod merge;
mod verify;

use anyhow::bail;
use cache::{Captured, HiddenStates, HiddenTokens, LogitForm, Outputs};
use datasets::Key;

use crate::capture::{CacheReport, Capturing, ExistingCache, Source, capture, check_hidden, stored_choice};
use crate::cli::{CacheArgs, CacheCommand, CaptureArgs, StoredArgs};
use crate::inference::Running;
use crate::model::{self, TextModel};
use crate::recipe::ColumnsRecipe;
use crate::task_data;
use crate::ui::{self, Table, Ui};

/// Stores what a teacher says of a data set, or looks after what is stored.
pub(crate) fn run(args: CacheArgs, ui: &Ui) -> anyhow::Result<()> {
    match (args.what, args.capture) {
        (Some(CacheCommand::Inspect(args)), _) => inspect::run(&args, ui),
        (Some(CacheCommand::Verify(args)), _) => verify::run(&args, ui),
        (Some(CacheCommand::Estimate(args)), _) => estimate::run(&args, ui),
        (Some(CacheCommand::Merge(args)), _) => merge::run(&args, ui),
        (Some(CacheCommand::Export(args)), _) => export::run(&args, ui),
        (Some(CacheCommand::Gc(args)), _) => gc::run(&args, ui),
        (None, Some(args)) => capture_file(&args, ui),
        (None, None) => bail!("nothing to do: give --teacher, --data and --output, or a subcommand"),
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
        (None, Some(draws)) => {
            LogitForm::Sample { draws, temperature: args.sample_temperature, seed: args.seed }
        }
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

/// The cached teacher's accuracy on the labelled rows that are cached, and how many they are.
pub(crate) fn cached_accuracy(
    reader: &cache::CacheReader,
    key: impl Fn(usize) -> Key,
    labels: &[Option<u32>],
) -> anyhow::Result<Option<(f64, usize)>> {
    let (mut right, mut labelled) = (0, 0);
    for (row, label) in labels.iter().enumerate() {
        if let Some(label) = label
            && let Some(choice) = stored_choice(reader, &key(row))?
        {
            labelled += 1;
            right += usize::from(choice == *label);
        }
    }
    Ok((labelled > 0).then(|| (right as f64 / labelled as f64, labelled)))
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
