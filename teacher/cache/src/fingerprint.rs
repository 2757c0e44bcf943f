//! Everything that decides what a teacher answers to a key. Two caches with equal fingerprints are interchangeable; a
//! cache whose fingerprint differs in one field is another teacher's.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a cache was made with.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Hash of the teacher's weights.
    pub teacher: String,
    /// Hash of the teacher's configuration.
    pub config: String,
    /// Hash of the teacher's tokenizer.
    pub tokenizer: String,
    /// Class names, in the order of the logits.
    pub labels: Vec<String>,
    /// Longest input, in tokens.
    pub max_length: usize,
    /// What happens to a text before it is tokenised.
    pub preprocessing: String,
    /// The task, as the recipe names it.
    pub task: String,
    /// What is stored of each answer, such as `logits f32`.
    pub captured: String,
}

/// The first field in which two fingerprints differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The field's name in the manifest.
    pub field: &'static str,
    /// What the cache says.
    pub found: String,
    /// What was asked for.
    pub expected: String,
}

impl Fingerprint {
    /// The first field in which this one, found in a cache, differs from the `expected` one. None when they are equal.
    pub fn difference(&self, expected: &Self) -> Option<Difference> {
        let fields = [
            ("teacher", &self.teacher, &expected.teacher),
            ("config", &self.config, &expected.config),
            ("tokenizer", &self.tokenizer, &expected.tokenizer),
            ("preprocessing", &self.preprocessing, &expected.preprocessing),
            ("task", &self.task, &expected.task),
            ("captured", &self.captured, &expected.captured),
        ];
        fields
            .into_iter()
            .find(|(_, found, expected)| found != expected)
            .map(|(field, found, expected)| Difference::new(field, format!("`{found}`"), format!("`{expected}`")))
            .or_else(|| self.difference_in_labels(expected))
            .or_else(|| {
                (self.max_length != expected.max_length)
                    .then(|| Difference::new("max_length", self.max_length, expected.max_length))
            })
    }

    /// Names the first label that differs: the whole lists may have thousands.
    fn difference_in_labels(&self, expected: &Self) -> Option<Difference> {
        if self.labels.len() != expected.labels.len() {
            let count = |labels: &[String]| format!("{} labels", labels.len());
            return Some(Difference::new("labels", count(&self.labels), count(&expected.labels)));
        }
        let position = self.labels.iter().zip(&expected.labels).position(|(found, expected)| found != expected)?;
        let label = |labels: &[String]| format!("`{}` as label {position}", labels[position]);
        Some(Difference::new("labels", label(&self.labels), label(&expected.labels)))
    }
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
