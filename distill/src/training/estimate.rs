//! What a training will take: its memory, before the first step, and its time, by a few steps that are taken and undone.

use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use cache::CacheReader;
use datasets::forward_batches;
use nn::{Compute, Model, PackedInput, Tap};
use tracing::debug_span;

use super::optimizer;
use super::plan::Plan;
use super::rows::FitRows;
use super::step::{Examples, Learner};
use crate::hint::HintExt;
use crate::inference::packed;
use crate::interrupt;
use crate::memory;
use crate::objective::Objective;
use crate::recipe::{FitRecipe, Keep};
use crate::signal::cached;
use crate::tasks::{Questions, Targets};
use crate::ui;

/// Steps of the first epoch whose shapes count for the estimate of the memory.
const SHAPES: usize = 64;

/// Batches of the evaluation, the longest rows first.
const EVALUATION_SHAPES: usize = 4;

/// Steps below which a training is not worth a probe.
const PROBED_STEPS: usize = 500;

/// Timed steps of a probe, at least and at most.
const TIMED: [usize; 2] = [3, 16];

/// Time after which a probe has seen enough.
const PROBE_TIME: Duration = Duration::from_secs(2);

/// Fraction of the minutes that is left for what a probe does not see: checkpoints, a machine that is busier later.
const RESERVE: f64 = 0.03;

/// What a training is expected to take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    /// Most memory, of the whole process or of buffers on a GPU, in bytes; `None` where the system says nothing of it.
    pub(crate) bytes: Option<u64>,
    /// Of the steps and evaluations from here on; `None` where no steps were timed.
    pub(crate) seconds: Option<f64>,
}

/// The shape of each batch.
fn shapes(questions: &[Questions]) -> Vec<PackedInput<'_>> {
    let mut shapes = Vec::with_capacity(questions.len());
    for Questions { batch, positions, .. } in questions {
        shapes.push(PackedInput { positions: positions.as_deref(), ..packed(batch) });
    }
    shapes
}

impl Estimate {
    /// Says what is known of it, before the first step.
    pub(super) fn say(&self, steps: usize) {
        let parts = [
            self.seconds.map(|seconds| format!("about {}", ui::duration(Duration::from_secs_f64(seconds)))),
            self.bytes.map(|bytes| format!("about {} of memory", ui::bytes(bytes))),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if !parts.is_empty() {
            ui::say(format!("{} steps: {}", ui::count(steps as u64), parts.join(", ")));
        }
    }
}

/// What a training learns from and is evaluated on.
pub(super) struct Estimator<'a> {
    pub(super) objective: &'a Objective,
    pub(super) train: &'a FitRows,
    pub(super) validation: &'a FitRows,
    pub(super) targets: &'a Targets,
    pub(super) cache: Option<&'a CacheReader>,
}

/// Memory in bytes, of the process or of buffers on a GPU.
struct Needed {
    now: u64,
    /// The most that there will be at once.
    most: u64,
}

