//! Which layers of a student are compared with which of its teacher's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A map from layers of the student to layers of the teacher. Written as it is typed: `uniform`, `last`, or pairs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) enum LayerMap {
    /// All layers of the student, each with the one at the same part of the teacher's depth.
    Uniform,
    /// The last layer of each.
    Last,
    /// `[student, teacher]`
    Pairs(Vec<[usize; 2]>),
}

/// What a term counts as layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// Hidden states: 0 is the output of the embeddings, `i` that of layer `i`.
    HiddenStates,
    /// The same; `uniform` leaves out the embeddings and the last layer.
    InnerHiddenStates,
    /// The same; `uniform` leaves out the embeddings.
    LayerOutputs,
    /// Layers, counted from 0.
    Layers,
}

impl LayerMap {
    pub(super) fn uniform() -> Self {
        Self::Uniform
    }

    pub(super) fn last() -> Self {
        Self::Last
    }

    /// The pairs for models with so many layers, `[student, teacher]`; an error in words for a layer that is not there, or
    /// if there are none.
    pub(super) fn pairs(&self, counted: Counted, [student, teacher]: [usize; 2]) -> Result<Vec<[usize; 2]>, String> {
        // In hidden states, so that the student's last layer is the teacher's last one.
        let same_depth = |layer: usize| (2 * layer * teacher + student) / (2 * student);
        let pairs: Vec<[usize; 2]> = match (self, counted) {
            (Self::Pairs(pairs), _) => pairs.clone(),
            (Self::Last, Counted::Layers) => vec![[student - 1, teacher - 1]],
            (Self::Last, _) => vec![[student, teacher]],
            (Self::Uniform, Counted::HiddenStates) => (0..=student).map(|layer| [layer, same_depth(layer)]).collect(),
            (Self::Uniform, Counted::InnerHiddenStates) => {
                (1..student).map(|layer| [layer, same_depth(layer)]).collect()
            }
            (Self::Uniform, Counted::LayerOutputs) => (1..=student).map(|layer| [layer, same_depth(layer)]).collect(),
            (Self::Uniform, Counted::Layers) => {
                (0..student).map(|layer| [layer, same_depth(layer + 1).max(1) - 1]).collect()
            }
        };
        let ends = match counted {
            Counted::Layers => [student - 1, teacher - 1],
            _ => [student, teacher],
        };
        let what = if counted == Counted::Layers { "layers" } else { "hidden states" };
        for pair in &pairs {
            for ((layer, end), model) in pair.iter().zip(ends).zip(["student", "teacher"]) {
                if *layer > end {
                    return Err(format!("{what} of the {model} are 0 to {end}, and `layers` says {layer}"));
                }
            }
        }
        match pairs.is_empty() {
            true => Err(format!("a student with {student} layer has none between its ends; give pairs such as 1:1")),
            false => Ok(pairs),
        }
    }

    /// The pairs of one layer of the student, counted from 0; the embeddings' output is with the first. `None` if it has none.
    pub(super) fn of_layer(&self, counted: Counted, models: [usize; 2], layer: usize) -> Result<Option<Self>, String> {
        let layer_of = |state: usize| if counted == Counted::Layers { state } else { state.max(1) - 1 };
        let mut pairs = self.pairs(counted, models)?;
        pairs.retain(|[student, _]| layer_of(*student) == layer);
        Ok(Some(Self::Pairs(pairs)).filter(|map| *map != Self::Pairs(Vec::new())))
    }
}

impl FromStr for LayerMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = |pair: &str| {
            let (student, teacher) = pair.split_once(':')?;
            Some([student.trim().parse().ok()?, teacher.trim().parse().ok()?])
        };
        match text {
            "uniform" => Ok(Self::Uniform),
            "last" => Ok(Self::Last),
            pairs => pairs.split(',').map(pair).collect::<Option<_>>().map(Self::Pairs).ok_or_else(|| {
                format!("layers is {text:?}: it must be uniform, last, or pairs STUDENT:TEACHER such as \"1:2,2:4\"")
            }),
        }
    }
}

