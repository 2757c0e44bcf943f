//! `distill finetune`: makes a teacher of a model by training it on labelled rows.

use std::path::Path;
use std::time::Instant;

use anyhow::bail;
use datasets::{LabelNames, Masking, Task, prune_vocabulary};
use nn::{Head, Layout, Model, Parameters, names};
use serde::Serialize;

use super::train::Existing;
use crate::checkpoint::CHECKPOINT;
use crate::cli::{ExportDtype, FinetuneArgs, TaskChoice};
use crate::files::refuse_source;
use crate::fingerprint;
use crate::hint::HintExt;
use crate::metrics::Scores;
use crate::model::{self, MODEL_FILES, TextModel};
use crate::objective::{LossTermRecipe, Objective};
use crate::recipe::{ColumnsRecipe, FitRecipe};
use crate::run_record::{RECORD, RunFigures, RunInputs, RunRecord};
use crate::task_data::{self, Split, TaskData};
use crate::training::{Fit, FitRows, METRICS, Speed};
use crate::ui::{self, Table, Ui};

/// Makes a teacher of a model.
pub(crate) fn run(args: FinetuneArgs, ui: &Ui) -> anyhow::Result<()> {
    let compute = args.compute.device.resolve()?;
    let start = Instant::now();
    refuse_source(Path::new(&args.model), &args.output.output)?;
    let columns = ColumnsRecipe::from(&args.columns);
    let seed = args.fitting.seed;
    let (mut model, (train, validation), task) = match args.task.task {
        TaskChoice::SingleLabel => {
            let mut model = model::load(&args.model, &args.hub)?;
            let data = labelled(&mut model, &args, &columns)?;
            (model, (data.train, data.validation), Task::SingleLabel)
        }
        TaskChoice::MaskedLm => {
            let mut model = model::load_for(&args.model, &args.hub, Head::MaskedLm)?;
            start_masked_lm_head(&mut model, seed);
            (model, texts(&args, &columns)?, Task::MaskedLm)
        }
    };
    for rate in [
        &mut model.config.encoder.hidden_dropout,
        &mut model.config.encoder.attention_dropout,
        &mut model.config.encoder.classifier_dropout,
    ] {
        *rate = args.fitting.dropout as f32;
    }
    let max_length = model.max_length(columns.max_length)?;
    let weights = teacher::weights_hash(&model.parameters);
    if args.prune_vocabulary {
        prune(&mut model, &train, max_length)?;
    }

    let objective_terms = vec![LossTermRecipe::HardLabel { weight: 1.0 }];
    let objective = Objective::new(task, objective_terms.clone())?;
    let mask_probability = args.task.masked_part()?;
    let masking = mask_probability.map(|probability| Masking::new(&model.tokenizer, probability, seed)).transpose()?;
    let train = fit_rows(&model, train, max_length)?;
    let validation = fit_rows(&model, validation, max_length)?;
    let fit = FitRecipe::of(args.epochs, args.learning_rate, &args.fitting, &args.compute);
    let inputs = RunInputs {
        command: "finetune".to_string(),
        distill: env!("CARGO_PKG_VERSION").to_string(),
        model: weights,
        config: fingerprint::of_config(&model.config.encoder),
        tokenizer: fingerprint::of_tokenizer(&model.tokenizer),
        train: fingerprint::of_rows(&train.encodings, &train.labels),
        validation: fingerprint::of_rows(&validation.encodings, &validation.labels),
        labels: model.config.labels.clone(),
        max_length,
        objective: objective_terms,
        student: None,
        prune_vocabulary: args.prune_vocabulary,
        teacher_logits: None,
        mask_probability,
        fit: fit.clone(),
        device: compute.kind().to_string(),
        precision: compute.precision(),
    };
    let existing = Existing::of(args.resume, args.output.overwrite);
    if let Some(figures) = existing.prepare(&args.output.output, &inputs)? {
        let report = TrainReport::new(&args.output.output, &figures, None, start);
        ui.result(&report, TrainReport::text)?;
        return Ok(());
    }
    let mut student = Model::on(&compute, model.config.clone(), model.parameters)?;
    let fitted = Fit {
        objective: &objective,
        train: &train,
        validation: &validation,
        masking: masking.as_ref(),
        cache: None,
        recipe: &fit,
        inputs: &inputs,
        folder: &args.output.output,
        resume: existing == Existing::Resume,
        way_on: existing.way_on(),
    }
    .run(&mut student)?;
    let figures = finish(&args.output.output, &student, &model.tokenizer, inputs, &fitted)?;
    let report = TrainReport::new(&args.output.output, &figures, Some(fitted.speed), start);
    ui.result(&report, TrainReport::text)?;
    Ok(())
}