impl Estimator<'_> {
    /// The memory of a training with this recipe, whose rows have so many different words; `None` where the system does not say how much there is now.
    fn memory(
        &self,
        model: &mut Model,
        teacher: Option<&mut Model>,
        recipe: &FitRecipe,
        plan: &Plan,
        words: usize,
    ) -> anyhow::Result<Option<Needed>> {
        let of_gpu = match model.compute() {
            Compute::Cuda { device, .. } => Some(device.taken_bytes() as u64),
            Compute::Cpu => None,
        };
        let Some(now) = of_gpu.or_else(memory::resident) else { return Ok(None) };
        let views = self.objective.views();
        let sampler = self.train.sampler(recipe, views)?;
        let (epoch, steps) = (sampler.epoch(0), sampler.steps_per_epoch());
        let rows = &self.train.encodings;
        let training = (0..steps).step_by(steps.div_ceil(SHAPES)).flat_map(|step| epoch.step(step));
        let training: Vec<Questions> =
            training.map(|batch| self.targets.ask(0, rows, &self.train.labels, &batch, views)).collect();
        let validation = &self.validation.encodings;
        let batches = forward_batches(&validation.lengths(), recipe.batch_tokens());
        let evaluation = batches.iter().take(EVALUATION_SHAPES);
        let evaluation: Vec<Questions> =
            evaluation.map(|batch| self.targets.ask(0, validation, &self.validation.labels, batch, 1)).collect();
        let (averages, parameters) = (recipe.ema_decay.is_some(), model.parameters().flat().len());
        let [taps, of_teacher] = self.objective.taps();
        let taps: Vec<Tap> = taps.into_iter().chain([Tap::Logits]).collect();
        let mut passes = model.pass_bytes(&shapes(&training), &shapes(&evaluation), &taps)?;
        if let Some(teacher) = teacher {
            // It reads the rows of the training, as many tokens at once.
            let taps: Vec<Tap> = of_teacher.into_iter().chain([Tap::Logits]).collect();
            passes += teacher.pass_bytes(&[], &shapes(&training), &taps)?;
        }
        let mut more = model.training_bytes(words, averages) + passes;
        if of_gpu.is_none() {
            let evaluates = !validation.is_empty();
            let best = usize::from(evaluates && recipe.keep == Keep::Best);
            let saves = recipe.checkpoint_every.is_some() || recipe.checkpoint_minutes.is_some();
            let saves = saves || plan.total_steps > plan.steps_per_epoch;
            // Without checkpoints the most is when the model is written.
            let copied = if saves { 3 + usize::from(averages) } else { 1 };
            // The logits of a batch with their gradients, and of an evaluation with a copy.
            let outputs = model.config().encoder.outputs();
            let logits = |asked: &Questions| 2 * outputs * asked.answers.len() * views;
            let logits = training.iter().chain(&evaluation).map(logits).max().unwrap_or(0);
            let evaluated = if evaluates { validation.len() * model.config().encoder.num_labels } else { 0 };
            more += 4 * (parameters * (best + copied) + logits.max(evaluated));
            // The pages of the cache that are read.
            more += self.cache.map_or(0, |cache| cache.bytes() as usize);
        }
        Ok(Some(Needed { now, most: now + more as u64 }))
    }

    /// The recipe with as many tokens a pass as fit into `--memory`, and the memory that it then takes. Without `--memory`,
    /// an error if it takes more than is free.
    pub(super) fn fitted_to_memory(
        &self,
        model: &mut Model,
        mut teacher: Option<&mut Model>,
        recipe: FitRecipe,
        plan: &Plan,
    ) -> anyhow::Result<(FitRecipe, Option<u64>)> {
        let words = self.train.encodings.used_ids().len();
        let Some(Needed { now, most }) = self.memory(model, teacher.as_deref_mut(), &recipe, plan, words)? else {
            if let Some(memory) = recipe.memory {
                bail!("--memory {memory}: this system does not say how much memory a process has; give --batch-tokens");
            }
            return Ok((recipe, None));
        };
        let free = match model.compute() {
            Compute::Cuda { device, .. } => device.free_bytes()?.map(|bytes| bytes as u64),
            Compute::Cpu => memory::available(),
        };
        let limit = recipe.memory.map(u64::from).or(free.map(|free| now + free)).unwrap_or(u64::MAX);
        if most <= limit {
            return Ok((recipe, Some(most)));
        }
        let longest = self.train.encodings.lengths().into_iter().max().unwrap_or(1) as usize * self.objective.views();
        let (mut smaller, mut fewer) = (recipe.clone(), most);
        while fewer > limit && smaller.batch_tokens() > longest {
            smaller.batch_tokens = Some((smaller.batch_tokens() / 2).max(longest));
            fewer =
                self.memory(model, teacher.as_deref_mut(), &smaller, plan, words)?.map_or(fewer, |needed| needed.most);
        }
        let (tokens, fits) = (smaller.batch_tokens(), fewer <= limit);
        let [whole, part, free] = [most, fewer, limit.saturating_sub(now)].map(ui::bytes);
        let beside = if teacher.is_some() { "stored answers in place of the teacher beside the student, " } else { "" };
        let way_out =
            &format!("{beside}--recompute, a smaller student, shorter rows (--max-length) or --keep last take less");
        match (recipe.memory, fits) {
            (Some(memory), true) => {
                ui::say(format!("--memory {memory}: --batch-tokens {tokens}, with which it takes about {part}"));
                Ok((smaller, Some(fewer)))
            }
            (Some(memory), false) => {
                let error = anyhow!("--memory {memory}: it takes about {part} even with --batch-tokens {tokens}");
                Err(error).hint(way_out)
            }
            (None, true) => {
                let error = anyhow!("the training takes about {whole} of memory, and {free} are free for it");
                let way_out =
                    format!("--batch-tokens {tokens} takes about {part}, --memory SIZE says how much it may take");
                Err(error).hint(way_out)
            }
            (None, false) => {
                let error = anyhow!(
                    "the training takes about {whole} of memory, {part} with --batch-tokens {tokens}; {free} are free for it"
                );
                Err(error).hint(format!("{way_out}; --memory SIZE says how much it may take"))
            }
        }
    }

    /// Takes a few steps, times them, and undoes them; the steps that fit into `--max-minutes` become the recipe's. Returns
    /// the time that the training will take as well, if it was worth asking.
    pub(super) fn fitted_to_time(
        &self,
        model: &mut Model,
        teacher: Option<&mut Model>,
        recipe: FitRecipe,
        plan: &Plan,
        examples: &Examples<'_>,
    ) -> anyhow::Result<(FitRecipe, Option<f64>)> {
        if recipe.max_minutes.is_none() && plan.total_steps < PROBED_STEPS {
            return Ok((recipe, None));
        }
        let begun = Instant::now();
        let every = plan.evaluated_every(&recipe);
        let Probed { step, evaluation } = self.probe(model, teacher, &recipe, plan, examples)?;
        let with_evaluations = |steps: usize| step * steps as f64 + evaluation * steps.div_ceil(every) as f64;
        let Some(minutes) = recipe.max_minutes else {
            return Ok((recipe, Some(with_evaluations(plan.total_steps))));
        };
        let seconds = 60.0 * minutes * (1.0 - RESERVE) - begun.elapsed().as_secs_f64();
        // The last evaluation is always there.
        let fit = (seconds - evaluation) / (step + evaluation / every as f64);
        let steps = (fit.max(0.0) as usize).min(plan.total_steps);
        if steps == 0 {
            let told = |seconds| ui::duration(Duration::from_secs_f64(seconds));
            bail!(
                "--max-minutes {minutes} ends before the first step: a step takes {}, an evaluation {}, and finding that out {}",
                told(step),
                told(evaluation),
                ui::duration(begun.elapsed())
            );
        }
        Ok((FitRecipe { max_steps: Some(steps), ..recipe }, Some(with_evaluations(steps))))
    }

    /// Times some steps, spread over an epoch since its steps have rows of other lengths. The model is as before.
    fn probe(
        &self,
        model: &mut Model,
        teacher: Option<&mut Model>,
        recipe: &FitRecipe,
        plan: &Plan,
        examples: &Examples<'_>,
    ) -> anyhow::Result<Probed> {
        let _span = debug_span!("probe").entered();
        let weights = model.settle()?.flat().to_vec();
        let (sampler, whole_rows) =
            (self.train.sampler(recipe, self.objective.views())?, self.cache.is_none_or(cached::whole_rows));
        let optimizer = optimizer::start(recipe, model.parameters())?;
        let learner = Learner::new(model, self.objective, optimizer, recipe.clip(), whole_rows)?;
        let mut learner = learner.beside(teacher);
        let (epoch, of_epoch) = (sampler.epoch(0), plan.steps_per_epoch);
        let (mut timed, mut rows, mut begun) = (0, 0, Instant::now());
        for number in 0..=TIMED[1] {
            interrupt::check()?;
            let prepared = examples.prepare(0, &epoch.step(number * of_epoch / (TIMED[1] + 1)))?;
            let taken = learner.take_step(number, &prepared, recipe.seed, recipe.learning_rate())?;
            learner.outcomes(true)?;
            // The first one is not counted: it makes the buffers.
            match number {
                0 => begun = Instant::now(),
                _ => (timed, rows) = (timed + 1, rows + taken),
            }
            if timed >= TIMED[0] && begun.elapsed() > PROBE_TIME {
                break;
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        model.set_parameters(&weights)?;
        // A pass forward is a third of a step's work.
        let evaluation = seconds / rows as f64 / 3.0 * self.validation.encodings.len() as f64;
        Ok(Probed { step: seconds / timed as f64, evaluation })
    }
}

/// Seconds.
struct Probed {
    step: f64,
    evaluation: f64,
}