impl fmt::Display for LayerMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Last => f.write_str("last"),
            Self::Pairs(pairs) => {
                let pairs: Vec<String> =
                    pairs.iter().map(|[student, teacher]| format!("{student}:{teacher}")).collect();
                f.write_str(&pairs.join(","))
            }
        }
    }
}

impl TryFrom<String> for LayerMap {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<LayerMap> for String {
    fn from(map: LayerMap) -> Self {
        map.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_layers_are_those_of_tinybert_and_pkd() {
        let pairs = |map: LayerMap, counted, models| map.pairs(counted, models).expect("pairs");
        // task_distill.py of TinyBERT, 4 of 12 layers: hidden states `i * 3`, attention of layer `i * 3 + 2`.
        let hidden = pairs(LayerMap::Uniform, Counted::HiddenStates, [4, 12]);
        assert_eq!(hidden, [[0, 0], [1, 3], [2, 6], [3, 9], [4, 12]]);
        assert_eq!(pairs(LayerMap::Uniform, Counted::LayerOutputs, [4, 12]), hidden[1..]);
        let of_layer = |counted, layer| LayerMap::Uniform.of_layer(counted, [4, 12], layer).expect("pairs");
        assert_eq!(of_layer(Counted::HiddenStates, 0), Some(LayerMap::Pairs(vec![[0, 0], [1, 3]])));
        assert_eq!(of_layer(Counted::LayerOutputs, 3), Some(LayerMap::Pairs(vec![[4, 12]])));
        assert_eq!(of_layer(Counted::Layers, 0), Some(LayerMap::Pairs(vec![[0, 2]])));
        assert_eq!(of_layer(Counted::InnerHiddenStates, 3), None);
        let layers = pairs(LayerMap::Uniform, Counted::Layers, [4, 12]);
        assert_eq!(layers, [[0, 2], [1, 5], [2, 8], [3, 11]]);
        // PKD-skip, 6 of 12 layers: the outputs of layers 1, 3, 5, 7 and 9, counted from 0.
        let inner = pairs(LayerMap::Uniform, Counted::InnerHiddenStates, [6, 12]);
        assert_eq!(inner, [[1, 2], [2, 4], [3, 6], [4, 8], [5, 10]]);
        assert_eq!(pairs(LayerMap::Last, Counted::Layers, [3, 6]), [[2, 5]]);
        assert_eq!(pairs(LayerMap::Last, Counted::HiddenStates, [3, 6]), [[3, 6]]);
        // A student that is deeper than its teacher, and sizes that do not divide.
        assert_eq!(pairs(LayerMap::Uniform, Counted::Layers, [4, 1]), [[0, 0], [1, 0], [2, 0], [3, 0]]);
        assert_eq!(pairs(LayerMap::Uniform, Counted::HiddenStates, [2, 5]), [[0, 0], [1, 3], [2, 5]]);
    }

    #[test]
    fn layers_beyond_a_model_are_refused() {
        let refused = |text: &str, counted, expected: &str| {
            let error = text.parse::<LayerMap>().expect("parses").pairs(counted, [2, 4]).expect_err(text);
            assert!(error.contains(expected), "{error}");
        };
        refused("2:0", Counted::Layers, "layers of the student are 0 to 1, and `layers` says 2");
        refused("0:0,2:5", Counted::HiddenStates, "hidden states of the teacher are 0 to 4, and `layers` says 5");
        assert!(LayerMap::Uniform.pairs(Counted::InnerHiddenStates, [1, 4]).is_err());
    }

    #[test]
    fn a_map_reads_back_as_written() {
        for text in ["uniform", "last", "0:0", "1:2,2:4"] {
            assert_eq!(text.parse::<LayerMap>().expect("parses").to_string(), text);
        }
        for text in ["", "1", "1:2,", "first", "1:-2"] {
            assert!(text.parse::<LayerMap>().is_err(), "{text}");
        }
    }
}