/// What can be done without labels.
const TEXTS_ALONE: &str = "--task masked-lm learns from texts alone";

/// Rows with labels, and the model with a head for their classes.
fn labelled(model: &mut TextModel, args: &FinetuneArgs, columns: &ColumnsRecipe) -> anyhow::Result<TaskData> {
    let given = match columns.label_names.as_slice() {
        [] => None,
        names => Some(LabelNames::new(names.to_vec())?),
    };
    let read = task_data::read_split(&args.data, args.validation.as_deref(), columns, given.as_ref());
    let data = match read {
        Err(error) if matches!(error.downcast_ref(), Some(datasets::Error::NoLabels)) => {
            return Err(error).hint(TEXTS_ALONE);
        }
        read => read?,
    };
    let data = in_order_of(model, data)?;
    if data.train.labels.iter().all(Option::is_none) {
        return Err(anyhow::anyhow!("{}: no row has a label; fine-tuning learns from labels", args.data.display()))
            .hint(TEXTS_ALONE);
    }
    let generic = LabelNames::new(model.config.labels.clone())?.are_generic();
    if generic && model.missing_head.is_empty() && columns.label_names.len() == model.config.labels.len() {
        // Names for the head that is there, in its order.
        model.name_labels(&columns.label_names)?;
    }
    start_head(model, &data, args.fitting.seed)?;
    Ok(data)
}

/// Rows whose labels do not matter, to learn from and to validate on.
fn texts(args: &FinetuneArgs, columns: &ColumnsRecipe) -> anyhow::Result<(Split, Split)> {
    let read = |path: &Path| datasets::read_rows(path, &task_data::columns_of(columns));
    let validation = args.validation.as_deref().map(read).transpose()?;
    let (train, validation) = task_data::split_rows(read(&args.data)?, validation)?;
    Ok((Split::unlabelled(train), Split::unlabelled(validation)))
}

/// Starts what the checkpoint does not have of the head at random.
fn start_masked_lm_head(model: &mut TextModel, seed: u64) {
    if model.missing_head.is_empty() {
        return;
    }
    for slot in std::mem::take(&mut model.missing_head) {
        model.parameters.randomize(slot, model.config.encoder.pad_token_id, seed);
    }
    ui::say("a new masked-language-model head starts at random");
}

/// Everything that a training may write into its folder.
pub(crate) fn written() -> Vec<&'static str> {
    [METRICS, CHECKPOINT, RECORD].into_iter().chain(MODEL_FILES).collect()
}

/// Numbers the data's classes as the model does, if they are the same ones by name.
fn in_order_of(model: &TextModel, mut data: TaskData) -> anyhow::Result<TaskData> {
    let theirs = LabelNames::new(model.config.labels.clone())?;
    let ids: Option<Vec<u32>> = data.names.names().iter().map(|name| theirs.id(name)).collect();
    if let Some(ids) = ids.filter(|ids| ids.len() == theirs.len()) {
        for label in data.train.labels.iter_mut().chain(&mut data.validation.labels).flatten() {
            *label = ids[*label as usize];
        }
        data.names = theirs;
    }
    Ok(data)
}

/// Keeps the model's head if its classes are the data's; else starts a new one at random.
fn start_head(model: &mut TextModel, data: &TaskData, seed: u64) -> anyhow::Result<()> {
    if model.missing_head.is_empty() && data.names.names() == model.config.labels {
        return Ok(());
    }
    let mut config = model.config.clone();
    config.labels = data.names.names().to_vec();
    config.encoder.num_labels = config.labels.len();
    let mut parameters = Parameters::zeros(Layout::new(&config.encoder));
    for entry in parameters.layout().clone().entries() {
        // BERT's pooler is pretrained; a classifier for other classes has nothing to keep.
        let fits = model.parameters.layout().entry(entry.slot).is_some_and(|old| old.shape == entry.shape);
        let classifier = matches!(entry.slot, nn::Slot::HeadOutputWeight | nn::Slot::HeadOutputBias);
        if names::is_head(entry.slot) && (classifier || !fits || model.missing_head.contains(&entry.slot)) {
            parameters.randomize(entry.slot, config.encoder.pad_token_id, seed);
        } else {
            parameters.get_mut(entry.slot).copy_from_slice(model.parameters.get(entry.slot));
        }
    }
    ui::say(format!("a new classification head for {} classes starts at random", config.labels.len()));
    model.config = config;
    model.parameters = parameters;
    model.missing_head.clear();
    Ok(())
}

