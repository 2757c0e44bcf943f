//! The training loop, for students and for fine-tuning.
//!
//! It writes to the run's folder: `metrics.jsonl` (one line per logged step and per evaluation), a checkpoint after
//! every evaluation, and at the end the model with its record. An interrupted run resumes from its checkpoint, with the
//! same bits as without the interruption.

pub(crate) mod checkpoint;
mod evaluation;
mod feed;
mod keep;
mod rows;
pub(crate) mod schedule;
pub(crate) mod step;
mod watch;

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use cache::CacheReader;
use datasets::{Key, Sampler};
use nn::{AdamW, Compute, Model};

use crate::hint::HintExt;
use crate::interrupt;
use crate::objective::Objective;
use crate::recipe::FitRecipe;
use crate::run_record::RunInputs;
use crate::scores::Scores;
use crate::signal::cached;
use crate::tasks::Targets;
use crate::ui;
use checkpoint::{Restored, State};
use evaluation::evaluate;
use feed::{Feed, with_feed};
use keep::Kept;
pub(crate) use rows::FitRows;
use schedule::Schedule;
use step::{Examples, Learner};
pub(crate) use watch::Speed;
use watch::Watch;

/// The inputs of a training run, besides the model.
pub(crate) struct Fit<'a> {
    pub(crate) objective: &'a Objective,
    pub(crate) train: &'a FitRows,
    pub(crate) validation: &'a FitRows,
    /// The targets of the rows.
    pub(crate) targets: &'a Targets,
    /// The teacher's cached outputs.
    pub(crate) cache: Option<&'a CacheReader>,
    pub(crate) recipe: &'a FitRecipe,
    pub(crate) inputs: &'a RunInputs,
    /// The run's folder.
    pub(crate) folder: &'a Path,
    pub(crate) resume: bool,
    /// Whether to write event files for TensorBoard.
    pub(crate) tensorboard: bool,
    /// How to resume after Ctrl-C, for the message.
    pub(crate) way_on: &'a str,
}

/// The result of a training run, besides the weights.
pub(crate) struct Fitted {
    pub(crate) steps: usize,
    /// From 1.
    pub(crate) kept_epoch: usize,
    /// Validation scores of the weights that were kept.
    pub(crate) scores: Option<Scores>,
    pub(crate) speed: Speed,
    /// The most of a GPU's memory that buffers had at once; none on the CPU.
    pub(crate) device_peak_bytes: Option<u64>,
}

