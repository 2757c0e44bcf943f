//! Everything that determines a teacher's output for a key, and what is stored of it. Rows of two caches with equal
//! fingerprints are interchangeable; if one field differs, the cache counts as made by another teacher.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::captured::Captured;

/// What a cache was made with.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Hash of the teacher's weights, without those of its last linear layer.
    pub teacher: String,
    /// Hash of each row of the last linear layer, in the order of the logits; empty for a masked-language model, whose
    /// output matrix is tied to its word embeddings.
    pub head: Vec<String>,
    /// Hash of the teacher's configuration.
    pub config: String,
    /// Hash of the teacher's tokenizer.
    pub tokenizer: String,
    /// Class names, in the order of the logits; empty for a masked-language model.
    pub labels: Vec<String>,
    /// Maximum length of the input in tokens; longer rows are truncated.
    pub max_length: usize,
    /// How tokens are changed before the teacher reads them.
    pub preprocessing: Preprocessing,
    /// The task, as the recipe names it.
    pub task: String,
    /// The precision of the teacher's computation: `f32`, `tf32` or `bf16`, several with `and` between them for a mean. Other
    /// spellings of these count as the same.
    pub precision: String,
    /// What is stored.
    pub captured: Captured,
    /// Whose mean the answers are, where they are no single teacher's. Not written where there is none, so that other
    /// manifests stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average: Option<Average>,
}

/// Answers that are the mean of several teachers'.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Average {
    /// What the mean was taken of.
    pub of: Quantity,
    /// What changes the weights from row to row; they are the same for all rows where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<RowWeights>,
    /// The teachers, in the order in which they were given.
    pub members: Vec<Member>,
}

/// What says, for each row, which of several teachers counts for more.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum RowWeights {
    /// The surer a teacher is, the more it counts.
    Confidence,
    /// The more probable a teacher finds the label, the more it counts.
    Labels {
        /// Hash of the rows with their labels.
        rows: String,
    },
}

/// A teacher whose answers went into a mean.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// As in its own cache's fingerprint.
    pub teacher: String,
    /// Its part of the mean; those of all members add up to 1.
    pub weight: f64,
}

/// What numbers say of the classes.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// What a softmax makes probabilities of.
    Logits,
    /// The softmax at temperature 1.
    Probabilities,
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Logits => "logits",
            Self::Probabilities => "probabilities",
        })
    }
}

/// How tokens are changed before a teacher reads them. Serialised in the form in which it was read.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(untagged)]
pub enum Preprocessing {
    /// Some tokens are masked.
    Masked {
        /// The parameters of the masks.
        masked: Masks,
    },
    /// The answers were computed elsewhere and imported; keys are of the texts and not of tokens.
    Imported {
        /// What was given: probabilities are stored as their logarithms.
        imported: Quantity,
    },
    /// `none` where nothing happens. Caches of before have masks in words here: `masked with probability 0.15 and seed 42`.
    Words(String),
}

/// Parameters of BERT's masking.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Masks {
    /// Fraction of each row's tokens that is masked.
    pub probability: f64,
    /// The random seed; the masks also depend on the row.
    pub seed: u64,
}

impl Preprocessing {
    /// No preprocessing.
    pub fn none() -> Self {
        Self::Words("none".to_owned())
    }

    /// The parameters of the masks, from either form; `None` if nothing is masked.
    pub fn masks(&self) -> Option<Masks> {
        match self {
            Self::Masked { masked } => Some(*masked),
            Self::Imported { .. } => None,
            Self::Words(words) => {
                let (probability, seed) = words.strip_prefix("masked with probability ")?.split_once(" and seed ")?;
                Some(Masks { probability: probability.parse().ok()?, seed: seed.parse().ok()? })
            }
        }
    }
}

/// For messages: both forms of the same masks give the same text.
impl fmt::Display for Preprocessing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masked { masked: Masks { probability, seed } } => {
                write!(f, "masked with probability {probability} and seed {seed}")
            }
            Self::Imported { imported } => write!(f, "imported as {imported}, by the text"),
            Self::Words(words) => f.write_str(words),
        }
    }
}

/// The first field in which two fingerprints differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The field's name in the manifest.
    pub field: &'static str,
    /// The value in the cache.
    pub found: String,
    /// The expected value.
    pub expected: String,
}

/// Which rows of a cache are stale for another fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stale {
    /// None: the fingerprints are equal.
    Nothing,
    /// None, but texts that are now truncated elsewhere have other keys.
    Length,
    /// None, once the logits are reordered: the new logit `i` is the old `order[i]`.
    Order(Vec<u32>),
    /// All rows.
    Everything(Difference),
}

impl Fingerprint {
    /// The first field in which this one, found in a cache, differs from the `expected` one. None when they are equal.
    pub fn difference(&self, expected: &Self) -> Option<Difference> {
        self.difference_for_reading(expected).or_else(|| {
            let (found, wanted) = (&self.captured, &expected.captured);
            json("captured.outputs", &found.outputs, &wanted.outputs)
                .or_else(|| json("captured.logits", &found.logits, &wanted.logits))
                .or_else(|| json("captured.hidden_states", &found.hidden_states, &wanted.hidden_states))
                .or_else(|| precision(&self.precision, &expected.precision))
        })
    }

