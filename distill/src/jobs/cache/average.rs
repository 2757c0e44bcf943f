//! One teacher of several: the mean of what their caches hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use cache::{
    Average, CacheReader, CacheWriter, Captured, Dtype, Fingerprint, LogitForm, Member, NewCache, Outputs, Quantity,
    RowWeights, StoredRow,
};
use datasets::{Key, LabelNames};
use serde::Serialize;

use super::keys::Keys;
use super::writing::{self, COMMITTED_ROWS};
use crate::files::refuse_source;
use crate::fingerprint;
use crate::hint::HintExt;
use crate::interrupt;
use crate::jobs::capture::TOKENIZER;
use crate::recipe::ColumnsRecipe;
use crate::telemetry::Progress;
use crate::ui::{self, Table};

/// Rows between two looks at whether a stop was asked for.
const INTERRUPT_ROWS: usize = 4096;

/// Caches, and how their mean is taken.
pub(crate) struct Averaging<'a> {
    pub(crate) caches: &'a [PathBuf],
    /// What the mean is taken of: see [`mean`].
    pub(crate) of: Quantity,
    /// One for each cache, in any scale; equal ones where there are none.
    pub(crate) weights: &'a [f64],
    /// What changes these from row to row.
    pub(crate) by: Option<By<'a>>,
    /// Leaves out rows that are not in all of them, instead of refusing.
    pub(crate) intersection: bool,
    pub(crate) output: &'a Path,
}

/// What says, for each row, which teacher counts for more.
#[derive(Clone, Copy)]
pub(crate) enum By<'a> {
    /// Its own entropy.
    Confidence,
    /// The labels of these rows.
    Labels { data: &'a Path, columns: &'a ColumnsRecipe },
}

/// The same, as far as a row is concerned.
enum Trust {
    Alike,
    Confidence,
    /// Of rows in all caches, in the order of the first one's classes.
    Labels(BTreeMap<Key, u32>),
}

/// Entropy in nats below which no teacher counts for more: with two classes, a probability of 1 - 1e-4.
const LEAST_ENTROPY: f64 = 1e-3;

/// Cross-entropy above which a teacher is no more wrong: one that finds the label impossible.
const MOST_LOSS: f64 = 1e4;

impl By<'_> {
    /// Reads the labels of the rows that a mean is taken for, if they are needed. A text with two labels has none.
    fn trust(self, dir: &Path, first: &CacheReader, left_out: &BTreeSet<&Key>) -> anyhow::Result<Trust> {
        let Self::Labels { data, columns } = self else { return Ok(Trust::Confidence) };
        let mut labels: BTreeMap<Key, Option<u32>> = BTreeMap::new();
        Keys::new(dir, first, columns)?.each(data, |key, label| {
            if label.is_some() && first.contains(&key)? && !left_out.contains(&key) {
                let known = labels.entry(key).or_insert(label);
                *known = known.filter(|known| Some(*known) == label);
            }
            Ok(())
        })?;
        let all = labels.len();
        let labels: BTreeMap<Key, u32> = labels.into_iter().filter_map(|(key, label)| Some((key, label?))).collect();
        if all > labels.len() {
            let contradict = ui::count((all - labels.len()) as u64);
            ui::say(format!("{}: {contradict} texts have several labels, and count as without one", data.display()));
        }
        if labels.is_empty() {
            bail!(
                "{}: no row with a label is in {} and the other caches, so that it says nothing of the teachers",
                data.display(),
                dir.display()
            );
        }
        Ok(Trust::Labels(labels))
    }
}

impl Trust {
    fn recorded(&self) -> Option<RowWeights> {
        match self {
            Self::Alike => None,
            Self::Confidence => Some(RowWeights::Confidence),
            Self::Labels(labels) => {
                let bytes: Vec<u8> =
                    labels.iter().flat_map(|(key, label)| key.iter().copied().chain(label.to_le_bytes())).collect();
                Some(RowWeights::Labels { rows: fingerprint::hash(&bytes) })
            }
        }
    }

    /// The teachers' weights for one row, which add up to 1, from those for all rows.
    fn weights(&self, key: &Key, rows: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
        let changed: Vec<f64> = match self {
            Self::Alike => return weights.to_vec(),
            Self::Confidence => {
                rows.iter().zip(weights).map(|(row, weight)| weight / entropy(row).max(LEAST_ENTROPY)).collect()
            }
            Self::Labels(labels) => {
                let Some(&label) = labels.get(key) else { return weights.to_vec() };
                let loss = |row: &Vec<f64>| (log_sum_exp(row) - row[label as usize]).min(MOST_LOSS);
                let losses: Vec<f64> = rows.iter().map(loss).collect();
                let all = log_sum_exp(&losses);
                losses.iter().zip(weights).map(|(loss, weight)| weight * (1.0 - (loss - all).exp())).collect()
            }
        };
        let sum: f64 = changed.iter().sum();
        changed.into_iter().map(|weight| weight / sum).collect()
    }
}

