//! Training settings, shared by `finetune` and `train`.

use std::fmt;

use nn::{Clip, Compute};
use serde::{Deserialize, Serialize};

use super::checks::{ABOVE_ZERO, Check, FRACTION, ONE_OR_MORE, PART, PROBABILITY, ZERO_OR_MORE};
use super::{Bytes, Metric, ScheduleKind, ScheduleRecipe};
use crate::default::is_default;
use crate::device;
use crate::hint::HintExt;

/// Training settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FitRecipe {
    /// `None` for what suits the number of rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) epochs: Option<usize>,
    /// Optimiser steps in place of whole epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_steps: Option<usize>,
    pub(crate) batch_rows: usize,
    /// A number of steps is found that takes at most this long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_minutes: Option<f64>,
    /// `batch_tokens` is lowered until the training takes at most so much memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Bytes>,
    /// Whether the values of each layer are computed again in the backward pass instead of being kept.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) recompute: bool,
    /// Maximum tokens per forward pass; `None` for the device's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) batch_tokens: Option<usize>,
    /// `None` for what suits the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) learning_rate: Option<f64>,
    pub(crate) weight_decay: f64,
    pub(crate) warmup_ratio: f64,
    /// In place of the ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) warmup_steps: Option<usize>,
    // What is left out below has its default, so that records from before it was there say the same.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) schedule: ScheduleKind,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) schedule_floor: f64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) schedule_restarts: usize,
    #[serde(skip_serializing_if = "is_plateau_patience")]
    pub(crate) plateau_patience: usize,
    #[serde(skip_serializing_if = "is_plateau_factor")]
    pub(crate) plateau_factor: f64,
    pub(crate) max_gradient_norm: f64,
    /// Clips each element of the gradient, in place of its norm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_gradient_value: Option<f64>,
    /// What the learning rate is multiplied by from one layer to the one below it.
    #[serde(skip_serializing_if = "is_layer_decay")]
    pub(crate) layer_decay: f64,
    /// `None` for that of the encoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) head_learning_rate: Option<f64>,
    /// Of projections of hidden states to the teacher's width; `None` for that of random weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) projection_learning_rate: Option<f64>,
    /// Parameters that stay as they are: `embeddings`, `head`, layers such as `0` or `0-3`, beginnings of names.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) freeze: Vec<String>,
    /// Decay of a moving average of the weights, which is evaluated and kept in place of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ema_decay: Option<f64>,
    pub(crate) keep: Keep,
    /// What evaluations are compared by; `None` for accuracy, or agreement where there are no labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metric: Option<Metric>,
    /// Epochs between evaluations.
    pub(crate) evaluate_every: usize,
    /// Optimiser steps between evaluations, in place of epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) evaluate_steps: Option<usize>,
    /// Evaluations without a gain after which the training stops; `None` to never stop early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) patience: Option<usize>,
    /// A smaller gain than this is none.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) min_gain: f64,
    // When checkpoints are written changes nothing in a result, so records and checkpoints do not have it.
    /// Optimiser steps between checkpoints, besides those at the ends of epochs.
    #[serde(skip_serializing)]
    pub(crate) checkpoint_every: Option<usize>,
    /// Minutes between checkpoints.
    #[serde(skip_serializing)]
    pub(crate) checkpoint_minutes: Option<f64>,
    pub(crate) seed: u64,
    /// Rows without a label in an epoch for each with one, in turn; `None` for all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unlabelled_rate: Option<f64>,
    /// A class of `n` rows comes `n^(1 / T)` times as often as one of a single row; `None` for each row once in an epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) class_temperature: Option<f64>,
    /// Whether a GPU's matrix products are chosen by timing.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) autotune: bool,
}

impl Default for FitRecipe {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl FitRecipe {
    /// The defaults of the flags and of a recipe's `[train]`.
    pub(crate) const DEFAULT: Self = Self {
        epochs: None,
        unlabelled_rate: None,
        class_temperature: None,
        max_steps: None,
        max_minutes: None,
        memory: None,
        recompute: false,
        batch_rows: 32,
        batch_tokens: None,
        learning_rate: None,
        weight_decay: 0.01,
        warmup_ratio: 0.06,
        warmup_steps: None,
        schedule: ScheduleKind::Linear,
        schedule_floor: 0.0,
        schedule_restarts: 0,
        plateau_patience: 10,
        plateau_factor: 0.1,
        max_gradient_norm: 1.0,
        max_gradient_value: None,
        layer_decay: 1.0,
        head_learning_rate: None,
        projection_learning_rate: None,
        freeze: Vec::new(),
        ema_decay: None,
        keep: Keep::Best,
        metric: None,
        evaluate_every: 1,
        evaluate_steps: None,
        patience: None,
        min_gain: 0.0,
        checkpoint_every: None,
        checkpoint_minutes: None,
        seed: 42,
        autotune: false,
    };

    /// The same with all defaults resolved for this device; an error for what it cannot do.
    pub(crate) fn on(&self, compute: &Compute) -> anyhow::Result<Self> {
        device::check_autotune(self.autotune, compute)?;
        Ok(Self { batch_tokens: Some(device::batch_tokens(self.batch_tokens, compute)), ..self.clone() })
    }

