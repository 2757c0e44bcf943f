//! The settings that `--tune` tries: of `train` and `finetune`, whose flags say the rest.
//!
//! The first ones are those of the flags, so that a search is never behind them on the validation rows. The others are a
//! Latin hypercube: each value of a setting comes once, and the seed says which values stand together.

use std::path::Path;

use anyhow::Context;
use cache::{CacheReader, LogitForm};
use serde_json::json;

use super::super::run_folder::Existing;
use super::super::train::Trained;
use super::{Search, Settings, Tuned, check_fit, check_validation, whole_steps};
use crate::data::Split;
use crate::objective::{HardLabel, LossTermRecipe, SoftTarget};
use crate::recipe::{FitRecipe, rounded};

/// The learning rate is searched up to this many times the given one, and down to as small a part.
const RATE_FACTOR: f64 = 10.0;

/// Temperatures that are tried where the cache has all logits.
const TEMPERATURES: [f64; 5] = [1.0, 2.0, 3.0, 4.0, 8.0];

/// The least and the most part of the soft term in both terms' weights.
const SHARES: [f64; 2] = [0.1, 0.9];

/// A search that was asked for by a number of settings.
pub(crate) struct Asked<'a> {
    pub(crate) count: usize,
    /// Whether nobody has said which temperature.
    pub(crate) temperature: bool,
    /// Whether nobody has said how the soft and the hard term are weighed.
    pub(crate) weights: bool,
    /// Where the teacher's answers are.
    pub(crate) cache: Option<&'a Path>,
    pub(crate) train: &'a Split,
    pub(crate) validation: &'a Split,
    /// Whether the validation rows need no labels.
    pub(crate) answered: bool,
}

/// A training's settings as far as they are searched.
#[derive(Debug, Clone, PartialEq)]
struct Candidate {
    fit: FitRecipe,
    objective: Vec<LossTermRecipe>,
    named: Settings,
}

impl Asked<'_> {
    /// Searches around the given settings, and trains with the best ones.
    pub(crate) fn run(
        &self,
        fit: FitRecipe,
        objective: Vec<LossTermRecipe>,
        output: &Path,
        existing: Existing,
        mut train: impl FnMut(FitRecipe, Vec<LossTermRecipe>, &Path, Existing) -> anyhow::Result<Trained>,
    ) -> anyhow::Result<(Trained, Tuned)> {
        fit.check()?;
        check_fit("--tune", &fit)?;
        check_validation("--tune", self.validation, self.answered)?;
        existing.refuse_search(output)?;
        let temperatures = if self.temperature { self.temperatures()? } else { Vec::new() };
        let shares = self.weights && self.train.labels.iter().any(Option::is_some);
        let candidates = Space { temperatures, shares }.candidates(self.count, &fit, &objective);
        let search = Search {
            settings: candidates.iter().map(|candidate| candidate.named.clone()).collect(),
            steps: vec![whole_steps(&fit, fit.epoch_rows(&self.train.labels)); candidates.len()],
            metric: fit.metric,
            output,
            existing: existing.searching(),
        };
        let (best, tuned) = search.run(|trial| {
            let Candidate { fit, objective, .. } = &candidates[trial.number];
            Ok(train(trial.fit(fit), objective.clone(), &trial.folder, trial.existing)?.figures)
        })?;
        let Candidate { fit, objective, .. } = candidates[best].clone();
        Ok((train(fit, objective, output, existing.begun())?, tuned))
    }

    /// The temperatures that the cache has answers for.
    fn temperatures(&self) -> anyhow::Result<Vec<f64>> {
        let Some(folder) = self.cache else { return Ok(Vec::new()) };
        let reader = CacheReader::open(folder, None).context("--tune looks for the cache's temperatures")?;
        Ok(match &reader.captured().logits {
            LogitForm::Dense { .. } => TEMPERATURES.to_vec(),
            LogitForm::TopK { temperatures, .. } => temperatures.clone(),
            LogitForm::Sample { temperature, .. } => vec![*temperature],
        })
    }
}

/// What is searched besides the learning rate.
struct Space {
    /// None where the temperature is given.
    temperatures: Vec<f64>,
    /// Whether the weights of the soft and the hard term are searched.
    shares: bool,
}

impl Space {
    /// So many settings, those that are given first.
    fn candidates(&self, count: usize, fit: &FitRecipe, objective: &[LossTermRecipe]) -> Vec<Candidate> {
        let soft = objective.iter().find_map(|term| match *term {
            LossTermRecipe::SoftTarget(SoftTarget { weight, temperature, .. }) => Some((weight, temperature)),
            _ => None,
        });
        let hard = objective.iter().find_map(|term| match *term {
            LossTermRecipe::HardLabel(HardLabel { weight, .. }) => Some(weight),
            _ => None,
        });
        let others = count.saturating_sub(1);
        let orders = ["learning rate", "temperature", "weights"].map(|name| shuffled(fit.seed, name, others));
        let mut candidates = Vec::new();
        for number in 0..count {
            // The given ones have no place in the hypercube.
            let place = |of: usize| number.checked_sub(1).map(|other| orders[of][other]);
            let mut named = Settings::new();
            let given = fit.learning_rate();
            let rate = place(0).map_or(given, |place| rate(given, place, others));
            named.insert("learning_rate".to_owned(), json!(rate));
            let mut terms = objective.to_vec();
            if let Some((weight, temperature)) = soft {
                let temperature = match (place(1), self.temperatures.len()) {
                    (None, _) | (_, 0) => temperature,
                    (Some(place), known) => self.temperatures[place * known / others],
                };
                let total = hard.map(|hard| weight + hard).filter(|_| self.shares);
                let share = total.zip(place(2)).map(|(total, place)| (total, share(place, others)));
                let weights = share.map_or([weight, hard.unwrap_or(0.0)], |(total, share)| {
                    [rounded(total * share, 2), rounded(total - rounded(total * share, 2), 4)]
                });
                if self.temperatures.len() > 1 {
                    named.insert("temperature".to_owned(), json!(temperature));
                }
                if total.is_some() {
                    named.insert("weight_soft".to_owned(), json!(weights[0]));
                    named.insert("weight_hard".to_owned(), json!(weights[1]));
                }
                for term in &mut terms {
                    set(term, temperature, weights);
                }
            }
            let fit = FitRecipe { learning_rate: Some(rate), ..fit.clone() };
            candidates.push(Candidate { fit, objective: terms, named });
        }
        candidates
    }
}

