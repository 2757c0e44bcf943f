//! Chooses settings by successive halving on the validation rows, for `--tune` and `--sweep`.
//!
//! Every trial is an ordinary training in a folder of its own, `tune/rung-R/setting-S`, so that a search that was stopped
//! goes on like any training, and what is complete is not trained again. Of a complete trial only the record and the
//! metrics are kept, not the model.
//!
//! A trial starts from the beginning and has a whole schedule of its own length, instead of going on with the one of the
//! rung before: the learning rate's fall at the end is part of the result, and cut in the middle of it, the settings with
//! the lowest rates would look best.

mod asked;
mod halving;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::run_folder::{Existing, SEARCH, SEARCHED};
use crate::data::Split;
use crate::files::{self, FileError};
use crate::hint::HintExt;
use crate::model::MODEL_FILES;
use crate::objective::ObjectiveError;
use crate::recipe::{FitRecipe, Metric};
use crate::run_record::RunFigures;
use crate::scores::NotFinite;
use crate::training::{Diverged, merit};
use crate::ui::{self, Table};
pub(crate) use asked::Asked;
use halving::{Rung, rungs};

/// Version of [`SEARCHED`].
const SCHEMA_VERSION: u32 = 1;

/// Named values, in the order in which they are shown.
pub(crate) type Settings = Map<String, Value>;

/// A search, with everything that determines its plan.
pub(crate) struct Search<'a> {
    pub(crate) settings: Vec<Settings>,
    /// Steps of the whole training with each of them.
    pub(crate) steps: Vec<usize>,
    /// What the trials are compared by; without one, accuracy, or where there are no labels agreement.
    pub(crate) metric: Option<Metric>,
    /// The folder of the run; the search has one of its own in it.
    pub(crate) output: &'a Path,
    /// How its first training goes on; the later ones always do.
    pub(crate) existing: Existing,
}

/// One training of a search.
pub(crate) struct Trial {
    /// Number of the settings, from 0.
    pub(crate) number: usize,
    pub(crate) folder: PathBuf,
    pub(crate) existing: Existing,
    steps: usize,
    divisor: usize,
}

/// What was tried, and what was best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tuned {
    /// What they were compared by.
    metric: Metric,
    /// All trials, in the order in which they were made.
    tried: Vec<Tried>,
    pub(crate) chosen: Settings,
}

/// The result of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tried {
    settings: Settings,
    /// From 1.
    rung: usize,
    steps: usize,
    accuracy: Option<f64>,
    macro_f1: Option<f64>,
    agreement: Option<f64>,
    ece: Option<f64>,
    loss: Option<f64>,
    /// Whether the training ended in numbers that are not finite. Then there are no figures.
    diverged: bool,
}

/// How good a trial was.
#[derive(Debug, Clone, Copy)]
struct Found {
    number: usize,
    merit: f64,
    loss: f64,
}

impl Search<'_> {
    /// Trains by `train`, and returns the number of the best settings with all that was tried.
    pub(crate) fn run(
        mut self,
        mut train: impl FnMut(&Trial) -> anyhow::Result<RunFigures>,
    ) -> anyhow::Result<(usize, Tuned)> {
        let folder = self.output.join(SEARCH);
        self.check_same(&folder)?;
        let shortest = self.steps.iter().copied().min().unwrap_or(1);
        let rungs = rungs(self.settings.len(), shortest);
        let mut left: Vec<usize> = (0..self.settings.len()).collect();
        let (mut tried, mut metric) = (Vec::new(), self.metric);
        for (rung, number) in rungs.iter().zip(1..) {
            let mut found = Vec::new();
            left.truncate(rung.settings);
            left.sort_unstable();
            for (&setting, place) in left.iter().zip(1..) {
                let trial = self.trial(&folder, rung, number, setting);
                ui::say(format!(
                    "tuning, rung {number} of {}, {place} of {}: {}, {} steps",
                    rungs.len(),
                    left.len(),
                    in_words(&self.settings[setting]),
                    ui::count(trial.steps as u64)
                ));
                let trained = train(&trial);
                if tried.is_empty() && trained.is_err() {
                    remove_empty(&trial.folder);
                }
                let figures = match trained {
                    Err(error) if diverged(&error) => {
                        ui::say(format!("{error:#}: these settings count as the worst"));
                        None
                    }
                    // What the first one is refused for has little to do with its settings.
                    trained if tried.is_empty() => Some(trained?),
                    trained => {
                        let settings = in_words(&self.settings[setting]);
                        Some(trained.with_context(|| format!("tuning, with {settings}"))?)
                    }
                };
                if tried.is_empty() {
                    write(&folder, &self.settings, None)?;
                    self.existing = self.existing.begun();
                }
                remove_model(&trial.folder)?;
                metric = metric.or_else(|| usual_metric(figures.as_ref()?));
                found.push(Found::of(setting, metric, figures.as_ref())?);
                tried.push(Tried::of(&self.settings[setting], number, trial.steps, figures.as_ref()));
            }
            found.sort_by(Found::compare);
            left = found.iter().filter(|found| found.merit.is_finite()).map(|found| found.number).collect();
        }
        let (Some(&best), Some(metric)) = (left.first(), metric) else {
            return Err(anyhow::anyhow!(
                "with none of the {} settings the training stayed finite",
                self.settings.len()
            ))
            .hint("lower --learning-rate, or check the data");
        };
        let tuned = Tuned { metric, tried, chosen: self.settings[best].clone() };
        write(&folder, &self.settings, Some(&tuned))?;
        ui::say(format!("tuned: {}", in_words(&tuned.chosen)));
        Ok((best, tuned))
    }

    /// Refuses to go on with a search of other settings.
    fn check_same(&self, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join(SEARCHED);
        if !self.existing.keeps_search() || !path.exists() {
            return Ok(());
        }
        let found: Value = serde_json::from_str(&files::read_to_string(&path)?)
            .with_context(|| format!("{}: no JSON", path.display()))?;
        if found["settings"] != serde_json::to_value(&self.settings)? {
            return Err(anyhow::anyhow!("{}: holds a search of other settings", folder.display()))
                .hint("give the same, or another folder, or replace it with --overwrite");
        }
        Ok(())
    }

    fn trial(&self, folder: &Path, rung: &Rung, number: usize, setting: usize) -> Trial {
        Trial {
            number: setting,
            folder: folder.join(format!("rung-{number}")).join(format!("setting-{}", setting + 1)),
            existing: self.existing,
            steps: rung.steps(self.steps[setting]),
            divisor: rung.divisor,
        }
    }
}