impl Fit<'_> {
    /// Trains the model; afterwards it has the weights selected by [`FitRecipe::keep`].
    pub(crate) fn run(&self, student: &mut Model) -> anyhow::Result<Fitted> {
        let recipe = self.recipe;
        let lengths = self.train.encodings.lengths();
        let sampler = Sampler::new(lengths, recipe.seed, recipe.batch_rows, recipe.batch_tokens())?;
        let plan = Plan::new(sampler.steps_per_epoch(), recipe)?;
        let start = self.start(student)?;
        let teacher = |rows: &[u32]| {
            let cache = self.cache.context("the soft term needs the teacher's stored logits; give --cache")?;
            let keys: Vec<Key> = rows.iter().map(|&row| self.train.keys[row as usize]).collect();
            cached::signal(cache, &keys)
        };
        let examples = Examples {
            encodings: &self.train.encodings,
            labels: &self.train.labels,
            teacher: if self.objective.needs_teacher() { Some(&teacher) } else { None },
            targets: self.targets,
        };
        let (first, end) = (start.first_step, plan.total_steps);
        with_feed(&sampler, &examples, first, end, |feed| self.steps(student, start, &plan, feed))
    }

    /// Takes every step that is left.
    fn steps(&self, student: &mut Model, start: Start, plan: &Plan, mut feed: Feed) -> anyhow::Result<Fitted> {
        let Start { optimizer, first_step, mut kept, metrics_bytes } = start;
        let (recipe, total_steps) = (self.recipe, plan.total_steps);
        let whole_rows = self.cache.is_none_or(cached::whole_rows);
        let mut learner = Learner::new(student, self.objective, optimizer, recipe.max_gradient_norm, whole_rows)?;
        let (folder, rows) = (self.folder, recipe.batch_rows);
        let mut watch = Watch::start(folder, metrics_bytes, first_step, total_steps, rows, self.tensorboard)?;
        for step in first_step..total_steps {
            let learning_rate = plan.schedule.learning_rate(step);
            let rows = learner.take_step(step, &feed.step()?, recipe.seed, learning_rate)?;
            watch.took(rows);

            let done = step + 1;
            let ended = done == total_steps;
            // The last step leaves nothing to stop, and an epoch's end is evaluated all the same: a run that goes on from
            // here would never come back to it.
            let stop = interrupt::requested() && !ended;
            let epoch_done = done % plan.steps_per_epoch == 0;
            let epoch = done.div_ceil(plan.steps_per_epoch);
            // What is evaluated or stored is known to be sound; in between, a GPU's outcomes come one step late.
            for outcome in learner.outcomes(stop || epoch_done || ended)? {
                watch.outcome(&outcome)?;
            }
            if epoch_done && (epoch % recipe.evaluate_every == 0 || ended) {
                let clock = Instant::now();
                let batch_tokens = recipe.batch_tokens();
                let evaluated = evaluate(learner.model, self.targets, self.validation, self.cache, batch_tokens)?;
                if let Some(evaluated) = evaluated {
                    watch.evaluation(done, epoch, &evaluated)?;
                    kept.offer(learner.model, epoch, evaluated)?;
                }
                watch.leave_out(clock);
            }
            if stop || (epoch_done && !ended) {
                let (best, best_parameters) = kept.best();
                let state = State::new(done, watch.metrics_bytes()?, best, self.inputs.clone());
                let (parameters, optimizer) = learner.model.state()?;
                checkpoint::save(self.folder, &state, parameters, &optimizer, best_parameters)?;
            }
            if stop {
                return Err(interrupt::Interrupted).hint(self.way_on);
            }
        }
        let speed = watch.finish(feed.waited());
        let (kept_epoch, scores) = kept.settle(student, recipe.epochs)?;
        let device_peak_bytes = match student.compute() {
            Compute::Cuda { device, .. } => Some(device.peak_bytes() as u64),
            Compute::Cpu => None,
        };
        Ok(Fitted { steps: total_steps, kept_epoch, scores, speed, device_peak_bytes })
    }

    /// Starts from the checkpoint of an interrupted run, or from the beginning.
    fn start(&self, student: &mut Model) -> anyhow::Result<Start> {
        let FitRecipe { weight_decay, keep, .. } = *self.recipe;
        let restored = match self.resume {
            true => {
                let mut parameters = student.parameters().clone();
                let restored = checkpoint::load(self.folder, self.inputs, &mut parameters, weight_decay)?;
                student.set_parameters(parameters.flat())?;
                restored
            }
            false => None,
        };
        Ok(match restored {
            None => Start {
                optimizer: AdamW::new(student.parameters().layout().clone(), weight_decay),
                first_step: 0,
                kept: Kept::new(keep, None, None),
                metrics_bytes: 0,
            },
            Some(Restored { state, optimizer, best_parameters }) => {
                ui::say(format!("going on after step {}", ui::count(state.step as u64)));
                Start {
                    optimizer,
                    first_step: state.step,
                    kept: Kept::new(keep, state.best, best_parameters),
                    metrics_bytes: state.metrics_bytes,
                }
            }
        })
    }
}

/// Number of steps and learning rates.
struct Plan {
    steps_per_epoch: usize,
    total_steps: usize,
    schedule: Schedule,
}

impl Plan {
    fn new(steps_per_epoch: usize, recipe: &FitRecipe) -> anyhow::Result<Self> {
        let total_steps = steps_per_epoch.checked_mul(recipe.epochs).filter(|&steps| steps < 1 << 40);
        let total_steps = total_steps.context("so many epochs never end; lower --epochs")?;
        let schedule = Schedule::new(recipe.learning_rate, recipe.warmup_ratio, total_steps);
        Ok(Self { steps_per_epoch, total_steps, schedule })
    }
}

/// Where a training starts.
struct Start {
    optimizer: AdamW,
    first_step: usize,
    kept: Kept,
    metrics_bytes: u64,
}
