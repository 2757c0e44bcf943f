//! Trains a student on a teacher's logits and hidden states, cached or computed beside it, and on labels or masked tokens.

use std::path::Path;

use anyhow::bail;
use cache::{CacheReader, Fingerprint, LogitForm};
use datasets::{Encodings, Key};
use nn::{Compute, Model};
use teacher::HubOptions;

use super::beside;
use super::run_folder::{Existing, finish};
use super::student::{Start, Wanted, start_student};
use super::teacher::Teacher;
use crate::data::{self, Split, TaskData};
use crate::fingerprint;
use crate::hint::HintExt;
use crate::model::{self, TextModel};
use crate::objective::{self, LossTermRecipe, Maps, Objective};
use crate::recipe::{AugmentRecipe, CleanRecipe, FitRecipe, RowChoice, StudentRecipe, Subject};
use crate::run_record::{RunFigures, RunInputs};
use crate::signal::{cached, quality};
use crate::tasks::Task;
use crate::training::estimate::Estimate;
use crate::training::{Fit, FitRows, ReadByTeacher, Speed, check_coupling};
use crate::ui;

/// A training run of a student, with everything that determines its result.
pub(crate) struct Training<'a> {
    pub(crate) task: Task,
    pub(crate) teacher: Teacher,
    pub(crate) data: TaskData,
    /// How the rows to learn from were cleaned before, for the record.
    pub(crate) clean: Option<CleanRecipe>,
    /// How new texts among them were made, for the record.
    pub(crate) augment: Vec<AugmentRecipe>,
    /// Tokens that the student keeps of a text; as many as suit it where none are asked for.
    pub(crate) max_length: Option<usize>,
    pub(crate) student: &'a StudentRecipe,
    /// Where a pretrained student is looked for.
    pub(crate) hub: &'a HubOptions,
    pub(crate) objective: Vec<LossTermRecipe>,
    pub(crate) fit: FitRecipe,
    pub(crate) cache: Option<&'a Path>,
    /// Run the teacher beside the student for its logits; for terms on tokens it runs there anyway.
    pub(crate) live: bool,
    pub(crate) output: &'a Path,
    /// Whether to write event files for TensorBoard.
    pub(crate) tensorboard: bool,
    /// Accept a teacher that is no better than chance.
    pub(crate) force: bool,
    /// The rows to learn from; the others count for the student's vocabulary.
    pub(crate) learns_from: RowChoice,
    pub(crate) compute: &'a Compute,
}

/// The results of a training run.
pub(crate) struct Trained {
    pub(crate) figures: RunFigures,
    /// `None` if a complete run was kept.
    pub(crate) speed: Option<Speed>,
    /// Of a training that was begun.
    pub(crate) estimate: Option<Estimate>,
}

