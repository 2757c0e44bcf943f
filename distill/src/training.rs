//! The training loop: one for students and for teachers in the making.
//!
//! A run's folder gets `metrics.jsonl` (a line each for a logged step and an evaluation), a checkpoint after every
//! evaluation, and at the end the model with its record. A run that was stopped goes on from its checkpoint, bit for
//! bit as if it had not been.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use cache::CacheReader;
use datasets::{Encodings, Key, Masking, Sampler, forward_batches};
use nn::{AdamW, Model, PackedInput};
use serde::Serialize;
use serde_json::json;

use crate::cached;
use crate::checkpoint::{self, Best, Restored, State};
use crate::cli::Keep;
use crate::feed::{Feed, with_feed};
use crate::files::FileError;
use crate::hint::HintExt;
use crate::inference::{forward_all, packed};
use crate::interrupt;
use crate::metrics::{Scores, predictions};
use crate::objective::Objective;
use crate::recipe::FitRecipe;
use crate::run_record::RunInputs;
use crate::schedule::Schedule;
use crate::step::{Examples, Learner, Outcome};
use crate::ui::{self, Progress};

/// The file of losses and scores in a run's folder.
pub(crate) const METRICS: &str = "metrics.jsonl";

/// Version of the lines in [`METRICS`].
const METRICS_SCHEMA_VERSION: u32 = 1;

/// Steps between two logged ones.
const LOG_EVERY: usize = 50;

/// Rows as a model in training sees them.
pub(crate) struct FitRows {
    pub(crate) encodings: Encodings,
    pub(crate) labels: Vec<Option<u32>>,
    /// Under which the teacher's logits are stored.
    pub(crate) keys: Vec<Key>,
}

/// What a training works on, besides the student.
pub(crate) struct Fit<'a> {
    pub(crate) objective: &'a Objective,
    pub(crate) train: &'a FitRows,
    pub(crate) validation: &'a FitRows,
    /// How rows are masked, of a masked-language model.
    pub(crate) masking: Option<&'a Masking>,
    /// The teacher's stored answers.
    pub(crate) cache: Option<&'a CacheReader>,
    pub(crate) recipe: &'a FitRecipe,
    pub(crate) inputs: &'a RunInputs,
    /// The run's folder.
    pub(crate) folder: &'a Path,
    pub(crate) resume: bool,
    /// What to do after a Ctrl-C.
    pub(crate) way_on: &'a str,
}

/// What a training gives, besides the student's weights.
pub(crate) struct Fitted {
    pub(crate) steps: usize,
    /// From 1.
    pub(crate) kept_epoch: usize,
    /// Of the weights that were kept, on the validation rows.
    pub(crate) scores: Option<Scores>,
    pub(crate) speed: Speed,
}

/// How fast a training went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speed {
    /// Rows trained on in a second.
    pub(crate) rows_per_second: f64,
    /// How long steps were waited for because what they need was not read yet.
    pub(crate) waited_seconds: f64,
}