    /// The same with what an earlier part of the run has measured: the steps that fit into its minutes, and the tokens of a
    /// pass that fit into its memory.
    pub(crate) fn as_measured(&self, earlier: &Self) -> Self {
        let mut fit = self.clone();
        if fit.max_minutes.is_some() && fit.max_minutes == earlier.max_minutes {
            fit.max_steps = earlier.max_steps;
        }
        if fit.memory.is_some() && fit.memory == earlier.memory {
            fit.batch_tokens = earlier.batch_tokens;
        }
        fit
    }

    /// The curve of the learning rate.
    pub(crate) fn schedule(&self) -> ScheduleRecipe {
        ScheduleRecipe {
            kind: self.schedule,
            floor: self.schedule_floor,
            restarts: self.schedule_restarts,
            warmup_steps: self.warmup_steps,
            plateau_patience: self.plateau_patience,
            plateau_factor: self.plateau_factor,
        }
    }

    /// Refuses settings that would change nothing, since they belong to another schedule.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        use ScheduleKind::{Cosine, Linear, Plateau};
        let given = [
            ("schedule-restarts", self.schedule_restarts != 0, &[Cosine][..]),
            ("schedule-floor", self.schedule_floor != 0.0, &[Linear, Cosine, Plateau]),
            ("plateau-patience", !is_plateau_patience(&self.plateau_patience), &[Plateau]),
            ("plateau-factor", !is_plateau_factor(&self.plateau_factor), &[Plateau]),
        ];
        for (flag, given, of) in given {
            if given && !of.contains(&self.schedule) {
                let names: Vec<&str> = of.iter().map(|kind| kind.name()).collect();
                anyhow::bail!(
                    "--{flag} goes with --schedule {}, and this one is {} (in a recipe `train.{}`)",
                    names.join(" or "),
                    self.schedule,
                    flag.replace('-', "_")
                );
            }
        }
        for (wanted, measured, given) in [
            ("max-minutes", self.max_minutes.is_some(), ("max-steps", self.max_steps.is_some())),
            ("memory", self.memory.is_some(), ("batch-tokens", self.batch_tokens.is_some())),
        ] {
            if measured && given.1 {
                let [one, other] = [wanted, given.0].map(|flag| flag.replace('-', "_"));
                anyhow::bail!(
                    "--{wanted} finds out --{}: give one of the two (in a recipe `train.{one}` and `train.{other}`)",
                    given.0
                );
            }
        }
        let default = Self::DEFAULT;
        let evaluate_every = self.evaluate_every != default.evaluate_every;
        let max_norm = self.max_gradient_norm != default.max_gradient_norm;
        for (steps, given, other, differs) in [
            ("warmup-steps", self.warmup_steps.is_some(), "warmup-ratio", self.warmup_ratio != default.warmup_ratio),
            ("evaluate-steps", self.evaluate_steps.is_some(), "evaluate-every", evaluate_every),
            ("max-gradient-value", self.max_gradient_value.is_some(), "max-gradient-norm", max_norm),
        ] {
            if given && differs {
                let [one, two] = [steps, other].map(|flag| flag.replace('-', "_"));
                anyhow::bail!(
                    "--{steps} stands in place of --{other}: give one of the two (in a recipe `train.{one}` and `train.{two}`)"
                );
            }
        }
        if self.class_temperature.is_some() && self.unlabelled_rate.is_some() {
            anyhow::bail!(
                "--class-temperature and --unlabelled-rate both say how often rows come: give one of the two (in a recipe \
                 `train.class_temperature` and `train.unlabelled_rate`)"
            );
        }
        if self.min_gain != 0.0 && self.patience.is_none() {
            anyhow::bail!("--min-gain goes with --patience (in a recipe `train.min_gain` with `train.patience`)");
        }
        Ok(())
    }

    /// Rows of an epoch, of training rows with these labels.
    pub(crate) fn epoch_rows(&self, labels: &[Option<u32>]) -> usize {
        let labelled = labels.iter().flatten().count();
        self.unlabelled_rate.map_or(labels.len(), |_| labelled.saturating_add(self.unlabelled_rows(labelled)))
    }

    /// Refuses to mix rows in turn where there are none of a kind, or so often that an epoch would have nothing else.
    pub(crate) fn check_mixing(&self, labels: impl Iterator<Item = Option<u32>>) -> anyhow::Result<()> {
        let Some(rate) = self.unlabelled_rate else { return Ok(()) };
        let [labelled, unlabelled] = labels.fold([0_usize; 2], |[with, without], label| match label {
            Some(_) => [with + 1, without],
            None => [with, without + 1],
        });
        for (count, which) in [(labelled, "with a label"), (unlabelled, "without a label")] {
            if count == 0 {
                return Err(anyhow::anyhow!(
                    "--unlabelled-rate {rate:?} mixes rows without a label with those that have one, and there is none {which}"
                ))
                .hint(
                    "leave it out (in a recipe `train.unlabelled_rate`, which stages inherit), and an epoch has every row; \
                     --unlabelled FILE adds texts without labels",
                );
            }
        }
        let most = MOST_TURNS as f64 * unlabelled as f64 / labelled as f64;
        anyhow::ensure!(
            rate <= most,
            "--unlabelled-rate {rate:?}: each of the {unlabelled} rows without a label would come more than {MOST_TURNS} times \
             in an epoch; at most {most:.4} for {labelled} rows with one (in a recipe `train.unlabelled_rate`)"
        );
        Ok(())
    }