/// What `cache merge --average` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    caches: usize,
    of: Quantity,
    weights: Vec<f64>,
    /// What changed the weights from row to row.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<RowWeights>,
    /// Rows whose weights a label changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    labelled: Option<usize>,
    rows: usize,
    /// Rows that only some of the caches have.
    left_out: usize,
    output: String,
}

/// A cache with what its numbers are to the mean.
struct Part {
    reader: CacheReader,
    weight: f64,
    /// For each class of the first cache, which logit of this one is of it.
    order: Vec<usize>,
}

impl Averaging<'_> {
    /// Writes a cache with the mean of all of them.
    pub(crate) fn run(&self) -> anyhow::Result<Report> {
        let parts = self.open()?;
        let [first, others @ ..] = parts.as_slice() else { bail!("no cache") };
        let missing = self.missing(&parts)?;
        let left_out: BTreeSet<&Key> = missing.iter().flatten().collect();
        if let (Some((at, keys)), false) =
            (missing.iter().enumerate().find(|(_, keys)| !keys.is_empty()), self.intersection)
        {
            let (dir, count) = (self.caches[at].display(), ui::count(keys.len() as u64));
            return Err(anyhow!("{dir}: {count} rows of the other caches are not in it"))
                .hint("cache the same data with each teacher, or leave these rows out with --intersection");
        }
        let mut shared = first.reader.len();
        for key in &left_out {
            shared -= usize::from(first.reader.contains(key)?);
        }
        if shared == 0 {
            bail!("the caches have no row in common");
        }
        let trust = self.by.map_or(Ok(Trust::Alike), |by| by.trust(&self.caches[0], &first.reader, &left_out))?;
        let fingerprint = fingerprint_of(&parts, self.of, trust.recorded());
        let tokenizer = first.reader.attachment(TOKENIZER)?;
        let attachments: Vec<(&str, &[u8])> = tokenizer.iter().map(|bytes| (TOKENIZER, bytes.as_slice())).collect();
        let new = NewCache {
            fingerprint: &fingerprint,
            batch_tokens: first.reader.batch_tokens(),
            attachments: &attachments,
        };
        let mut writer = writing::create(self.output, &new, "another cache is there; choose another --output")?;
        let weights: Vec<f64> = parts.iter().map(|part| part.weight).collect();
        let progress = Progress::new("average", first.reader.len() as u64, "rows");
        let mut means: Vec<(Key, Vec<f32>)> = Vec::new();
        for (number, entry) in first.reader.rows().enumerate() {
            let (key, row) = entry?;
            if number.is_multiple_of(INTERRUPT_ROWS) {
                interrupt::check()?;
            }
            progress.inc(1);
            if left_out.contains(&key) {
                continue;
            }
            let mut rows = vec![ordered(&row, first)];
            for part in others {
                let row =
                    part.reader.get(&key)?.with_context(|| format!("no row with key {}", cache::key_hex(&key)))?;
                rows.push(ordered(&row, part));
            }
            means.push((key, mean(self.of, &rows, &trust.weights(&key, &rows, &weights))));
            if means.len() == COMMITTED_ROWS {
                write(&mut writer, &means)?;
                means.clear();
            }
        }
        write(&mut writer, &means)?;
        writer.finish()?;
        progress.finish();
        Ok(Report {
            caches: parts.len(),
            of: self.of,
            weights,
            by: trust.recorded(),
            labelled: if let Trust::Labels(labels) = &trust { Some(labels.len()) } else { None },
            rows: writer.rows(),
            left_out: left_out.len(),
            output: self.output.display().to_string(),
        })
    }

    /// Opens all caches, and refuses those that no mean can be taken of.
    fn open(&self) -> anyhow::Result<Vec<Part>> {
        if self.caches.len() < 2 {
            bail!("--average: one cache; give two or more");
        }
        if !self.weights.is_empty() && self.weights.len() != self.caches.len() {
            bail!("--weights: {} of them for {} caches; give one for each", self.weights.len(), self.caches.len());
        }
        for (number, dir) in self.caches.iter().enumerate() {
            // A folder that is not there is refused where it is opened.
            let same = |other: &PathBuf| matches!((dir.canonicalize(), other.canonicalize()), (Ok(a), Ok(b)) if a == b);
            if self.caches[..number].iter().any(same) {
                return Err(anyhow!("--average: the cache {} is given twice", dir.display()))
                    .hint("give each cache once, and --weights where one is to count more than another");
            }
        }
        let equal = vec![1.0; self.caches.len()];
        let weights = if self.weights.is_empty() { &equal } else { self.weights };
        let sum: f64 = weights.iter().sum();
        let mut parts: Vec<Part> = Vec::with_capacity(self.caches.len());
        for (dir, weight) in self.caches.iter().zip(weights) {
            refuse_source(dir, self.output)?;
            let reader = CacheReader::open(dir, None)?;
            refuse_form(dir, reader.captured())?;
            let labels = &reader.fingerprint().labels;
            let order = match parts.first() {
                None => (0..labels.len()).collect(),
                Some(first) => {
                    let first = first.reader.fingerprint();
                    if let Some(difference) = reader.fingerprint().difference_of_keys(first) {
                        let first = self.caches[0].display();
                        return Err(anyhow!(
                            "{}: its rows have other keys than those of {first}: {difference}",
                            dir.display()
                        ))
                        .hint(
                            "only caches of teachers with the same tokenizer and --max-length can be averaged, or imported \
                             ones with each other: for each teacher write what `distill predict --json --model TEACHER \
                             --text-column text DATA` prints to a .jsonl, make a cache of it by `distill cache import \
                             --probabilities probabilities`, and average these",
                        );
                    }
                    order_of(labels, &first.labels).with_context(|| dir.display().to_string())?
                }
            };
            parts.push(Part { reader, weight: weight / sum, order });
        }
        Ok(parts)
    }

    /// For each cache, the keys of the others that it does not have.
    fn missing(&self, parts: &[Part]) -> anyhow::Result<Vec<BTreeSet<Key>>> {
        let mut missing = vec![BTreeSet::new(); parts.len()];
        for (number, part) in parts.iter().enumerate() {
            for (row, entry) in part.reader.rows().enumerate() {
                let (key, _) = entry?;
                if row.is_multiple_of(INTERRUPT_ROWS) {
                    interrupt::check()?;
                }
                for (other, missing) in missing.iter_mut().enumerate().filter(|(other, _)| *other != number) {
                    if !parts[other].reader.contains(&key)? {
                        missing.insert(key);
                    }
                }
            }
        }
        Ok(missing)
    }
}

