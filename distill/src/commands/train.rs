//! `distill train`: trains a student on a teacher's stored logits and on labels.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::bail;
use cache::{CacheReader, Captured, Dtype, LogitForm};
use datasets::{LabelNames, Task, TextTokenizer};
use nn::hf::HfConfig;
use nn::{Compute, EncoderConfig, Layout, Model, Parameters};
use student::start::{self, Layers, Sizes};

use super::finetune::{TrainReport, finish, prune, written};
use crate::cached;
use crate::checkpoint::CHECKPOINT;
use crate::cli::{LayerChoice, TrainArgs};
use crate::files::{prepare_output, refuse_source, remove_partial};
use crate::fingerprint;
use crate::hint::HintExt;
use crate::model::{self, TextModel};
use crate::objective::{LossTermRecipe, Objective};
use crate::recipe::{ColumnsRecipe, FitRecipe, StudentRecipe};
use crate::run_record::{RunFigures, RunInputs, RunRecord};
use crate::task_data::{self, Split, TaskData};
use crate::training::{Fit, FitRows, METRICS, Speed};
use crate::ui::{self, Ui};

/// Trains a student.
pub(crate) fn run(args: TrainArgs, ui: &Ui) -> anyhow::Result<()> {
    let compute = args.compute.device.resolve()?;
    let start = Instant::now();
    refuse_source(Path::new(&args.teacher), &args.output.output)?;
    args.cache.as_deref().map(|cache| refuse_source(cache, &args.output.output)).transpose()?;
    let columns = ColumnsRecipe::from(&args.columns);
    let mut teacher = model::load_classifier(&args.teacher, &args.hub)?;
    let names = teacher.name_labels(&columns.label_names)?;
    let data = task_data::read_split(&args.data, args.validation.as_deref(), &columns, Some(&names))?;
    let student = StudentRecipe {
        family: args.model_type,
        layers: args.layers.clone(),
        num_layers: args.num_layers,
        hidden_size: args.hidden_size,
        num_heads: args.num_heads,
        intermediate_size: args.intermediate_size,
        bottleneck_size: args.bottleneck_size,
        stacks: args.stacks,
        prune_vocabulary: args.prune_vocabulary,
        dropout: args.fitting.dropout,
    };
    let max_length = teacher.max_length(columns.max_length)?;
    let trained = Training {
        teacher,
        data,
        max_length,
        student: &student,
        objective: args.loss_terms(),
        fit: FitRecipe::of(args.epochs, args.learning_rate, &args.fitting, &args.compute),
        cache: args.cache.as_deref(),
        output: &args.output.output,
        force: args.force,
        compute: &compute,
    }
    .run(Existing::of(args.resume, args.output.overwrite))?;
    let report = TrainReport::new(&args.output.output, &trained.figures, trained.speed, start);
    ui.result(&report, TrainReport::text)?;
    Ok(())
}

/// What to do about a folder that already holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// An error.
    Refuse,
    /// What we would write is removed first.
    Overwrite,
    /// A stopped training of the same inputs goes on, a complete one is kept.
    Resume,
}

impl Existing {
    /// What the flags ask for.
    pub(crate) fn of(resume: bool, overwrite: bool) -> Self {
        match (resume, overwrite) {
            (true, _) => Self::Resume,
            (false, true) => Self::Overwrite,
            (false, false) => Self::Refuse,
        }
    }

    /// Makes room for a run, or refuses the folder. The figures of a complete run of these inputs that is to be kept.
    pub(crate) fn prepare(self, folder: &Path, inputs: &RunInputs) -> anyhow::Result<Option<RunFigures>> {
        if self != Self::Resume {
            prepare_output(folder, self == Self::Overwrite, &written())?;
            return Ok(None);
        }
        if let Some(figures) = complete(folder, inputs)? {
            return Ok(Some(figures));
        }
        // Without a sign of a run that began here, whatever lies there is not ours to write over.
        let held = if folder.exists() { remove_partial(folder)? } else { Vec::new() };
        let ours = |bytes: Vec<u8>| bytes.starts_with(METRICS_START) || METRICS_START.starts_with(&bytes);
        let begun = fs::read(folder.join(METRICS)).is_ok_and(ours);
        let begun = begun && held.iter().all(|name| written().contains(&name.as_str()));
        if !begun && !held.iter().any(|name| name == CHECKPOINT) {
            prepare_output(folder, false, &[])?;
        }
        Ok(None)
    }

    /// How a run that was stopped goes on.
    pub(crate) fn way_on(self) -> &'static str {
        match self {
            Self::Refuse => "the same command with --resume goes on from here",
            Self::Overwrite => "the same command with --resume in place of --overwrite goes on from here",
            Self::Resume => "the same command goes on from here",
        }
    }
}

