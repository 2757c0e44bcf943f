//! Architecture and initialisation of a student.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use student::start::Sizes;
use teacher::HubOptions;

use super::checks::{Check, PROBABILITY};
use super::{Shape, StudentFamily};
use crate::default::is_default;

/// Architecture and initialisation of the student.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StudentRecipe {
    /// A pretrained model, folder or Hub name, that brings its own sizes, weights and tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    /// Branch, tag or commit of that model on the Hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revision: Option<String>,
    /// Sizes that have a name; a size that is given as well wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shape: Option<Shape>,
    /// Where not given, the shape's, or DistilBERT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) family: Option<StudentFamily>,
    pub(crate) layers: LayerChoice,
    // Left out where it is random, as it was in records from before it could be anything else.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) head: HeadChoice,
    /// `None`: the length of the list in `layers`, else the family's default (usually half the teacher's).
    pub(crate) num_layers: Option<usize>,
    pub(crate) hidden_size: Option<usize>,
    pub(crate) num_heads: Option<usize>,
    pub(crate) intermediate_size: Option<usize>,
    // Left out where they are not given: records from before they were there say the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bottleneck_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stacks: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) embedding_size: Option<usize>,
    pub(crate) prune_vocabulary: bool,
    pub(crate) dropout: f64,
}

impl Default for StudentRecipe {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl StudentRecipe {
    /// The defaults of the flags and of a recipe's `[student]`.
    pub(crate) const DEFAULT: Self = Self {
        model: None,
        revision: None,
        shape: None,
        family: None,
        layers: LayerChoice::Uniform,
        head: HeadChoice::Random,
        num_layers: None,
        hidden_size: None,
        num_heads: None,
        intermediate_size: None,
        bottleneck_size: None,
        stacks: None,
        embedding_size: None,
        prune_vocabulary: false,
        dropout: 0.1,
    };

    /// The allowed values.
    pub(super) fn checks(&self) -> Vec<Check> {
        vec![
            Check::Size("student.num_layers", self.num_layers),
            Check::Size("student.hidden_size", self.hidden_size),
            Check::Size("student.num_heads", self.num_heads),
            Check::Size("student.intermediate_size", self.intermediate_size),
            Check::Size("student.bottleneck_size", self.bottleneck_size),
            Check::Size("student.stacks", self.stacks),
            Check::Size("student.embedding_size", self.embedding_size),
            Check::Number("student.dropout", self.dropout, PROBABILITY),
        ]
    }

    /// Refuses to give a pretrained model other sizes than it has.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let Some(model) = &self.model else {
            anyhow::ensure!(self.revision.is_none(), "`student.revision` goes with `student.model`");
            return Ok(());
        };
        let given = [
            ("model-type", self.family.is_some()),
            ("shape", self.shape.is_some()),
            ("hidden-size", self.hidden_size.is_some()),
            ("num-heads", self.num_heads.is_some()),
            ("intermediate-size", self.intermediate_size.is_some()),
            ("bottleneck-size", self.bottleneck_size.is_some()),
            ("stacks", self.stacks.is_some()),
            ("embedding-size", self.embedding_size.is_some()),
        ];
        if let Some((flag, _)) = given.iter().find(|(_, given)| *given) {
            let key = if *flag == "model-type" { "family".to_owned() } else { flag.replace('-', "_") };
            anyhow::bail!(
                "--student {model} contradicts --{flag}: a pretrained model has its sizes; leave out one of the two (in a \
                 recipe `student.model` and `student.{key}`)"
            );
        }
        anyhow::ensure!(
            self.head == HeadChoice::Random,
            "--student {model} contradicts --head teacher: a pretrained model keeps its own head where its classes are the \
             teacher's, and another model's does not fit it; leave out one of the two (in a recipe `student.model` and \
             `student.head`)"
        );
        Ok(())
    }

    /// The kind of model, where it is not a pretrained one.
    pub(crate) fn family(&self) -> StudentFamily {
        self.family.or(self.shape.map(Shape::family)).unwrap_or(StudentFamily::DistilBert)
    }

    /// As a run's record has it: nothing open, and neither path nor revision of a model, which its hash stands for.
    pub(crate) fn recorded(&self) -> Self {
        let family = if self.model.is_some() { None } else { Some(self.family()) };
        Self { model: None, revision: None, family, ..self.clone() }
    }

    /// How the pretrained model is found: a revision that is given for the run is the teacher's.
    pub(crate) fn hub(&self, run: &HubOptions) -> HubOptions {
        HubOptions { revision: self.revision.clone(), ..run.clone() }
    }

    /// Whether it starts from trained weights.
    pub(crate) fn trained(&self) -> bool {
        self.layers != LayerChoice::Random
    }

    /// Layers of the student, where they are given: by number, or by a list of those to start from.
    pub(crate) fn layer_count(&self) -> Option<usize> {
        let listed = match &self.layers {
            LayerChoice::Listed(listed) => Some(listed.len()),
            _ => None,
        };
        self.num_layers.or(listed)
    }

    /// The sizes that are given, by themselves or as a shape.
    pub(crate) fn sizes(&self) -> Sizes {
        let shape = self.shape.map(Shape::sizes).unwrap_or_default();
        Sizes {
            num_layers: self.layer_count().or(shape.num_layers),
            hidden_size: self.hidden_size.or(shape.hidden_size),
            num_heads: self.num_heads.or(shape.num_heads),
            intermediate_size: self.intermediate_size.or(shape.intermediate_size),
            bottleneck_size: self.bottleneck_size.or(shape.bottleneck_size),
            feed_forwards: self.stacks.or(shape.feed_forwards),
            embedding_size: self.embedding_size.or(shape.embedding_size),
        }
    }
}

