//! The training loop, for students and for fine-tuning.
//!
//! It writes to the run's folder: `metrics.jsonl` (one line per logged step and per evaluation), checkpoints at the ends of
//! epochs and as often as asked for, and at the end the model with its record. An interrupted run resumes from its checkpoint, with the
//! same bits as without the interruption.

pub(crate) mod checkpoint;
mod divergence;
pub(crate) mod estimate;
mod evaluation;
mod feed;
mod keep;
pub(crate) mod optimizer;
mod patience;
mod plan;
mod progress;
mod rows;
pub(crate) mod schedule;
mod skipped;
pub(crate) mod step;
mod watch;

use std::cmp::Reverse;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, anyhow};
use cache::CacheReader;
use datasets::Key;
use nn::cuda::ProductChoices;
use nn::{AdamW, Compute, Model};

use crate::device;
use crate::hint::HintExt;
use crate::interrupt;
use crate::objective::{Maps, Objective, Projections};
use crate::recipe::FitRecipe;
use crate::run_record::RunInputs;
use crate::scores::{Evaluated, Scores};
use crate::signal::cached;
use crate::tasks::{Questions, Targets};
use crate::ui;
use checkpoint::{Restored, State, Writer};
use estimate::{Estimate, Estimator};
use evaluation::{check_metric, evaluate};
use feed::{Feed, with_feed};
pub(crate) use keep::merit;
use keep::{Kept, Settled};
use plan::Plan;
use progress::Progress;
pub(crate) use rows::{FitRows, ReadByTeacher};
pub(crate) use skipped::Diverged;

use step::{Examples, Learner, ProjectionRates};
pub(crate) use watch::Speed;
use watch::Watch;

/// The inputs of a training run, besides the model.
#[derive(Clone)]
pub(crate) struct Fit<'a> {
    pub(crate) objective: &'a Objective,
    pub(crate) train: &'a FitRows,
    pub(crate) validation: &'a FitRows,
    /// The targets of the rows.
    pub(crate) targets: &'a Targets,
    /// The teacher's cached outputs.
    pub(crate) cache: Option<&'a CacheReader>,
    /// Projections of the training that this one goes on from.
    pub(crate) maps: Option<&'a Maps>,
    pub(crate) recipe: &'a FitRecipe,
    pub(crate) inputs: &'a RunInputs,
    /// The run's folder.
    pub(crate) folder: &'a Path,
    pub(crate) resume: bool,
    /// Whether to write event files for TensorBoard.
    pub(crate) tensorboard: bool,
    /// The settings that nobody has given, in words.
    pub(crate) defaults: Option<String>,
    /// How to resume after Ctrl-C, for the message.
    pub(crate) way_on: &'a str,
}

/// The result of a training run, besides the weights.
pub(crate) struct Fitted {
    /// With what was found out by measuring.
    pub(crate) recipe: FitRecipe,
    pub(crate) estimate: Estimate,
    pub(crate) steps: usize,
    /// Steps that were skipped, since a gradient was not finite.
    pub(crate) skipped: usize,
    /// From 1.
    pub(crate) kept_epoch: usize,
    /// Steps taken until then.
    pub(crate) kept_step: usize,
    /// Validation scores of the weights that were kept.
    pub(crate) scores: Option<Scores>,
    /// Their loss on the validation rows.
    pub(crate) loss: Option<f64>,
    pub(crate) speed: Speed,
    /// The most of a GPU's memory that buffers had at once; none on the CPU.
    pub(crate) device_peak_bytes: Option<u64>,
    /// How a GPU computed products, if that was chosen by timing.
    pub(crate) products: Option<ProductChoices>,
    /// The share of each term in the gradient when it was last measured.
    pub(crate) shares: Vec<(String, f64)>,
    /// As they were last.
    pub(crate) projections: Projections,
}

/// Whether the terms' shares in the gradient are measured before this step, counted from 1: a forward and a backward pass for
/// each, so more and more rarely.
fn measures_shares(step: usize) -> bool {
    step.is_power_of_two() && step.trailing_zeros().is_multiple_of(2)
}