/// How the first line of our `metrics.jsonl` starts.
const METRICS_START: &[u8] = b"{\"schema_version\":";

/// A training of a student, with everything that its result follows from.
pub(crate) struct Training<'a> {
    pub(crate) teacher: TextModel,
    pub(crate) data: TaskData,
    pub(crate) max_length: usize,
    pub(crate) student: &'a StudentRecipe,
    pub(crate) objective: Vec<LossTermRecipe>,
    pub(crate) fit: FitRecipe,
    pub(crate) cache: Option<&'a Path>,
    pub(crate) output: &'a Path,
    /// Goes on with a teacher no better than chance.
    pub(crate) force: bool,
    pub(crate) compute: &'a Compute,
}

/// What a training gave.
pub(crate) struct Trained {
    pub(crate) figures: RunFigures,
    /// Absent where a complete run was kept.
    pub(crate) speed: Option<Speed>,
}

impl Training<'_> {
    /// Trains, writes the model and its record.
    pub(crate) fn run(self, existing: Existing) -> anyhow::Result<Trained> {
        let objective = Objective::new(Task::SingleLabel, self.objective.clone())?;
        let Split { rows, labels } = self.data.train;
        if !objective.needs_teacher() && labels.iter().all(Option::is_none) {
            bail!("no row has a label, and without a soft term there is nothing else to learn from");
        }
        let names = LabelNames::new(self.teacher.config.labels.clone())?;
        // Whatever form the answers are stored in, and whatever the teacher computed in, a student learns from them.
        let captured = Captured::dense(names.len(), Dtype::F32);
        let precision = self.compute.precision().to_string();
        let fingerprint = fingerprint::of_teacher(&self.teacher, self.max_length, None, &precision, captured)?;
        let weights = teacher::weights_hash(&self.teacher.parameters);
        let teacher_rows = self.teacher.tokenizer.encode(&rows, self.max_length)?;
        let keys: Vec<_> = (0..teacher_rows.len()).map(|row| teacher_rows.key(row)).collect();
        let cache = match self.cache {
            Some(folder) => Some(CacheReader::open(folder, Some(&fingerprint))?),
            None if objective.needs_teacher() => {
                return Err(anyhow::anyhow!("the soft term needs the teacher's stored logits: no --cache is given"))
                    .hint("distill cache makes it; or leave the soft term out with --weight-soft 0");
            }
            None => None,
        };
        if let (Some(cache), true) = (&cache, objective.needs_teacher()) {
            check_temperatures(cache, &objective)?;
            let mut missing = 0;
            for key in &keys {
                missing += usize::from(!cache.contains(key)?);
            }
            if missing > 0 {
                return Err(anyhow::anyhow!("{missing} of {} training rows are not in the cache", keys.len()))
                    .hint("run distill cache on the same data: it adds the rows that are missing");
            }
            if let (Some((accuracy, labelled)), false) = (cached::accuracy(cache, &keys, &labels)?, self.force) {
                task_data::refuse_chance(accuracy, labelled, names.len())?;
            }
        }
        let validation_keys = {
            let encodings = self.teacher.tokenizer.encode(&self.data.validation.rows, self.max_length)?;
            (0..encodings.len()).map(|row| encodings.key(row)).collect()
        };
        let validation_rows = self.data.validation;
        let train_rows = Split { rows, labels };
        let (config, parameters, tokenizer) =
            start_student(self.teacher, &train_rows, self.max_length, self.student, self.fit.seed)?;

        let encodings = tokenizer.encode(&train_rows.rows, self.max_length)?;
        model::report_truncated(encodings.truncated_count(), encodings.len(), self.max_length);
        let train = FitRows { encodings, labels: train_rows.labels, keys };
        let encodings = tokenizer.encode(&validation_rows.rows, self.max_length)?;
        let validation = FitRows { encodings, labels: validation_rows.labels, keys: validation_keys };
        let inputs = RunInputs {
            command: "train".to_string(),
            distill: env!("CARGO_PKG_VERSION").to_string(),
            model: weights,
            config: fingerprint.config,
            tokenizer: fingerprint::of_tokenizer(&tokenizer),
            train: fingerprint::of_rows(&train.encodings, &train.labels),
            validation: fingerprint::of_rows(&validation.encodings, &validation.labels),
            labels: config.labels.clone(),
            max_length: self.max_length,
            objective: self.objective,
            student: Some(self.student.clone()),
            prune_vocabulary: self.student.prune_vocabulary,
            teacher_logits: cache
                .as_ref()
                .filter(|_| objective.needs_teacher())
                .map(|cache| cache.captured().logits.clone()),
            mask_probability: None,
            fit: self.fit.clone(),
            device: self.compute.kind().to_string(),
            precision: self.compute.precision(),
        };
        if let Some(figures) = existing.prepare(self.output, &inputs)? {
            return Ok(Trained { figures, speed: None });
        }
        let mut student = Model::on(self.compute, config, parameters)?;
        let fitted = Fit {
            objective: &objective,
            train: &train,
            validation: &validation,
            masking: None,
            cache: cache.as_ref(),
            recipe: &self.fit,
            inputs: &inputs,
            folder: self.output,
            resume: existing == Existing::Resume,
            way_on: existing.way_on(),
        }
        .run(&mut student)?;
        let figures = finish(self.output, &student, &tokenizer, inputs, &fitted)?;
        Ok(Trained { figures, speed: Some(fitted.speed) })
    }
}