fn write(writer: &mut CacheWriter, means: &[(Key, Vec<f32>)]) -> anyhow::Result<()> {
    writing::commit(writer, means.iter().map(|(key, logits)| (*key, logits.as_slice())))
}

/// Refuses what has not every logit of a text's classes.
fn refuse_form(dir: &Path, captured: &Captured) -> anyhow::Result<()> {
    let dir = dir.display();
    if captured.outputs == Outputs::Token {
        bail!("{dir}: holds answers for every token; only those for whole texts can be averaged");
    }
    let form = match &captured.logits {
        LogitForm::Dense { .. } => None,
        LogitForm::TopK { k, .. } => Some(format!("the {k} largest logits alone (--top-k)")),
        LogitForm::Sample { draws, .. } => Some(format!("{draws} draws (--sample)")),
    };
    if let Some(form) = form {
        bail!("{dir}: holds {form}; a mean is taken of all logits: capture it anew without that flag");
    }
    if captured.hidden_states.is_some() {
        ui::say(format!("{dir}: its hidden states are left out: the mean is of the logits"));
    }
    Ok(())
}

/// Which logit each of the wanted classes has, by name.
fn order_of(labels: &[String], wanted: &[String]) -> anyhow::Result<Vec<usize>> {
    let names = LabelNames::new(labels.to_vec())?;
    let order = wanted.iter().map(|class| {
        names.id(class).map(|id| id as usize).with_context(|| {
            format!("has no class `{class}`, and the first cache has; its classes are {}", labels.join(", "))
        })
    });
    let order = order.collect::<anyhow::Result<Vec<_>>>()?;
    match labels.iter().find(|class| !wanted.contains(class)) {
        Some(class) => bail!("has a class `{class}` that the first cache does not have"),
        None => Ok(order),
    }
}

/// The logits of a row in the order of the first cache's classes.
fn ordered(row: &StoredRow<'_>, part: &Part) -> Vec<f64> {
    let logits: Vec<f64> = row.logits().map(f64::from).collect();
    part.order.iter().map(|&at| logits[at]).collect()
}

/// Of the softmax, in nats.
fn entropy(row: &[f64]) -> f64 {
    let all = log_sum_exp(row);
    let logs = row.iter().map(|logit| logit - all).filter(|log| log.is_finite());
    -logs.map(|log| log * log.exp()).sum::<f64>()
}