impl Fit<'_> {
    /// Trains the student; its weights are then the ones that [`FitRecipe::keep`] asks for.
    pub(crate) fn run(&self, student: &mut Model) -> anyhow::Result<Fitted> {
        let recipe = self.recipe;
        let lengths = self.train.encodings.lengths();
        let sampler = Sampler::new(lengths, recipe.seed, recipe.batch_rows, recipe.batch_tokens)?;
        let steps_per_epoch = sampler.steps_per_epoch();
        let total_steps = steps_per_epoch.checked_mul(recipe.epochs).filter(|&steps| steps < 1 << 40);
        let total_steps = total_steps.context("so many epochs never end; lower --epochs")?;
        let schedule = Schedule::new(recipe.learning_rate, recipe.warmup_ratio, total_steps);
        let plan = Plan { steps_per_epoch, total_steps, schedule };
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
            masking: self.masking,
        };
        with_feed(&sampler, &examples, start.first_step, total_steps, |feed| self.steps(student, start, &plan, feed))
    }

    /// Takes every step that is left.
    fn steps(&self, student: &mut Model, start: Start, plan: &Plan, mut feed: Feed) -> anyhow::Result<Fitted> {
        let recipe = self.recipe;
        let Plan { steps_per_epoch, total_steps, .. } = *plan;
        let Start { optimizer, first_step, mut best, mut best_parameters, metrics_bytes } = start;
        let max_norm = recipe.max_gradient_norm;
        let whole_rows = self.cache.is_none_or(cached::whole_rows);
        let mut learner = Learner::new(student, self.objective, optimizer, max_norm, whole_rows)?;
        let mut metrics = Metrics::open(self.folder, metrics_bytes)?;

        let progress = Progress::new("train", (total_steps - first_step) as u64 * recipe.batch_rows as u64, "rows");
        let (clock, mut rows_done) = (Instant::now(), 0);
        let mut evaluation_time = std::time::Duration::ZERO;
        let (mut last_scores, mut last_loss) = (None, 0.0);
        for step in first_step..total_steps {
            let learning_rate = plan.schedule.learning_rate(step);
            let rows = learner.take_step(step, &feed.step()?, recipe.seed, learning_rate)?;

            progress.inc(rows as u64);
            rows_done += rows;
            let done = step + 1;
            // The last step leaves nothing to stop, and an epoch's end is evaluated all the same: a run that goes on from
            // here would never come back to it.
            let stop = interrupt::requested() && done < total_steps;
            let epoch_done = done % steps_per_epoch == 0;
            let epochs = done.div_ceil(steps_per_epoch);
            // What is evaluated or stored is known to be sound; in between, a GPU's outcomes come one step late.
            for outcome in learner.outcomes(stop || epoch_done || done == total_steps)? {
                let Outcome { step, gradient_norm, .. } = outcome;
                last_loss = outcome.loss.total();
                for (what, value) in [("gradient's norm", gradient_norm), ("loss", last_loss)] {
                    if !value.is_finite() {
                        let step = step + 1;
                        bail!("step {step}: the {what} is {value}; lower --learning-rate, or check the data");
                    }
                }
                if (step + 1) % LOG_EVERY == 0 || step + 1 == total_steps {
                    progress.message(format_args!("loss {last_loss:.4}"));
                    metrics.step(&outcome)?;
                }
            }
            if epoch_done && (epochs % recipe.evaluate_every == 0 || done == total_steps) {
                let start = Instant::now();
                last_scores = self.evaluate(learner.model)?;
                if let Some(scores) = &last_scores {
                    metrics.evaluation(done, epochs, scores)?;
                    progress.message(format_args!("loss {last_loss:.4}, {}", headline(scores)));
                    if recipe.keep == Keep::Best && is_better(scores, best.as_ref()) {
                        best = Some(Best { epoch: epochs, scores: scores.clone() });
                        best_parameters = Some(learner.model.settle()?.flat().to_vec());
                    }
                }
                evaluation_time += start.elapsed();
            }
            if stop || (epoch_done && done < total_steps) {
                let state = State::new(done, metrics.bytes()?, best.clone(), self.inputs.clone());
                let (parameters, optimizer) = learner.model.state()?;
                checkpoint::save(self.folder, &state, parameters, &optimizer, best_parameters.as_deref())?;
            }
            if stop {
                return Err(interrupt::Interrupted).hint(self.way_on);
            }
        }
        progress.finish();
        let seconds = (clock.elapsed() - evaluation_time).as_secs_f64();
        let (kept_epoch, scores) = match (best, best_parameters) {
            (Some(best), Some(parameters)) => {
                student.set_parameters(&parameters)?;
                (best.epoch, Some(best.scores))
            }
            _ => {
                student.settle()?;
                (recipe.epochs, last_scores)
            }
        };
        Ok(Fitted {
            steps: total_steps,
            kept_epoch,
            scores,
            speed: Speed {
                rows_per_second: rows_done as f64 / seconds.max(1e-9),
                waited_seconds: feed.waited().as_secs_f64(),
            },
        })
    }

    fn start(&self, student: &mut Model) -> anyhow::Result<Start> {
        let decay = self.recipe.weight_decay;
        let restored = match self.resume {
            true => {
                let mut parameters = student.parameters().clone();
                let restored = checkpoint::load(self.folder, self.inputs, &mut parameters, decay)?;
                student.set_parameters(parameters.flat())?;
                restored
            }
            false => None,
        };
        Ok(match restored {
            None => Start {
                optimizer: AdamW::new(student.parameters().layout().clone(), decay),
                first_step: 0,
                best: None,
                best_parameters: None,
                metrics_bytes: 0,
            },
            Some(Restored { state, optimizer, best_parameters }) => {
                ui::say(format!("going on after step {}", ui::count(state.step as u64)));
                Start {
                    optimizer,
                    first_step: state.step,
                    best: state.best,
                    best_parameters,
                    metrics_bytes: state.metrics_bytes,
                }
            }
        })
    }

    /// Scores on the validation rows; agreement where the cache has all of them.
    fn evaluate(&self, student: &mut Model) -> anyhow::Result<Option<Scores>> {
        let rows = self.validation;
        if rows.encodings.is_empty() {
            return Ok(None);
        }
        if let Some(masking) = self.masking {
            return Ok(Some(self.evaluate_masked(student, masking)?));
        }
        let classes = student.config().labels.len();
        let logits =
            forward_all(
                &rows.encodings,
                classes,
                self.recipe.batch_tokens,
                |batch| Ok(student.logits(packed(batch))?),
            )?;
        let choices = match self.cache {
            Some(cache) => cached::choices(cache, &rows.keys)?,
            None => None,
        };
        Ok(Some(Scores::of(&logits, choices.as_deref(), &rows.labels, classes)?))
    }

    /// How many of the validation rows' masked tokens are told right; the same ones are masked every time.
    fn evaluate_masked(&self, student: &mut Model, masking: &Masking) -> anyhow::Result<Scores> {
        let rows = &self.validation.encodings;
        let words = student.config().encoder.outputs();
        let (mut masked, mut right) = (0, 0);
        for batch in forward_batches(&rows.lengths(), self.recipe.batch_tokens) {
            let batch = masking.gather(0, rows, &batch);
            let input = PackedInput { positions: Some(&batch.positions), ..packed(&batch.batch) };
            let logits = student.logits(input)?;
            let predicted = predictions(&logits, words);
            masked += predicted.len();
            right +=
                predicted.iter().zip(&batch.originals).filter(|(predicted, original)| predicted == original).count();
        }
        Ok(Scores::of_tokens(right, masked))
    }
}

