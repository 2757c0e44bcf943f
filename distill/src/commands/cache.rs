//! `distill cache`: runs the frozen teacher over a data set and stores what it says; its subcommands look after that.

mod estimate;
mod export;
mod gc;
mod inspect;
mod merge;
mod verify;

use anyhow::bail;
use cache::{Captured, Dtype, HiddenStates, HiddenTokens, LogitForm, Outputs};

use nn::{EncoderConfig, Head};

use crate::capture::{CacheReport, Capturing, ExistingCache, Source, capture, check_hidden};
use crate::cli::{CacheArgs, CacheCommand, CaptureArgs, ComputeArgs, HubArgs, StoredArgs, TaskArgs};
use crate::fingerprint::MaskingRecipe;
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
    let Subject { teacher, masking, captured, batch_tokens } =
        subject(&args.teacher, &args.hub, &columns, &args.task, &args.stored, &args.compute)?;
    let max_length = teacher.max_length(columns.max_length)?;
    let source = Source::File { path: &args.data, columns: task_data::columns_of(&columns) };
    let how = Capturing {
        output: &args.output.output,
        existing: match (args.refresh, args.output.overwrite) {
            (true, _) => ExistingCache::Refresh,
            (false, true) => ExistingCache::Overwrite,
            (false, false) => ExistingCache::Resume,
        },
        running: Running { compute: &compute, batch_tokens },
        masking,
        captured,
        force: args.force,
    };
    let report = capture(teacher, &source, max_length, &how)?;
    ui.result(&report, CacheReport::text)?;
    Ok(())
}

/// Most tokens of a forward batch whose every token has a row of logits: 512 rows over 30,522 words take 62 MB, and a
/// few batches are on their way at a time.
const MOST_WORD_BATCH_TOKENS: usize = 512;

/// The largest logits that are stored of a masked-language model's answers unless told otherwise.
const WORD_TOP_K: usize = 64;

/// Who answers, what is asked, and what is stored of it.
struct Subject {
    teacher: TextModel,
    masking: Option<MaskingRecipe>,
    captured: Captured,
    batch_tokens: usize,
}

/// Loads the teacher, and settles everything that depends on the task.
fn subject(
    name: &str,
    hub: &HubArgs,
    columns: &ColumnsRecipe,
    task: &TaskArgs,
    stored: &StoredArgs,
    compute: &ComputeArgs,
) -> anyhow::Result<Subject> {
    Ok(match task.masked_part()? {
        None => {
            let mut teacher = model::load_classifier(name, hub)?;
            teacher.name_labels(&columns.label_names)?;
            let captured = captured(stored, &teacher.config.encoder)?;
            Subject { teacher, masking: None, captured, batch_tokens: compute.batch_tokens }
        }
        Some(probability) => {
            let teacher = model::load_masked_lm(name, hub)?;
            let masking = MaskingRecipe { probability, seed: stored.seed };
            let captured = captured(stored, &teacher.config.encoder)?;
            let batch_tokens = compute.batch_tokens.min(MOST_WORD_BATCH_TOKENS);
            Subject { teacher, masking: Some(masking), captured, batch_tokens }
        }
    })
}

/// What the flags ask to be stored of this teacher's answers.
pub(super) fn captured(args: &StoredArgs, encoder: &EncoderConfig) -> anyhow::Result<Captured> {
    let (outputs, top_k, dtype) = match encoder.head {
        Head::Classification => (Outputs::Row, None, Dtype::F32),
        Head::MaskedLm => (Outputs::Token, Some(WORD_TOP_K), Dtype::F16),
    };
    let dtype = args.dtype.map_or(dtype, Dtype::from);
    if args.top_k.is_none() && top_k.is_none() && !args.temperatures.is_empty() {
        bail!(
            "--temperatures goes with --top-k: where all logits are stored, a student may be trained at any temperature"
        );
    }
    let logits = match (args.top_k.or(top_k.filter(|_| args.sample.is_none())), args.sample) {
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
    let captured = Captured { width: encoder.outputs(), outputs, logits, hidden_states };
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