/// The mean of several teachers' logits for one row; the weights add up to 1.
///
/// Of logits it is `sum(w * z)`, whose softmax is the geometric mean of the teachers' probabilities at every temperature.
/// Of probabilities it is `ln(sum(w * softmax(z)))`: the softmax of that at temperature 1 is their arithmetic mean. Hinton et
/// al. (2015) name both for an ensemble that teaches.
fn mean(of: Quantity, rows: &[Vec<f64>], weights: &[f64]) -> Vec<f32> {
    let width = rows.first().map_or(0, Vec::len);
    // What turns logits into logarithms of probabilities.
    let shifts: Vec<f64> = match of {
        Quantity::Logits => vec![0.0; rows.len()],
        Quantity::Probabilities => rows.iter().map(|row| log_sum_exp(row)).collect(),
    };
    let class = |at: usize| {
        // What a teacher without weight says does not count, even that a class is impossible.
        let counted = rows.iter().zip(&shifts).zip(weights).filter(|(_, weight)| **weight > 0.0);
        let logs = counted.map(|((row, shift), weight)| (row[at] - shift, weight));
        match of {
            Quantity::Logits => logs.map(|(log, weight)| weight * log).sum(),
            Quantity::Probabilities => {
                let terms: Vec<f64> = logs.map(|(log, weight)| log + weight.ln()).collect();
                log_sum_exp(&terms)
            }
        }
    };
    (0..width).map(|at| class(at) as f32).collect()
}

/// `ln(sum(exp(x)))`.
fn log_sum_exp(values: &[f64]) -> f64 {
    let top = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + values.iter().map(|value| (value - top).exp()).sum::<f64>().ln()
}

/// What the mean of these caches is made with.
fn fingerprint_of(parts: &[Part], of: Quantity, by: Option<RowWeights>) -> Fingerprint {
    let first = parts[0].reader.fingerprint();
    let all: Vec<&Fingerprint> = parts.iter().map(|part| part.reader.fingerprint()).collect();
    let members =
        parts.iter().map(|part| Member { teacher: part.reader.fingerprint().teacher.clone(), weight: part.weight });
    let average = Average { of, by, members: members.collect() };
    let whole = serde_json::json!({ "average": average, "members": all });
    let config = serde_json::json!(all.iter().map(|one| &one.config).collect::<Vec<_>>());
    let precisions: BTreeSet<&str> = all.iter().map(|one| one.precision.as_str()).collect();
    Fingerprint {
        teacher: fingerprint::hash(whole.to_string().as_bytes()),
        head: Vec::new(),
        config: fingerprint::hash(config.to_string().as_bytes()),
        precision: precisions.into_iter().collect::<Vec<_>>().join(" and "),
        captured: Captured::dense(first.labels.len(), Dtype::F32),
        average: Some(average),
        ..first.clone()
    }
}