impl Trial {
    /// These training settings, for the length of the trial.
    pub(crate) fn fit(&self, fit: &FitRecipe) -> FitRecipe {
        let warmup_steps = fit.warmup_steps.map(|steps| steps / self.divisor);
        FitRecipe { max_steps: Some(self.steps), warmup_steps, ..fit.clone() }
    }
}

impl Tried {
    fn of(settings: &Settings, rung: usize, steps: usize, figures: Option<&RunFigures>) -> Self {
        let scores = figures.and_then(|figures| figures.validation.as_ref());
        Self {
            settings: settings.clone(),
            rung,
            steps,
            accuracy: scores.and_then(|scores| scores.accuracy),
            macro_f1: scores.and_then(|scores| scores.macro_f1),
            agreement: scores.and_then(|scores| scores.agreement),
            ece: scores.and_then(|scores| scores.ece),
            loss: figures.and_then(|figures| figures.validation_loss),
            diverged: figures.is_none(),
        }
    }

    fn get(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::Accuracy => self.accuracy,
            Metric::MacroF1 => self.macro_f1,
            Metric::Agreement => self.agreement,
            Metric::Loss => self.loss,
            Metric::Ece => self.ece,
        }
    }
}

impl Found {
    fn of(number: usize, metric: Option<Metric>, figures: Option<&RunFigures>) -> anyhow::Result<Self> {
        let Some(figures) = figures else {
            return Ok(Self { number, merit: f64::NEG_INFINITY, loss: f64::INFINITY });
        };
        let loss = figures.validation_loss;
        let Some(merit) = figures.validation.as_ref().and_then(|scores| merit(metric, scores, loss)) else {
            return Err(anyhow::anyhow!("the validation rows have nothing that settings can be compared by"))
                .hint("give --validation with labels, or capture its rows too");
        };
        Ok(Self { number, merit, loss: loss.unwrap_or(f64::INFINITY) })
    }

    /// The better one first; of equals the one with the lower loss, then the earlier.
    fn compare(&self, other: &Self) -> std::cmp::Ordering {
        let by_merit = other.merit.total_cmp(&self.merit);
        by_merit.then(self.loss.total_cmp(&other.loss)).then(self.number.cmp(&other.number))
    }
}