impl Training<'_> {
    /// Trains, writes the model and its record.
    pub(crate) fn run(self, existing: Existing) -> anyhow::Result<Trained> {
        self.fit.check()?;
        // Before the teacher is read.
        self.fit.on(self.compute)?;
        objective::check(&self.objective, self.student.dropout)?;
        self.task.check(&self.objective)?;
        let names = self.teacher.names()?;
        let objective = Objective::new(&self.objective, names.names(), &self.data.train.labels)?;
        let masked = self.task.masks().is_some();
        if masked {
            self.check_masked()?;
        }
        let train_rows = self.data.train;
        let labels = &train_rows.labels;
        let learned = || labels.iter().filter(|label| self.learns_from.takes(**label));
        if learned().next().is_none() {
            let which = if self.learns_from == RowChoice::Labelled { "a label" } else { "no label" };
            return Err(anyhow::anyhow!("no training row has {which}, so that there is nothing to learn from")).hint(
                "`rows` of a stage is `all`, `labelled` or `unlabelled`; `data.unlabelled` names texts without labels",
            );
        }
        if !masked && !objective::needs_teacher(&self.objective) && learned().all(Option::is_none) {
            bail!("no row has a label, and without a soft term there is nothing else to learn from");
        }
        self.fit.check_mixing(learned().copied())?;
        let on_tokens = objective.compares_tokens();
        let beside = match &self.teacher {
            Teacher::Model(model, length) if self.live || on_tokens.is_some() => {
                Some((model.as_ref().clone(), *length))
            }
            Teacher::Cached(..) if on_tokens.is_some() => {
                let what = on_tokens.unwrap_or_default();
                return Err(anyhow::anyhow!("`{what}` needs the teacher beside the student, and it is not here"))
                    .hint("give --teacher; its hidden states may be in the cache, but not its shape");
            }
            _ => None,
        };
        let fingerprint = self.teacher.fingerprint(self.task, self.compute);
        let weights = self.teacher.weights_hash();
        let (teacher_length, (keys, cut_by_teacher)) =
            (self.teacher.max_length(), self.teacher.keys(self.task, &train_rows)?);
        let cache = match self.cache {
            Some(folder) => Some(open_cache(folder, &fingerprint)?),
            None if objective.needs_logits() && !self.live => {
                return Err(anyhow::anyhow!("the loss needs the teacher's stored logits: no --cache is given")).hint(
                    "distill cache makes it; --live runs the teacher beside the student; --weight-soft 0 leaves it out",
                );
            }
            None => None,
        };
        if let (Some(cache), true) = (&cache, objective.needs_logits()) {
            check_form(cache, &objective)?;
            let mut missing = 0;
            for key in &keys {
                missing += usize::from(!cache.contains(key)?);
            }
            if missing > 0 {
                let way_out = match cache.fingerprint().keyed_by_text() {
                    true => "import the answers to these texts too: distill cache import with --data for each file",
                    false => "run distill cache on the same data: it adds the rows that are missing",
                };
                return Err(anyhow::anyhow!("{missing} of {} training rows are not in the cache", keys.len()))
                    .hint(way_out);
            }
            if let (Some((accuracy, labelled)), false) = (cached::accuracy(cache, &keys, labels)?, self.force) {
                data::refuse_chance(accuracy, labelled, names.len())?;
            }
        }
        let (validation_keys, _) = self.teacher.keys(self.task, &self.data.validation)?;
        let validation_rows = self.data.validation;
        let wanted = Wanted {
            recipe: self.student,
            hub: self.hub,
            rows: &train_rows,
            max_length: self.max_length,
            seed: self.fit.seed,
        };
        let Start { config, parameters, tokenizer, max_length, weights: student_weights } =
            start_student(self.teacher, &wanted)?;

        let (train_rows, keys) = taken(self.learns_from, train_rows, keys);
        let rows = FitRows::of(&tokenizer, &train_rows, max_length)?;
        let encodings = &rows.encodings;
        match (&self.student.model, teacher_length) {
            (Some(_), Some(length)) => report_cuts([cut_by_teacher, length], encodings, max_length),
            _ => model::report_truncated(encodings.truncated_count(), encodings.len(), max_length),
        }
        let objective = match &beside {
            Some((teacher, _)) => objective.between(&config.encoder, &teacher.config.encoder)?,
            None => objective,
        };
        let read = |(teacher, length): &(TextModel, usize)| {
            if masked {
                return Ok(ReadByTeacher::Masked);
            }
            let texts = &train_rows.rows;
            beside::read(&teacher.tokenizer, &tokenizer, texts, encodings, *length, on_tokens).map(ReadByTeacher::Rows)
        };
        let read_by_teacher = beside.as_ref().map(read).transpose()?;
        let stored = match &cache {
            Some(cache) => beside::has_hidden_states(cache, &keys, &objective)?,
            None => false,
        };
        let running = beside.filter(|_| !stored || self.live);
        let mut teacher = running.map(|(teacher, _)| beside::model(teacher, self.compute)).transpose()?;
        let train = FitRows {
            keys,
            read_by_teacher: read_by_teacher.filter(|_| teacher.is_some()),
            hidden_states_stored: stored && teacher.is_none(),
            ..rows
        };
        let told = on_tokens.map(|term| match teacher {
            Some(_) => format!("`{term}`: the teacher runs beside the student"),
            None => format!("`{term}`: hidden states are those of the cache"),
        });
        let (rows, width) = (self.fit.epoch_rows(&train.labels), config.encoder.hidden_size);
        let subject = Subject { rows, width, trained: self.student.trained() };
        let fit = self.fit.suited_to(subject).on(self.compute)?;
        if fit.memory.is_none() {
            // Before anything is written; a limit of memory may change it yet.
            check_coupling(&objective, &train, &fit)?;
        }
        let validation = FitRows::of(&tokenizer, &validation_rows, max_length)?;
        let validation = FitRows { keys: validation_keys, ..validation };
        let maps = match &self.student.model {
            Some(folder) if !objective.projections(0).is_empty() => Maps::read(Path::new(folder))?,
            _ => None,
        };
        let inputs = RunInputs {
            command: "train".to_string(),
            distill: env!("CARGO_PKG_VERSION").to_string(),
            model: weights,
            config: fingerprint.config,
            tokenizer: fingerprint::of_tokenizer(&tokenizer),
            clean: self.clean,
            augment: self.augment,
            train: fingerprint::of_rows(&train.encodings, &train.labels),
            validation: fingerprint::of_rows(&validation.encodings, &validation.labels),
            labels: config.labels.clone(),
            max_length,
            teacher_max_length: teacher_length.filter(|length| *length != max_length),
            objective: self.objective,
            student: Some(self.student.recorded()),
            student_weights,
            student_projections: maps.as_ref().map(|(_, hash)| hash.clone()),
            prune_vocabulary: self.student.prune_vocabulary,
            teacher_logits: cache
                .as_ref()
                .filter(|_| objective.needs_logits())
                .map(|cache| cache.captured().logits.clone()),
            stored_hidden_states: train.hidden_states_stored,
            mask_probability: self.task.masks().map(|masks| masks.probability),
            mask_seed: self.task.masks().filter(|_| cache.is_some()).map(|masks| masks.seed),
            fit: fit.clone(),
            device: self.compute.kind().to_string(),
            precision: self.compute.precision(),
        };
        if let Some(figures) = existing.prepare(self.output, &inputs)? {
            return Ok(Trained { figures, speed: None, estimate: None });
        }
        told.iter().for_each(ui::say);
        if !masked && train.labels.iter().all(Option::is_none) {
            data::say_unlabelled("training row", "the student learns from its teacher alone, without the hard term");
        }
        if let (Some(cache), true) = (&cache, objective.needs_logits() && !masked) {
            quality::warnings(cache, &train.keys, &train.labels, objective.temperatures())?.iter().for_each(ui::say);
        }
        let targets = self.task.targets(&tokenizer)?;
        let targets = if cache.is_some() { targets.same_in_every_pass() } else { targets };
        let mut student = Model::on(self.compute, config, parameters)?;
        let fitted = Fit {
            objective: &objective,
            train: &train,
            validation: &validation,
            targets: &targets,
            cache: cache.as_ref(),
            maps: maps.as_ref().map(|(maps, _)| maps),
            recipe: &fit,
            inputs: &inputs,
            folder: self.output,
            resume: existing.resumes(),
            tensorboard: self.tensorboard,
            defaults: self.fit.suited_in_words(subject),
            way_on: existing.way_on(),
        }
        .run(&mut student, teacher.as_mut())?;
        let figures = finish(self.output, &student, &tokenizer, inputs, &fitted)?;
        Ok(Trained { figures, speed: Some(fitted.speed), estimate: Some(fitted.estimate) })
    }

    /// Refuses what a masked-language model cannot be trained with: its teacher answers in pieces of its own vocabulary.
    fn check_masked(&self) -> anyhow::Result<()> {
        let refused = [
            (self.student.model.is_some(), "--student", "it starts from its teacher's layers, or at random"),
            (
                self.student.prune_vocabulary,
                "--prune-vocabulary",
                "the teacher answers in all pieces of its vocabulary",
            ),
        ];
        if let Some((_, flag, why)) = refused.iter().find(|(given, ..)| *given) {
            return Err(anyhow::anyhow!("--task masked-lm contradicts {flag}: {why}"))
                .hint(format!("leave {flag} out; with --live the teacher runs beside the student"));
        }
        Ok(())
    }
}