/// Gives a term its values.
fn set(term: &mut LossTermRecipe, to: f64, [soft, hard]: [f64; 2]) {
    match term {
        LossTermRecipe::SoftTarget(term) => (term.weight, term.temperature) = (soft, to),
        LossTermRecipe::HardLabel(term) => term.weight = hard,
        _ => {}
    }
}

/// The middle of a part of the range of learning rates, whose parts are as long as each other on a logarithmic scale. Of
/// an odd number of parts one would be the given rate: there is one more then, and the lowest is left out.
fn rate(given: f64, place: usize, of: usize) -> f64 {
    let odd = of % 2;
    let (place, of) = (place + odd, of + odd);
    let at = 2.0 * (place as f64 + 0.5) / of as f64 - 1.0;
    rounded(given * RATE_FACTOR.powf(at), 2)
}

/// The middle of a part of the range of weights.
fn share(place: usize, of: usize) -> f64 {
    SHARES[0] + (SHARES[1] - SHARES[0]) * (place as f64 + 0.5) / of as f64
}

/// `0..count` in an order that depends on the seed and the name.
fn shuffled(seed: u64, name: &str, count: usize) -> Vec<usize> {
    let key = |number: &usize| *blake3::hash(format!("tune {seed} {name} {number}").as_bytes()).as_bytes();
    let mut numbers: Vec<usize> = (0..count).collect();
    numbers.sort_by_key(key);
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: [LossTermRecipe; 2] = [LossTermRecipe::soft_target(0.5, 2.0), LossTermRecipe::hard_label(0.5)];

    fn candidates(space: &Space, seed: u64) -> Vec<Candidate> {
        space.candidates(9, &fit(seed), &TERMS)
    }

    fn fit(seed: u64) -> FitRecipe {
        FitRecipe { seed, learning_rate: Some(1e-4), ..FitRecipe::DEFAULT }
    }

    #[test]
    fn the_given_settings_come_first_and_the_others_fill_their_ranges() {
        let space = Space { temperatures: TEMPERATURES.to_vec(), shares: true };
        let all = candidates(&space, 42);
        assert_eq!((all[0].fit.clone(), all[0].objective.as_slice()), (fit(42), TERMS.as_slice()));
        let mut rates: Vec<f64> = all[1..].iter().map(|candidate| candidate.fit.learning_rate()).collect();
        rates.sort_by(f64::total_cmp);
        assert_eq!(rates, [1.3e-5, 2.4e-5, 4.2e-5, 7.5e-5, 1.3e-4, 2.4e-4, 4.2e-4, 7.5e-4]);
        for candidate in &all {
            let weights: Vec<f64> = candidate.objective.iter().map(LossTermRecipe::weight).collect();
            assert!((weights[0] + weights[1] - 1.0).abs() < 1e-9 && weights[0] >= 0.1, "{weights:?}");
            assert_eq!(candidate.named["weight_soft"], weights[0]);
            assert_eq!(candidate.named["learning_rate"], candidate.fit.learning_rate());
        }
        let mut temperatures: Vec<f64> =
            all[1..].iter().map(|candidate| candidate.named["temperature"].as_f64().unwrap()).collect();
        temperatures.sort_by(f64::total_cmp);
        temperatures.dedup();
        assert_eq!(temperatures, TEMPERATURES);
    }

    #[test]
    fn no_learning_rate_is_tried_twice() {
        for count in 2..=40 {
            let all = Space { temperatures: Vec::new(), shares: false }.candidates(count, &fit(42), &TERMS);
            let mut rates: Vec<f64> = all.iter().map(|candidate| candidate.fit.learning_rate()).collect();
            rates.sort_by(f64::total_cmp);
            rates.dedup();
            assert_eq!(rates.len(), count, "{rates:?}");
        }
    }

    #[test]
    fn the_seed_decides_what_stands_together() {
        let space = Space { temperatures: TEMPERATURES.to_vec(), shares: true };
        assert_eq!(candidates(&space, 42), candidates(&space, 42));
        let named = |seed| candidates(&space, seed).into_iter().map(|of| of.named).collect::<Vec<_>>();
        assert_ne!(named(42), named(43));
    }

    #[test]
    fn what_is_given_stays_as_it_is() {
        let all = candidates(&Space { temperatures: Vec::new(), shares: false }, 42);
        assert!(all.iter().all(|candidate| candidate.objective == TERMS && candidate.named.len() == 1));
        let alone = Space { temperatures: TEMPERATURES.to_vec(), shares: true };
        let hard = [LossTermRecipe::hard_label(1.0)];
        let all = alone.candidates(3, &fit(42), &hard);
        assert!(all.iter().all(|candidate| candidate.objective == hard && candidate.named.len() == 1));
    }
}