    /// As [`difference`](Self::difference), but ignores the form in which logits are stored, for readers that accept
    /// any.
    pub fn difference_for_reading(&self, expected: &Self) -> Option<Difference> {
        let preprocessing = [self, expected].map(|fingerprint| fingerprint.preprocessing.to_string());
        [
            ("teacher", &self.teacher, &expected.teacher),
            ("config", &self.config, &expected.config),
            ("tokenizer", &self.tokenizer, &expected.tokenizer),
            ("preprocessing", &preprocessing[0], &preprocessing[1]),
            ("task", &self.task, &expected.task),
        ]
        .into_iter()
        .find_map(|(field, found, expected)| text(field, found, expected))
        .or_else(|| json("average", &self.average, &expected.average))
        .or_else(|| list("labels", "label", &self.labels, &expected.labels))
        .or_else(|| list("head", "row of the last linear map", &self.head, &expected.head))
        .or_else(|| number("max_length", self.max_length, expected.max_length))
        .or_else(|| number("captured.width", self.captured.width, expected.captured.width))
    }

    /// Whether a row's key is a hash of its texts, and not of its tokens.
    pub fn keyed_by_text(&self) -> bool {
        matches!(self.preprocessing, Preprocessing::Imported { .. })
    }

    /// The first field by which the same row has another key here than with the `expected` one.
    pub fn difference_of_keys(&self, expected: &Self) -> Option<Difference> {
        if self.keyed_by_text() && expected.keyed_by_text() {
            return None;
        }
        let preprocessing = [self, expected].map(|fingerprint| fingerprint.preprocessing.to_string());
        text("preprocessing", &preprocessing[0], &preprocessing[1])
            .or_else(|| text("tokenizer", &self.tokenizer, &expected.tokenizer))
            .or_else(|| number("max_length", self.max_length, expected.max_length))
    }

    /// What of a cache with this fingerprint has to be captured anew for the `wanted` one.
    pub fn stale_for(&self, wanted: &Self) -> Stale {
        let mut renamed = self.clone();
        // Where logits move, each has to have its row.
        let order =
            order(&self.head, &wanted.head).filter(|order| order.is_sorted() || order.len() == self.captured.width);
        if order.is_some() {
            (renamed.labels, renamed.head) = (wanted.labels.clone(), wanted.head.clone());
        }
        renamed.max_length = wanted.max_length;
        if let Some(difference) = renamed.difference(wanted) {
            return Stale::Everything(difference);
        }
        match order {
            Some(order) if self.labels != wanted.labels || self.head != wanted.head => Stale::Order(order),
            _ if self.max_length != wanted.max_length => Stale::Length,
            _ => Stale::Nothing,
        }
    }
}

/// Where each wanted row of the last linear map is found; none if they are not the same rows.
///
/// Columns follow the map's rows and not the names: a name that the configuration moves does not move its logit.
fn order(found: &[String], wanted: &[String]) -> Option<Vec<u32>> {
    if found == wanted {
        return Some((0..found.len() as u32).collect());
    }
    let mut free: Vec<bool> = vec![true; found.len()];
    let place = |wanted: &String| {
        let place = (0..found.len()).find(|&place| free[place] && found[place] == *wanted)?;
        free[place] = false;
        Some(place as u32)
    };
    let order: Option<Vec<u32>> = wanted.iter().map(place).collect();
    order.filter(|order| order.len() == found.len())
}

fn text(field: &'static str, found: &str, expected: &str) -> Option<Difference> {
    (found != expected).then(|| Difference::new(field, ticked(found), ticked(expected)))
}

fn ticked(value: &str) -> String {
    format!("`{value}`")
}

/// Different only if the teacher's answers can differ: not by a spelling, nor by the order in which a mean names its members'.
fn precision(found: &str, expected: &str) -> Option<Difference> {
    (formats(found) != formats(expected)).then(|| Difference::new("precision", ticked(found), ticked(expected)))
}

/// The number formats that a precision names. What is in none of the known spellings is equal to itself alone.
fn formats(precision: &str) -> BTreeSet<String> {
    let format = |name: &str| {
        let name = name.trim().to_ascii_lowercase();
        let known = match name.strip_prefix("torch.").unwrap_or(&name) {
            "f32" | "fp32" | "float32" | "float" => "f32",
            "tf32" | "tensorfloat32" => "tf32",
            "bf16" | "bfloat16" => "bf16",
            _ => return name,
        };
        known.to_owned()
    };
    precision.split(" and ").map(format).collect()
}

/// Both as they stand in the manifest.
fn json<T: Serialize + PartialEq>(field: &'static str, found: &T, expected: &T) -> Option<Difference> {
    let json = |value: &T| serde_json::to_string(value).unwrap_or_default();
    (found != expected).then(|| Difference::new(field, json(found), json(expected)))
}

fn number(field: &'static str, found: usize, expected: usize) -> Option<Difference> {
    (found != expected).then(|| Difference::new(field, found, expected))
}

/// Names the first entry that differs: the whole lists may have thousands.
fn list(field: &'static str, entry: &str, found: &[String], expected: &[String]) -> Option<Difference> {
    if found.len() != expected.len() {
        let count = |list: &[String]| format!("{} of them", list.len());
        return Some(Difference::new(field, count(found), count(expected)));
    }
    let position = found.iter().zip(expected).position(|(found, expected)| found != expected)?;
    let named = |list: &[String]| format!("`{}` as {entry} {position}", list[position]);
    Some(Difference::new(field, named(found), named(expected)))
}

impl Difference {
    pub(crate) fn new(field: &'static str, found: impl ToString, expected: impl ToString) -> Self {
        Self { field, found: found.to_string(), expected: expected.to_string() }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its {} is {}, asked for is {}", self.field, self.found, self.expected)
    }
}