/// The rows of a choice, with their keys.
fn taken(choice: RowChoice, rows: Split, keys: Vec<Key>) -> (Split, Vec<Key>) {
    let taken = keys.into_iter().zip(&rows.labels).filter(|(_, label)| choice.takes(**label));
    let keys = taken.map(|(key, _)| key).collect();
    (rows.taken(choice), keys)
}

/// Opens a cache of this teacher's answers.
fn open_cache(folder: &Path, fingerprint: &Fingerprint) -> anyhow::Result<CacheReader> {
    let opened = CacheReader::open(folder, Some(fingerprint));
    let Err(error) = opened else { return Ok(opened?) };
    let elsewhere = |found: &Fingerprint| found.keyed_by_text() || found.average.is_some();
    let no_model = CacheReader::open(folder, None).is_ok_and(|found| elsewhere(found.fingerprint()));
    match no_model {
        true => Err(error).hint("its answers are of no single model: leave --teacher out, and give a --student"),
        false => Err(error.into()),
    }
}

/// Says how many rows each of two models with a tokenizer of its own cuts; `[rows cut, tokens kept]` of the teacher.
fn report_cuts([theirs, teacher_length]: [usize; 2], student: &Encodings, student_length: usize) {
    let ours = student.truncated_count();
    if theirs + ours > 0 {
        let [theirs, ours, rows] = [theirs, ours, student.len()].map(|count| ui::count(count as u64));
        ui::say(format!(
            "of {rows} rows the teacher cut {theirs} at {teacher_length} tokens, the student cuts {ours} at \
             {student_length} of its own; see --max-length"
        ));
    }
}

/// An error if the loss needs a temperature that the cache has no data for.
fn check_form(cache: &CacheReader, objective: &Objective) -> anyhow::Result<()> {
    if let (Some(term), false) = (objective.needs_all_logits(), cached::whole_rows(cache)) {
        return Err(anyhow::anyhow!(
            "`{term}` needs all of the teacher's logits, and the cache stores some of each row"
        ))
        .hint(
            "capture without --top-k or --sample; of those forms `soft_target` alone learns, as plain KL divergence",
        );
    }
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
