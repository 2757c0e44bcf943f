//! Weights of classes, for data in which some are rare: as they are given, and as numbers for a model's classes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::ObjectiveError;

/// Weights of classes in the hard-label term. Written as it is typed: `balanced`, or a list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ClassWeights {
    /// `n / (k * n_c)` for a class with `n_c` of the `n` labelled training rows, where `k` classes have any: the
    /// `class_weight="balanced"` of scikit-learn. All classes then count for the same, and a row for 1 on average. A
    /// class without rows has nothing to weigh, and no part in `k`; its weight is 0.
    Balanced,
    /// One for each class, in the order of the model's classes: the `weight` of `torch.nn.CrossEntropyLoss`.
    Listed(Vec<f64>),
}

impl ClassWeights {
    /// Weights in the order of the model's classes, `labels` being those of the training rows. An error if the list has
    /// another length.
    ///
    /// # Shapes
    /// - `classes`, result: `[K]`; `labels`: `[N]`, below `K`
    pub(super) fn resolve(&self, classes: &[String], labels: &[Option<u32>]) -> Result<Vec<f64>, ObjectiveError> {
        match self {
            Self::Listed(weights) if weights.len() != classes.len() => {
                let mut names: Vec<&str> = classes.iter().take(4).map(String::as_str).collect();
                if classes.len() > names.len() {
                    names.push("..");
                }
                let (found, expected, names) = (weights.len(), classes.len(), names.join(", "));
                Err(ObjectiveError::ClassWeights { found, expected, names })
            }
            Self::Listed(weights) => Ok(weights.clone()),
            Self::Balanced => {
                let mut rows = vec![0_usize; classes.len()];
                labels.iter().flatten().for_each(|&label| rows[label as usize] += 1);
                let (all, occur) = (rows.iter().sum::<usize>(), rows.iter().filter(|&&rows| rows > 0).count());
                let weight = |&of: &usize| if of == 0 { 0.0 } else { all as f64 / (occur * of) as f64 };
                Ok(rows.iter().map(weight).collect())
            }
        }
    }

    /// Refuses a list of which a weight is negative or no number, or all of which are 0.
    fn listed(weights: Vec<f64>) -> Result<Self, String> {
        if let Some(class) = weights.iter().position(|weight| !(*weight >= 0.0 && weight.is_finite())) {
            let weight = weights[class];
            return Err(format!("class weight {} is {weight}: each must be a number, 0 or more", class + 1));
        }
        if weights.iter().all(|&weight| weight == 0.0) {
            return Err("all class weights are 0, so that no label would count: one must be above 0".to_owned());
        }
        Ok(Self::Listed(weights))
    }
}

impl FromStr for ClassWeights {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "balanced" {
            return Ok(Self::Balanced);
        }
        let numbers = text.split(',').map(|number| number.trim().parse().ok()).collect::<Option<Vec<f64>>>();
        Self::listed(numbers.ok_or("class weights must be balanced, or a number for each class such as 1,2.5,1")?)
    }
}

impl fmt::Display for ClassWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Balanced => f.write_str("balanced"),
            Self::Listed(weights) => {
                let weights: Vec<String> = weights.iter().map(f64::to_string).collect();
                f.write_str(&weights.join(", "))
            }
        }
    }
}

impl Serialize for ClassWeights {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Balanced => serializer.collect_str(self),
            Self::Listed(weights) => weights.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ClassWeights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            List(Vec<f64>),
            Text(String),
        }
        let read = match Written::deserialize(deserializer)? {
            Written::List(weights) => Self::listed(weights),
            Written::Text(text) => text.parse(),
        };
        read.map_err(|error| serde::de::Error::custom(format!("`class_weights`: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|class| format!("c{class}")).collect()
    }

    #[test]
    fn balanced_weights_are_those_of_scikit_learn() {
        // compute_class_weight("balanced", classes=[0, 1, 3], y=[0, 0, 0, 0, 1, 1, 3, 3]); class 2 has no rows.
        let labels = [0, 3, 0, 1, 0, 1, 3, 0].map(Some);
        let labels = [&labels[..], &[None, None]].concat();
        let weights = ClassWeights::Balanced.resolve(&names(4), &labels).expect("weights");
        assert_eq!(weights, [8.0 / 12.0, 8.0 / 6.0, 0.0, 8.0 / 6.0]);
        assert_eq!(ClassWeights::Balanced.resolve(&names(2), &[None]).expect("weights"), [0.0, 0.0]);
    }

    #[test]
    fn a_list_has_a_weight_for_each_class() {
        let weights: ClassWeights = "1, 0,2.5".parse().expect("parses");
        assert_eq!(weights.resolve(&names(3), &[]).expect("weights"), [1.0, 0.0, 2.5]);
        let error = weights.resolve(&names(6), &[]).expect_err("refused").to_string();
        assert_eq!(
            error,
            "3 class weights for 6 classes: give one for each, in the order of the model's classes (c0, c1, c2, c3, ..), \
             with --class-weights or in a recipe as `class_weights` of `hard_label`"
        );
    }

    #[test]
    fn weights_without_sense_are_refused() {
        let refused = |text: &str, expected: &str| {
            let error = text.parse::<ClassWeights>().expect_err("refused");
            assert!(error.contains(expected), "{text}: {error}");
        };
        refused("1,-2", "class weight 2 is -2: each must be a number, 0 or more");
        refused("nan,1", "class weight 1 is NaN");
        refused("1,inf", "class weight 2 is inf");
        refused("0,0", "all class weights are 0");
        refused("equal", "must be balanced, or a number for each class");
        refused("", "must be balanced");
    }

    #[test]
    fn a_recipe_has_a_word_or_a_list() {
        let read = |json: &str| serde_json::from_str::<ClassWeights>(json);
        for (json, expected) in
            [("\"balanced\"", "\"balanced\""), ("[1, 2.5]", "[1.0,2.5]"), ("\"1,2.5\"", "[1.0,2.5]")]
        {
            let weights = read(json).expect("reads");
            assert_eq!(serde_json::to_string(&weights).expect("serialises"), expected);
        }
        assert!(read("[1, -1]").expect_err("refused").to_string().starts_with("`class_weights`: class weight 2 is -1"));
        assert!(read("3").is_err());
    }
}