/// How long a training goes on, and how fast it learns.
struct Plan {
    steps_per_epoch: usize,
    total_steps: usize,
    schedule: Schedule,
}

/// Where a training starts.
struct Start {
    optimizer: AdamW,
    first_step: usize,
    best: Option<Best>,
    best_parameters: Option<Vec<f32>>,
    metrics_bytes: u64,
}

/// Whether these scores beat the best ones: by accuracy, or without labels by agreement with the teacher.
fn is_better(scores: &Scores, best: Option<&Best>) -> bool {
    let merit = |scores: &Scores| scores.accuracy.or(scores.agreement);
    match (merit(scores), best.and_then(|best| merit(&best.scores))) {
        (Some(new), Some(old)) => new > old,
        (new, None) => new.is_some(),
        (None, Some(_)) => false,
    }
}

/// The figure that a person follows.
fn headline(scores: &Scores) -> String {
    match (scores.accuracy, scores.agreement) {
        (Some(accuracy), _) => format!("accuracy {accuracy:.4}"),
        (None, Some(agreement)) => format!("agreement {agreement:.4}"),
        (None, None) => "not labelled".to_string(),
    }
}

/// Appends to a run's `metrics.jsonl`.
struct Metrics {
    file: File,
    path: PathBuf,
}

impl Metrics {
    /// Opens the file and cuts it to the length it had at the checkpoint that the run goes on from.
    fn open(folder: &Path, bytes: u64) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).map_err(|source| FileError::writing(folder, source))?;
        let path = folder.join(METRICS);
        let open = || -> io::Result<File> {
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            file.set_len(bytes)?;
            Ok(file)
        };
        let file = open().map_err(|source| FileError::writing(&path, source))?;
        Ok(Self { file, path })
    }

    fn bytes(&self) -> anyhow::Result<u64> {
        let metadata = self.file.metadata().map_err(|source| FileError::writing(&self.path, source))?;
        Ok(metadata.len())
    }

    /// One step: its loss, each term's mean, and the gradient's norm before clipping.
    fn step(&mut self, outcome: &Outcome) -> anyhow::Result<()> {
        let Outcome { step, loss, gradient_norm, learning_rate } = outcome;
        let mut line = json!({
            "schema_version": METRICS_SCHEMA_VERSION,
            "event": "step",
            "step": step + 1,
            "loss": loss.total(),
            "gradient_norm": gradient_norm,
            "learning_rate": learning_rate,
        });
        for term in &loss.terms {
            line[term.term.name()] = term.loss.mean().into();
        }
        self.line(&line)
    }

    /// One evaluation on the validation rows.
    fn evaluation(&mut self, step: usize, epoch: usize, scores: &Scores) -> anyhow::Result<()> {
        #[derive(Serialize)]
        struct Line<'a> {
            schema_version: u32,
            event: &'static str,
            step: usize,
            epoch: usize,
            #[serde(flatten)]
            scores: &'a Scores,
        }
        self.line(&Line { schema_version: METRICS_SCHEMA_VERSION, event: "evaluation", step, epoch, scores })
    }

    fn line(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        let mut json = serde_json::to_string(line)?;
        json.push('\n');
        self.file.write_all(json.as_bytes()).map_err(|source| FileError::writing(&self.path, source))?;
        Ok(())
    }
}