    /// Rows without a label in an epoch with so many that have one, if it has some of them in turn.
    pub(crate) fn unlabelled_rows(&self, labelled: usize) -> usize {
        self.unlabelled_rate.map_or(0, |rate| ((rate * labelled as f64).round() as usize).max(1))
    }

    /// The same over fewer rows: as many steps, and evaluated as often as over `rows` of them.
    pub(crate) fn over_fewer_rows(&self, steps: usize, rows: usize) -> Self {
        let every = self.evaluated_every(rows.div_ceil(self.batch_rows));
        Self {
            max_steps: Some(steps),
            max_minutes: None,
            unlabelled_rate: None,
            evaluate_steps: Some(every),
            evaluate_every: Self::DEFAULT.evaluate_every,
            ..self.clone()
        }
    }

    /// Steps from one evaluation to the next, with so many in an epoch.
    pub(crate) fn evaluated_every(&self, steps_per_epoch: usize) -> usize {
        self.evaluate_steps.unwrap_or(steps_per_epoch.saturating_mul(self.evaluate_every))
    }

    /// How gradients are clipped.
    pub(crate) fn clip(&self) -> Clip {
        self.max_gradient_value.map_or(Clip::Norm(self.max_gradient_norm), Clip::Value)
    }

    /// Most tokens in one forward pass.
    pub(crate) fn batch_tokens(&self) -> usize {
        self.batch_tokens.unwrap_or(device::CPU_BATCH_TOKENS)
    }

    /// The allowed values.
    pub(super) fn checks(&self) -> Vec<Check> {
        vec![
            Check::Size("train.epochs", self.epochs),
            Check::Size("train.batch_rows", Some(self.batch_rows)),
            Check::Size("train.batch_tokens", self.batch_tokens),
            Check::Size("train.evaluate_every", Some(self.evaluate_every)),
            Check::Size("train.evaluate_steps", self.evaluate_steps),
            Check::Size("train.max_steps", self.max_steps),
            Check::Size("train.patience", self.patience),
            Check::Size("train.checkpoint_every", self.checkpoint_every),
            Check::Number("train.checkpoint_minutes", self.checkpoint_minutes.unwrap_or(1.0), ABOVE_ZERO),
            Check::Number("train.max_minutes", self.max_minutes.unwrap_or(1.0), ABOVE_ZERO),
            Check::Number("train.class_temperature", self.class_temperature.unwrap_or(1.0), ONE_OR_MORE),
            Check::Number("train.unlabelled_rate", self.unlabelled_rate.unwrap_or(1.0), ABOVE_ZERO),
            Check::Number("train.min_gain", self.min_gain, ZERO_OR_MORE),
            Check::Number("train.schedule_floor", self.schedule_floor, FRACTION),
            Check::Number("train.plateau_factor", self.plateau_factor, PROBABILITY),
            Check::Number("train.learning_rate", self.learning_rate.unwrap_or(1.0), ABOVE_ZERO),
            Check::Number("train.max_gradient_norm", self.max_gradient_norm, ABOVE_ZERO),
            Check::Number("train.max_gradient_value", self.max_gradient_value.unwrap_or(1.0), ABOVE_ZERO),
            Check::Number("train.layer_decay", self.layer_decay, PART),
            Check::Number("train.head_learning_rate", self.head_learning_rate.unwrap_or(1.0), ABOVE_ZERO),
            Check::Number("train.projection_learning_rate", self.projection_learning_rate.unwrap_or(1.0), ABOVE_ZERO),
            Check::Number("train.ema_decay", self.ema_decay.unwrap_or(0.0), PROBABILITY),
            Check::Number("train.weight_decay", self.weight_decay, ZERO_OR_MORE),
            Check::Number("train.warmup_ratio", self.warmup_ratio, FRACTION),
        ]
    }
}

/// Times that an epoch may have a row that it has in turn.
const MOST_TURNS: usize = 100;

fn is_layer_decay(decay: &f64) -> bool {
    *decay == FitRecipe::DEFAULT.layer_decay
}

fn is_plateau_patience(count: &usize) -> bool {
    *count == FitRecipe::DEFAULT.plateau_patience
}

fn is_plateau_factor(factor: &f64) -> bool {
    *factor == FitRecipe::DEFAULT.plateau_factor
}

/// Which state of the model a training keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Keep {
    /// The one with the best evaluation on the validation rows; of equals the one with the lower loss there, then the later.
    Best,
    /// The one after the last step.
    Last,
}

impl Keep {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Best, Self::Last];

    /// The word for it on the command line and in a recipe.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Last => "last",
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