/// The teacher layers that a student starts from. Written as it is typed, on the command line and in a recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) enum LayerChoice {
    /// Spread evenly over the teacher: student layer `i` of `S` starts as `round(i * (T - 1) / (S - 1))` of `T`.
    Uniform,
    /// The teacher's first layers.
    First,
    /// The teacher's last layers.
    Last,
    /// None: the student starts at random, in any size.
    Random,
    /// These, counted from 0, in the student's order.
    Listed(Vec<usize>),
}

impl FromStr for LayerChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "uniform" => Ok(Self::Uniform),
            "first" => Ok(Self::First),
            "last" => Ok(Self::Last),
            "random" => Ok(Self::Random),
            list => {
                list.split(',').map(|layer| layer.trim().parse().ok()).collect::<Option<_>>().map(Self::Listed).ok_or(
                    "must be one of uniform, first, last, random, or layer numbers from 0 such as 0,2,4".to_owned(),
                )
            }
        }
    }
}

impl fmt::Display for LayerChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::First => f.write_str("first"),
            Self::Last => f.write_str("last"),
            Self::Random => f.write_str("random"),
            Self::Listed(layers) => {
                let layers: Vec<String> = layers.iter().map(usize::to_string).collect();
                f.write_str(&layers.join(","))
            }
        }
    }
}

impl TryFrom<String> for LayerChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<LayerChoice> for String {
    fn from(choice: LayerChoice) -> Self {
        choice.to_string()
    }
}

/// What a student's head starts from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HeadChoice {
    /// Nothing.
    #[default]
    Random,
    /// The teacher's head; see [`student::start::copy_head`].
    Teacher,
}

impl HeadChoice {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Random, Self::Teacher];

    /// The word for it on the command line and in a recipe.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Teacher => "teacher",
        }
    }
}

impl fmt::Display for HeadChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_choices_read_back_as_written() {
        for text in ["uniform", "first", "last", "random", "3", "0,2,4"] {
            assert_eq!(text.parse::<LayerChoice>().expect("parses").to_string(), text);
        }
        assert_eq!("0, 2 ,4".parse(), Ok(LayerChoice::Listed(vec![0, 2, 4])));
        for text in ["", "0,,2", "1,-2", "Uniform", "0,2,"] {
            assert!(text.parse::<LayerChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_layer_choice_is_a_string_in_a_recipe() {
        let json = serde_json::to_string(&LayerChoice::Listed(vec![1, 3])).expect("serialises");
        assert_eq!(json, "\"1,3\"");
        assert_eq!(serde_json::from_str::<LayerChoice>(&json).expect("reads"), LayerChoice::Listed(vec![1, 3]));
        assert!(serde_json::from_str::<LayerChoice>("\"middle\"").is_err());
    }

    #[test]
    fn a_student_is_looked_up_at_its_own_revision() {
        let run = HubOptions { revision: Some("teachers".to_owned()), offline: true };
        let named = |model: Option<&str>, revision: Option<&str>| StudentRecipe {
            model: model.map(str::to_owned),
            revision: revision.map(str::to_owned),
            ..StudentRecipe::DEFAULT
        };
        let found = named(Some("m"), Some("r1")).hub(&run);
        assert_eq!((found.revision.as_deref(), found.offline), (Some("r1"), true));
        assert_eq!(named(Some("m"), None).hub(&run).revision, None);
        let error = named(None, Some("r1")).check().expect_err("refused").to_string();
        assert!(error.contains("`student.revision` goes with `student.model`"), "{error}");
    }

    #[test]
    fn a_family_has_one_name_on_the_command_line_and_in_a_recipe() {
        for family in StudentFamily::ALL {
            assert_eq!(serde_json::to_value(family).expect("serialises"), family.name());
        }
    }
}