impl Report {
    pub(crate) fn text(&self) -> String {
        let mut table = Table::new([format!("{} caches", self.caches), String::new()]);
        table.row(["mean of".to_string(), self.of.to_string()]);
        let weights: Vec<String> = self.weights.iter().map(|weight| format!("{weight:.4}")).collect();
        table.row(["weights".to_string(), weights.join(", ")]);
        let changed = match (&self.by, self.labelled) {
            (None, _) => None,
            (Some(_), Some(labelled)) => Some(format!("of {} rows, by their label", ui::count(labelled as u64))),
            (Some(_), None) => Some("of each row, by confidence".to_string()),
        };
        if let Some(changed) = changed {
            table.row(["weights changed".to_string(), changed]);
        }
        table.row(["rows".to_string(), ui::count(self.rows as u64)]);
        table.row(["rows not in all, left out".to_string(), ui::count(self.left_out as u64)]);
        format!("{table}\nwritten: {}", self.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn softmax(logits: &[f32]) -> Vec<f64> {
        let logits: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
        let sum = log_sum_exp(&logits);
        logits.iter().map(|logit| (logit - sum).exp()).collect()
    }

    fn near(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        // Rounding to f32: 1.2e-7 of each, measured 3e-8.
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} is not {expected:?}");
    }

    #[test]
    fn the_mean_of_probabilities_is_arithmetic_and_that_of_logits_geometric() {
        let (one, other): ([f64; 2], [f64; 2]) = ([0.9, 0.1], [0.2, 0.8]);
        let logs = |p: [f64; 2], shift: f64| p.map(|p| p.ln() + shift).to_vec();
        // What is added to all logits of a row says nothing, so no scale of a teacher's has a say.
        let rows = [logs(one, 3.0), logs(other, -40.0)];
        near(&softmax(&mean(Quantity::Probabilities, &rows, &[0.25, 0.75])), &[0.375, 0.625]);
        let powers = [0.9_f64.powf(0.25) * 0.2_f64.powf(0.75), 0.1_f64.powf(0.25) * 0.8_f64.powf(0.75)];
        let sum = powers[0] + powers[1];
        near(&softmax(&mean(Quantity::Logits, &rows, &[0.25, 0.75])), &[powers[0] / sum, powers[1] / sum]);
    }

    #[test]
    fn weights_of_a_row_follow_confidence_or_label() {
        let logs = |p: [f64; 3]| p.map(|p| p.ln() + 2.0).to_vec();
        let rows = [logs([0.8, 0.1, 0.1]), logs([0.3, 0.4, 0.3])];
        let (key, other): (Key, Key) = ([1; 16], [2; 16]);
        // Entropies 0.639032 and 1.088900 nats.
        let weights = Trust::Confidence.weights(&key, &rows, &[0.5, 0.5]);
        near(&weights, &[1.088900 / 1.727932, 0.639032 / 1.727932]);
        let weights = Trust::Confidence.weights(&key, &rows, &[0.75, 0.25]);
        near(&weights, &[3.0 * 1.088900 / 3.905732, 0.639032 / 3.905732]);
        // CA-MKD, equation 4, with e^loss = 1 / p: 1 - 10 / 12.5 and 1 - 2.5 / 12.5 for class 1.
        let labels = Trust::Labels(BTreeMap::from([(key, 1)]));
        near(&labels.weights(&key, &rows, &[0.5, 0.5]), &[0.2, 0.8]);
        near(&labels.weights(&other, &rows, &[0.75, 0.25]), &[0.75, 0.25]);
        // Three teachers of weights 1, 2 and 3, of which one finds the label impossible: e^loss is 2, 5 and infinite.
        let impossible = vec![0.0, 0.0, f64::NEG_INFINITY];
        let three = [logs([0.25, 0.25, 0.5]), logs([0.4, 0.4, 0.2]), impossible];
        let of_label = Trust::Labels(BTreeMap::from([(key, 2)]));
        near(&of_label.weights(&key, &three, &[1.0 / 6.0, 2.0 / 6.0, 0.5]), &[1.0 / 3.0, 2.0 / 3.0, 0.0]);
        let entropies = [1.039721, 1.054920, 2.0_f64.ln()];
        let shares = [1.0 / entropies[0], 2.0 / entropies[1], 3.0 / entropies[2]];
        let sum: f64 = shares.iter().sum();
        near(&Trust::Confidence.weights(&key, &three, &[1.0 / 6.0, 2.0 / 6.0, 0.5]), &shares.map(|share| share / sum));
        // However sure or wrong a teacher is, weights are finite.
        let rows = [vec![2000.0, 0.0], vec![0.0, 2000.0]];
        let labels = Trust::Labels(BTreeMap::from([(key, 1)]));
        near(&labels.weights(&key, &rows, &[0.5, 0.5]), &[0.0, 1.0]);
        near(&Trust::Confidence.weights(&key, &rows, &[0.5, 0.5]), &[0.5, 0.5]);
        let of_one = mean(Quantity::Probabilities, &rows, &[0.0, 1.0]);
        assert_eq!(of_one, [-2000.0, 0.0]);
    }

    #[test]
    fn a_teacher_beside_itself_stays_what_it_was() {
        let row = vec![1.5, -2.25, 700.0];
        let rows = [row.clone(), row];
        assert_eq!(mean(Quantity::Logits, &rows, &[0.5, 0.5]), [1.5, -2.25, 700.0]);
        // -698.5 and -702.25 below the largest: no probability has become 0 on the way.
        let of_probabilities = mean(Quantity::Probabilities, &rows, &[0.5, 0.5]);
        let of_probabilities: Vec<f64> = of_probabilities.into_iter().map(f64::from).collect();
        assert_eq!(of_probabilities, [-698.5, -702.25, 0.0]);
    }

    #[test]
    fn classes_are_matched_by_name() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(order_of(&names(&["c", "a", "b"]), &names(&["a", "b", "c"])).expect("the same"), [1, 2, 0]);
        let error = |labels: &[&str]| order_of(&names(labels), &names(&["a", "b"])).expect_err("refused").to_string();
        assert!(error(&["a", "c"]).contains("has no class `b`"), "{}", error(&["a", "c"]));
        assert!(error(&["a", "b", "c"]).contains("has a class `c`"), "{}", error(&["a", "b", "c"]));
    }
}