/// Refuses a term between the rows of a step where a step may go through the model in parts.
pub(crate) fn check_coupling(objective: &Objective, rows: &FitRows, recipe: &FitRecipe) -> anyhow::Result<()> {
    let Some(term) = objective.couples_rows() else { return Ok(()) };
    let mut lengths = rows.encodings.lengths();
    lengths.sort_unstable_by_key(|length| Reverse(*length));
    let most: usize = lengths.iter().take(recipe.batch_rows).map(|length| *length as usize).sum();
    if most <= recipe.batch_tokens() {
        return Ok(());
    }
    Err(anyhow!(
        "`{term}` is between the rows of a step, and --batch-tokens {} cuts steps of {most} tokens into parts",
        recipe.batch_tokens()
    ))
    .hint(format!(
        "--batch-tokens {most} is enough; smaller steps (--batch-rows) or shorter rows (--max-length) need less"
    ))
}

impl Fit<'_> {
    /// Trains the model, if there is one with its teacher beside it; afterwards it has the weights selected by [`FitRecipe::keep`].
    pub(crate) fn run(&self, student: &mut Model, mut teacher: Option<&mut Model>) -> anyhow::Result<Fitted> {
        check_metric(self.recipe, self.targets, self.validation, self.cache)?;
        optimizer::rate_factors(self.recipe, student.parameters().layout())?;
        optimizer::check_trained(self.recipe, self.objective)?;
        let views = self.objective.views();
        let restored = self.restore(student)?;
        let earlier = restored.as_ref().map(|restored| &restored.state.inputs.fit);
        let recipe = earlier.map_or(self.recipe.clone(), |earlier| self.recipe.as_measured(earlier));
        let steps_per_epoch = self.train.sampler(&recipe, views)?.steps_per_epoch();
        let plan = Plan::new(steps_per_epoch, &recipe)?;
        let cached = |rows: &[u32], questions: &Questions| {
            let cache = self.cache.context("the loss needs the teacher's stored logits; give --cache")?;
            let keys: Vec<Key> = rows.iter().map(|&row| self.train.keys[row as usize]).collect();
            let signal = cached::signal(cache, &keys)?;
            // Every token of these rows has an output.
            Ok(match &questions.positions {
                Some(positions) => signal.at(positions, cache.captured().width),
                None => signal,
            })
        };
        let [_, of_teacher] = self.objective.taps();
        let hidden_states = |rows: &[u32]| {
            let cache = self.cache.context("the loss needs stored hidden states; give --cache")?;
            let keys: Vec<Key> = rows.iter().map(|&row| self.train.keys[row as usize]).collect();
            let tokens: Vec<usize> =
                rows.iter().map(|&row| self.train.encodings.length(row as usize) as usize).collect();
            cached::hidden_states(cache, &keys, &tokens, &of_teacher)
        };
        let examples = Examples {
            encodings: &self.train.encodings,
            labels: &self.train.labels,
            teacher: if self.objective.needs_logits() && self.cache.is_some() { Some(&cached) } else { None },
            targets: self.targets,
            read_by_teacher: self.train.read_by_teacher.as_ref(),
            hidden_states: if self.train.hidden_states_stored { Some(&hidden_states) } else { None },
            views,
        };
        student.recompute(recipe.recompute.then_some(1));
        // A training that goes on is as it was begun.
        let (recipe, bytes, seconds) = match &restored {
            Some(_) => (recipe, None, None),
            None => {
                let Self { objective, train, validation, targets, cache, .. } = *self;
                let estimator = Estimator { objective, train, validation, targets, cache };
                let (recipe, bytes) = estimator.fitted_to_memory(student, teacher.as_deref_mut(), recipe, &plan)?;
                let (recipe, seconds) =
                    estimator.fitted_to_time(student, teacher.as_deref_mut(), recipe, &plan, &examples)?;
                (recipe, bytes, seconds)
            }
        };
        check_coupling(self.objective, self.train, &recipe)?;
        if recipe.projection_learning_rate.is_some() && self.objective.projections(0).is_empty() {
            ui::say("--projection-learning-rate is left out: no term compares hidden states of two widths");
        }
        let estimate = Estimate { bytes, seconds };
        let plan = Plan::new(steps_per_epoch, &recipe)?;
        self.defaults.iter().for_each(ui::say);
        estimate.say(plan.total_steps);
        let inputs = RunInputs { fit: recipe.clone(), ..self.inputs.clone() };
        let fit = Fit { recipe: &recipe, inputs: &inputs, ..self.clone() };
        let start = fit.start(student, restored)?;
        let (first, end) = (start.first_step, plan.total_steps);
        let sampler = self.train.sampler(&recipe, views)?;
        with_feed(&sampler, &examples, first, end, |feed| fit.steps(student, teacher, start, &plan, estimate, feed))
    }

    /// Takes every step that is left.
    fn steps(
        &self,
        student: &mut Model,
        teacher: Option<&mut Model>,
        start: Start,
        plan: &Plan,
        estimate: Estimate,
        mut feed: Feed,
    ) -> anyhow::Result<Fitted> {
        let Start { optimizer, projections, first_step, mut kept, metrics_bytes, mut progress } = start;
        let (recipe, total_steps) = (self.recipe, plan.total_steps);
        let whole_rows = self.cache.is_none_or(cached::whole_rows);
        let learner = Learner::new(student, self.objective, optimizer, recipe.clip(), whole_rows)?;
        let rates = ProjectionRates {
            factor: recipe.projection_learning_rate() / recipe.learning_rate(),
            weight_decay: recipe.weight_decay,
        };
        let mut learner = learner.beside(teacher).projecting(projections, rates);
        let (folder, rows) = (self.folder, recipe.batch_rows);
        let mut watch = Watch::start(folder, metrics_bytes, first_step, total_steps, rows, self.tensorboard)?;
        let mut writer = Writer::new(self.folder, recipe.checkpoint_every, recipe.checkpoint_minutes);
        let mut steps = first_step;
        while steps < total_steps {
            let learning_rate = plan.schedule.learning_rate(steps, &progress.plateau);
            let prepared = feed.step()?;
            if let Some(objective) = self.objective.at(steps as f64 / (total_steps - 1).max(1) as f64) {
                learner.learn(objective);
            }
            if measures_shares(steps + 1) {
                progress.shares = learner.shares(steps, &prepared, recipe.seed)?;
                watch.shares(steps, &progress.shares)?;
            }
            let rows = learner.take_step(steps, &prepared, recipe.seed, learning_rate)?;
            watch.took(rows);

            steps += 1;
            let last = steps == total_steps;
            // The last step leaves nothing to stop, and what is to be evaluated is evaluated all the same: a run that goes
            // on from here would never come back to it.
            let stop = interrupt::requested() && !last;
            let evaluates = plan.evaluates(steps, recipe);
            let saves = stop || steps.is_multiple_of(plan.steps_per_epoch) || writer.is_due(steps);
            // What is evaluated or stored is known to be sound; in between, a GPU's outcomes come one step late.
            for outcome in learner.outcomes(saves || evaluates)? {
                watch.outcome(&outcome)?;
                progress.skipped.count(&outcome)?;
                progress.divergence.see(outcome.loss.total()).iter().for_each(ui::say);
            }
            let over = evaluates && self.evaluate(learner.model, steps, plan, &mut progress, &mut kept, &mut watch)?;
            if saves && !last && !over {
                let (best, best_parameters) = kept.best();
                let products = products_of(&learner.model.compute());
                let (progress, inputs) = (progress.clone(), self.inputs.clone());
                let state = State::new(steps, watch.metrics_bytes()?, best, progress, inputs, products);
                let (parameters, optimizer) = learner.model.state()?;
                writer.save(state, parameters, &optimizer, learner.projections.state(), best_parameters)?;
            }
            if stop && !over {
                writer.finish()?;
                return Err(interrupt::Interrupted).hint(self.way_on);
            }
            if over && !last {
                ui::say(format!("stopped early after step {}: no better evaluation", ui::count(steps as u64)));
                break;
            }
        }
        writer.finish()?;
        let projections = learner.projections;
        // The average is what is kept.
        student.swap_average()?;
        let speed = watch.finish(feed.waited());
        let Settled { step: kept_step, epoch: kept_epoch, scores, loss } =
            kept.settle(student, [steps, plan.epoch(steps)])?;
        let device_peak_bytes = match student.compute() {
            Compute::Cuda { device, .. } => Some(device.peak_bytes() as u64),
            Compute::Cpu => None,
        };
        let skipped = progress.skipped.total();
        let products = products_of(&student.compute());
        // Whatever comes behind this training in the same process is not tuned.
        device::autotune(false, &student.compute(), None);
        let recipe = recipe.clone();
        Ok(Fitted {
            recipe,
            estimate,
            steps,
            skipped,
            kept_epoch,
            kept_step,
            scores,
            loss,
            speed,
            device_peak_bytes,
            products,
            shares: progress.shares,
            projections,
        })
    }

    /// Evaluates the model after so many steps; returns whether the training is to stop early.
    fn evaluate(
        &self,
        model: &mut Model,
        steps: usize,
        plan: &Plan,
        progress: &mut Progress,
        kept: &mut Kept,
        watch: &mut Watch,
    ) -> anyhow::Result<bool> {
        let (clock, recipe, mut over) = (Instant::now(), self.recipe, false);
        // The average, where there is one, is what is evaluated and kept.
        model.swap_average()?;
        // Ended by a signal, it would take the steps since the last checkpoint with it.
        let evaluate = || evaluate(model, self.targets, self.validation, self.cache, recipe.batch_tokens());
        let evaluated = interrupt::without(evaluate)?;
        if let Some(evaluated) = evaluated {
            let epoch = plan.epoch(steps);
            watch.evaluation(steps, epoch, &evaluated)?;
            self.say_collapsed(progress, &evaluated, epoch);
            if let Some(merit) = merit(recipe.metric, &evaluated.scores, evaluated.loss) {
                plan.schedule.evaluated(merit, &mut progress.plateau);
                over = progress.patience.is_over(merit, recipe.patience, recipe.min_gain);
            }
            kept.offer(model, [steps, epoch], evaluated)?;
        }
        model.swap_average()?;
        watch.leave_out(clock);
        Ok(over)
    }

    /// Says once that a student predicts the same class for all rows, where the rows are of several.
    fn say_collapsed(&self, progress: &mut Progress, evaluated: &Evaluated, epoch: usize) {
        let Some(class) = evaluated.only_class else { return };
        if self.recipe.freeze.iter().any(|part| part == "head" || part == "all") {
            return;
        }
        let several = self.validation.labels.iter().flatten().any(|label| *label != class);
        if several && !std::mem::replace(&mut progress.collapsed, true) {
            let name = &self.inputs.labels[class as usize];
            ui::say(format!(
                "warning: after epoch {epoch} every validation row is predicted to be `{name}`; if that goes on, try another \
                 --learning-rate, more --epochs, or a teacher that is sure of more than one class"
            ));
        }
    }

    /// The checkpoint of an interrupted run, if there is one, with its weights in the model.
    fn restore(&self, student: &mut Model) -> anyhow::Result<Option<Restored>> {
        if !self.resume {
            return Ok(None);
        }
        let mut parameters = student.parameters().clone();
        let restored = checkpoint::load(self.folder, self.inputs, &mut parameters, self.recipe)?;
        student.set_parameters(parameters.flat())?;
        Ok(restored)
    }

    /// The projections of the first step.
    fn first_projections(&self) -> Projections {
        let projections = self.objective.projections(self.recipe.seed);
        match self.maps {
            Some(maps) => projections.starting_from(maps),
            None => projections,
        }
    }

    /// Starts from this checkpoint, or from the beginning.
    fn start(&self, student: &mut Model, restored: Option<Restored>) -> anyhow::Result<Start> {
        let FitRecipe { keep, metric, .. } = *self.recipe;
        let products = restored.as_ref().and_then(|restored| restored.state.products.as_ref());
        device::autotune(self.recipe.autotune, &student.compute(), products);
        Ok(match restored {
            None => Start {
                optimizer: optimizer::start(self.recipe, student.parameters())?,
                projections: self.first_projections(),
                first_step: 0,
                kept: Kept::new(keep, metric, None, None),
                metrics_bytes: 0,
                progress: Progress::default(),
            },
            Some(Restored { state, optimizer, projections: values, best_parameters }) => {
                ui::say(format!("going on after step {}", ui::count(state.step as u64)));
                let projections = self.objective.projections(self.recipe.seed);
                let projections = projections.restored(&state.projection_steps, &values);
                Start {
                    optimizer,
                    projections: projections.context("the checkpoint's projections are of other terms")?,
                    first_step: state.step,
                    kept: Kept::new(keep, metric, state.best, best_parameters),
                    metrics_bytes: state.metrics_bytes,
                    progress: state.progress,
                }
            }
        })
    }
}

/// How a GPU computes products, if that is chosen by timing.
fn products_of(compute: &Compute) -> Option<ProductChoices> {
    if let Compute::Cuda { device, .. } = compute { device.product_choices() } else { None }
}

/// Where a training starts.
struct Start {
    optimizer: AdamW,
    projections: Projections,
    first_step: usize,
    kept: Kept,
    metrics_bytes: u64,
    progress: Progress,
}