/// Refuses an objective that reads the teacher at a temperature that the cache knows nothing of.
fn check_temperatures(cache: &CacheReader, objective: &Objective) -> anyhow::Result<()> {
    let known = match &cache.captured().logits {
        LogitForm::Dense { .. } => return Ok(()),
        LogitForm::TopK { temperatures, .. } => temperatures.as_slice(),
        LogitForm::Sample { temperature, .. } => std::slice::from_ref(temperature),
    };
    let Some(asked) = objective.temperatures().find(|asked| !known.contains(asked)) else { return Ok(()) };
    let list: Vec<String> = known.iter().map(ToString::to_string).collect();
    Err(anyhow::anyhow!("temperature {asked}: the cache stores the teacher's answers for {} alone", list.join(", ")))
        .hint("give one of these, or capture with another --temperatures (--sample-temperature)")
}

/// The figures of a complete run in the folder; refuses one of other inputs.
fn complete(folder: &Path, inputs: &RunInputs) -> anyhow::Result<Option<RunFigures>> {
    let Some(record) = RunRecord::read(folder)? else { return Ok(None) };
    if let Some((field, now, then)) = inputs.difference(&record.inputs) {
        return Err(anyhow::anyhow!(
            "{}: holds a complete run with another `{field}` ({then}, now {now})",
            folder.display()
        ))
        .hint("give the same, or another folder, or replace it with --overwrite");
    }
    ui::say(format!("{}: complete, kept as it is", folder.display()));
    Ok(Some(record.figures))
}

/// The student's configuration, first weights and tokenizer.
fn start_student(
    mut teacher: TextModel,
    rows: &Split,
    max_length: usize,
    recipe: &StudentRecipe,
    seed: u64,
) -> anyhow::Result<(HfConfig, Parameters, TextTokenizer)> {
    if recipe.prune_vocabulary {
        prune(&mut teacher, rows, max_length)?;
    }
    let old = &teacher.config.encoder;
    let (encoder, layers) = plan_student(recipe, old)?;
    let parameters = match layers {
        None => Parameters::random(Layout::new(&encoder), encoder.pad_token_id, seed),
        Some(layers) => start::from_teacher(&encoder, old, &teacher.parameters, &layers, seed)
            .hint("--layers random starts a student of any size")?,
    };
    let config = HfConfig { encoder, labels: teacher.config.labels };
    Ok((config, parameters, teacher.tokenizer))
}

/// The student's configuration, and the teacher's layers that it starts from; refuses what cannot be.
pub(crate) fn plan_student(
    recipe: &StudentRecipe,
    teacher: &EncoderConfig,
) -> anyhow::Result<(EncoderConfig, Option<Vec<usize>>)> {
    let encoder = configure(recipe, teacher)?;
    encoder.validate()?;
    let layers = match &recipe.layers {
        LayerChoice::Random => None,
        LayerChoice::Uniform => Some(Layers::Uniform),
        LayerChoice::First => Some(Layers::First),
        LayerChoice::Last => Some(Layers::Last),
        LayerChoice::Listed(listed) => Some(Layers::Listed(listed.clone())),
    };
    let layers = layers.map(|layers| start::choose_layers(&layers, teacher.num_layers, encoder.num_layers));
    Ok((encoder, layers.transpose()?))
}

/// The student's sizes, with every default resolved against the teacher's.
fn configure(recipe: &StudentRecipe, teacher: &EncoderConfig) -> anyhow::Result<EncoderConfig> {
    let listed = match &recipe.layers {
        LayerChoice::Listed(listed) => Some(listed.len()),
        _ => None,
    };
    let sizes = Sizes { num_layers: recipe.num_layers.or(listed), ..recipe.sizes() };
    let student = start::configure(recipe.family.family(), teacher, &sizes, recipe.dropout as f32);
    student.map_err(|error| match error {
        start::Error::HeadWidth { inner, width } => {
            let flag = if sizes.bottleneck_size.is_some() { "--bottleneck-size" } else { "--hidden-size" };
            anyhow::anyhow!("{flag} {inner} is no multiple of the head width {width}; give --num-heads")
        }
        error => error.into(),
    })
}