/// Cuts the model's vocabulary to the pieces of these rows and every single character.
pub(crate) fn prune(model: &mut TextModel, rows: &Split, max_length: usize) -> anyhow::Result<()> {
    let encodings = model.tokenizer.encode(&rows.rows, max_length)?;
    let before = model.config.encoder.vocab_size;
    let pruned = prune_vocabulary(&model.tokenizer, encodings.used_ids().into_iter())?;
    let Some((config, parameters)) = student::prune::prune(&model.config, &model.parameters, &pruned.kept) else {
        bail!("the tokenizer's padding token is not the model's; its vocabulary cannot be pruned");
    };
    ui::say(format!(
        "vocabulary pruned from {} to {} pieces",
        ui::count(before as u64),
        ui::count(pruned.kept.len() as u64)
    ));
    model.config = config;
    model.parameters = parameters;
    model.tokenizer = pruned.tokenizer;
    Ok(())
}

/// Tokenises rows for training.
fn fit_rows(model: &TextModel, split: Split, max_length: usize) -> anyhow::Result<FitRows> {
    let encodings = model.tokenizer.encode(&split.rows, max_length)?;
    model::report_truncated(encodings.truncated_count(), encodings.len(), max_length);
    Ok(FitRows { encodings, labels: split.labels, keys: Vec::new() })
}

/// Writes a trained model and its record, and removes the checkpoint.
pub(crate) fn finish(
    folder: &Path,
    student: &Model,
    tokenizer: &datasets::TextTokenizer,
    inputs: RunInputs,
    fitted: &crate::training::Fitted,
) -> anyhow::Result<RunFigures> {
    let bytes = model::save(folder, student.config(), student.parameters(), tokenizer, ExportDtype::F32)?;
    let figures = RunFigures {
        steps: fitted.steps,
        kept_epoch: fitted.kept_epoch,
        parameters: student.parameters().flat().len(),
        bytes,
        validation: fitted.scores.clone(),
    };
    RunRecord::new(inputs, figures.clone()).write(folder)?;
    crate::checkpoint::remove(folder)?;
    Ok(figures)
}

/// What `finetune` and `train` print.
#[derive(Debug, Serialize)]
pub(crate) struct TrainReport {
    accuracy: Option<f64>,
    macro_f1: Option<f64>,
    agreement: Option<f64>,
    ece: Option<f64>,
    parameters: usize,
    bytes: u64,
    /// In training; absent where a complete run was kept.
    rows_per_second: Option<f64>,
    /// In which training waited for rows and for what the teacher said of them.
    waited_seconds: Option<f64>,
    seconds: f64,
    output: String,
}

impl TrainReport {
    pub(crate) fn new(folder: &Path, figures: &RunFigures, speed: Option<Speed>, start: Instant) -> Self {
        let scores = |f: fn(&Scores) -> Option<f64>| figures.validation.as_ref().and_then(f);
        Self {
            accuracy: scores(|s| s.accuracy),
            macro_f1: scores(|s| s.macro_f1),
            agreement: scores(|s| s.agreement),
            ece: scores(|s| s.ece),
            parameters: figures.parameters,
            bytes: figures.bytes,
            rows_per_second: speed.map(|speed| speed.rows_per_second),
            waited_seconds: speed.map(|speed| speed.waited_seconds),
            seconds: start.elapsed().as_secs_f64(),
            output: folder.display().to_string(),
        }
    }

    pub(crate) fn text(&self) -> String {
        let figure = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.4}"));
        let mut table = Table::new(["on the validation rows", ""]);
        table.row(["accuracy".to_string(), figure(self.accuracy)]);
        table.row(["macro-F1".to_string(), figure(self.macro_f1)]);
        if self.agreement.is_some() {
            table.row(["agreement with the teacher".to_string(), figure(self.agreement)]);
        }
        table.row(["calibration error (ECE)".to_string(), figure(self.ece)]);
        table.row(["parameters".to_string(), ui::count(self.parameters as u64)]);
        table.row(["bytes".to_string(), ui::bytes(self.bytes)]);
        if let Some(rate) = self.rows_per_second {
            table.row(["rows a second in training".to_string(), format!("{rate:.0}")]);
        }
        if let Some(seconds) = self.waited_seconds {
            table.row(["seconds waited for data".to_string(), format!("{seconds:.3}")]);
        }
        format!("{table}\nwritten: {}", self.output)
    }
}