impl Tuned {
    /// A table with a row for each of the settings.
    pub(crate) fn text(&self) -> String {
        let keys: Vec<&String> = self.chosen.keys().collect();
        let rungs = self.tried.iter().map(|tried| tried.rung).max().unwrap_or(0);
        let on_rung = |rung| self.tried.iter().filter(move |tried| tried.rung == rung);
        let length = |rung| {
            let mut steps: Vec<usize> = on_rung(rung).map(|tried| tried.steps).collect();
            steps.sort_unstable();
            match (steps.first(), steps.last()) {
                (Some(least), Some(most)) if least == most => ui::count(*most as u64),
                (Some(least), Some(most)) => format!("{least}-{most}"),
                _ => String::new(),
            }
        };
        let headings = keys.iter().map(|key| heading(key, &keys)).chain((1..=rungs).map(length));
        let mut table = Table::new(headings.chain([String::new()]));
        for Tried { settings, .. } in on_rung(1) {
            let figure = |rung| match on_rung(rung).find(|tried| tried.settings == *settings) {
                Some(tried) if tried.diverged => "diverged".to_owned(),
                Some(tried) => tried.get(self.metric).map_or("-".to_owned(), |value| format!("{value:.4}")),
                None => String::new(),
            };
            let chosen = if *settings == self.chosen { "chosen" } else { "" };
            let values = keys.iter().map(|key| settings.get(*key).map_or(String::new(), plain));
            table.row(values.chain((1..=rungs).map(figure)).chain([chosen.to_owned()]));
        }
        format!("{} on the validation rows after so many steps:\n{table}", self.metric)
    }

    /// The chosen values in one line.
    pub(super) fn chosen_in_words(&self) -> String {
        in_words(&self.chosen)
    }
}

/// Refuses to search where nothing is there to compare by; `answered` says that it does not take labels.
pub(crate) fn check_validation(flag: &str, validation: &Split, answered: bool) -> anyhow::Result<()> {
    let way_out = "give --validation (in a recipe `data.validation`), or more rows, of which a tenth is held out";
    if validation.rows.is_empty() {
        return Err(anyhow::anyhow!("there are no validation rows, and {flag} chooses by what they say")).hint(way_out);
    }
    if !answered && validation.labels.iter().all(Option::is_none) {
        return Err(anyhow::anyhow!("no validation row has a label, and {flag} chooses by what they say"))
            .hint(way_out);
    }
    Ok(())
}

/// Refuses what makes trials unequal.
pub(crate) fn check_fit(flag: &str, fit: &FitRecipe) -> anyhow::Result<()> {
    if fit.max_minutes.is_some() {
        bail!(
            "{flag} gives its trainings parts of the whole one's steps, and --max-minutes makes those depend on the machine: \
             give --max-steps or --epochs in its place (in a recipe `train.max_steps`)"
        );
    }
    Ok(())
}

/// Steps of a whole training on so many rows, whose epochs are known.
pub(crate) fn whole_steps(fit: &FitRecipe, rows: usize) -> usize {
    fit.max_steps.unwrap_or_else(|| rows.div_ceil(fit.batch_rows.max(1)).saturating_mul(fit.epochs()))
}

/// What figures are compared by where no metric is given: as in a training.
fn usual_metric(figures: &RunFigures) -> Option<Metric> {
    let scores = figures.validation.as_ref()?;
    [Metric::Accuracy, Metric::Agreement].into_iter().find(|metric| scores.get(*metric).is_some())
}

/// Whether a training ended because its numbers were no longer finite.
fn diverged(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let of_student = matches!(
            cause.downcast_ref(), Some(ObjectiveError::NotFinite { model, .. }) if *model == "student"
        );
        of_student || cause.is::<Diverged>() || cause.is::<NotFinite>()
    })
}

/// Removes the model of a trial, which nothing reads again.
fn remove_model(folder: &Path) -> anyhow::Result<()> {
    for path in MODEL_FILES.iter().map(|name| folder.join(name)).filter(|path| path.exists()) {
        fs::remove_file(&path).map_err(|source| FileError::writing(&path, source))?;
    }
    Ok(())
}

/// Removes the folders of a first trial that was refused, so that the corrected command finds none.
fn remove_empty(folder: &Path) {
    // What is not empty stays.
    for folder in folder.ancestors().take(3) {
        let _ = fs::remove_dir(folder);
    }
}

/// Writes what there is of a search.
fn write(folder: &Path, settings: &[Settings], tuned: Option<&Tuned>) -> anyhow::Result<()> {
    let json = serde_json::json!({"schema_version": SCHEMA_VERSION, "settings": settings, "tuned": tuned});
    let text = format!("{}\n", serde_json::to_string_pretty(&json)?);
    Ok(files::write_whole(&folder.join(SEARCHED), text.as_bytes())?)
}

/// Settings in one line.
fn in_words(settings: &Settings) -> String {
    settings.iter().map(|(key, value)| format!("{key} {}", plain(value))).collect::<Vec<_>>().join(", ")
}

/// A value without the quotes of JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The last part of a key, if no other key ends in it; of a weight, what is weighed.
fn heading(key: &str, keys: &[&String]) -> String {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().trim_start_matches("weight_").to_owned();
    match keys.iter().filter(|other| last(other) == last(key)).count() {
        1 => last(key),
        _ => key.to_owned(),
    }
}
