//! Values of flags: each is checked as it is read, so that a bad one is refused before any work starts.

use clap::ValueEnum;
use nn::Family;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

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

/// Where to compute, as asked for; what the machine has is looked up later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) enum DeviceChoice {
    /// A GPU where there is one that can be used, the CPU otherwise.
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA GPU of this number, from 0.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => (text.strip_prefix("cuda:").and_then(|number| number.parse().ok()).map(Self::Cuda))
                .ok_or("must be auto, cpu or cuda:N with N from 0".to_owned()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

/// The number formats to compute in, as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lowercase")]
pub(crate) enum PrecisionChoice {
    /// bf16 on a GPU, f32 on the CPU
    Auto,
    /// Everything in f32
    F32,
    /// f32 whose matrix products read 10 bits of the mantissa; GPU alone
    Tf32,
    /// bf16 with f32 weights and sums; GPU alone
    Bf16,
}

/// What a model is to tell of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TaskChoice {
    /// Which of several classes it belongs to
    SingleLabel,
    /// What stood at tokens that are masked
    MaskedLm,
}

/// The number format of stored logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lowercase")]
pub(crate) enum StoredDtype {
    /// As they were computed
    F32,
    /// 11 significant bits
    F16,
    /// 8 significant bits
    Bf16,
}

impl From<StoredDtype> for cache::Dtype {
    fn from(dtype: StoredDtype) -> Self {
        match dtype {
            StoredDtype::F32 => Self::F32,
            StoredDtype::F16 => Self::F16,
            StoredDtype::Bf16 => Self::Bf16,
        }
    }
}

/// What kind of model a student is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub(crate) enum StudentFamily {
    /// No token types and no pooler
    #[default]
    DistilBert,
    /// As its teacher: what a smaller teacher is made as
    Bert,
    /// Thin layers with a bottleneck
    MobileBert,
}

impl StudentFamily {
    pub(crate) fn family(self) -> Family {
        match self {
            Self::DistilBert => Family::DISTILBERT,
            Self::Bert => Family::BERT,
            Self::MobileBert => Family::MOBILEBERT,
        }
    }
}

/// Which state of the model a training keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Keep {
    /// The one with the best accuracy on the validation rows; the earlier of two equals
    Best,
    /// The one at the end of the last epoch
    Last,
}

/// The number format of exported weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExportDtype {
    /// 4 bytes a weight: the same logits as the run
    F32,
    /// 2 bytes a weight, 11 bits of precision
    F16,
    /// 2 bytes a weight, 8 bits of precision, the range of f32
    Bf16,
}

impl fmt::Display for ExportDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

/// One `--set key=value`: a dotted key of the recipe and the TOML value, or bare string, to put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Dotted path into the recipe, such as `train.learning_rate`.
    pub(crate) key: String,
    /// What to put there, as typed.
    pub(crate) value: String,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("must be key=value")?;
        let (key, value) = (key.trim(), value.trim());
        if key.split('.').any(str::is_empty) {
            return Err("must be key=value with a key such as train.learning_rate".to_owned());
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

/// A finite number above 0.
pub(super) fn above_zero(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0 && value.is_finite(), "must be a number above 0")
}

/// A finite number, 0 or more.
pub(super) fn zero_or_more(text: &str) -> Result<f64, String> {
    number(text, |value| value >= 0.0 && value.is_finite(), "must be 0 or more")
}

/// A number from 0 to 1.
pub(super) fn fraction(text: &str) -> Result<f64, String> {
    number(text, |value| (0.0..=1.0).contains(&value), "must be from 0 to 1")
}

/// A number above 0, up to 1.
pub(super) fn part(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0 && value <= 1.0, "must be above 0, and at most 1")
}

/// A number from 0 up to, but not, 1.
pub(super) fn probability(text: &str) -> Result<f64, String> {
    number(text, |value| (0.0..1.0).contains(&value), "must be from 0 to below 1")
}

/// A whole number, 1 or more.
pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    (text.parse().ok()).filter(|&count| count >= 1).ok_or("must be a whole number, at least 1".to_owned())
}

/// A whole number, 3 or more: what a text needs between its two special tokens.
pub(super) fn at_least_three(text: &str) -> Result<usize, String> {
    (text.parse().ok())
        .filter(|&count| count >= 3)
        .ok_or("must be a whole number, at least 3: one token between two special ones".to_owned())
}

fn number(text: &str, allowed: impl Fn(f64) -> bool, otherwise: &str) -> Result<f64, String> {
    (text.parse().ok()).filter(|&value| allowed(value)).ok_or_else(|| otherwise.to_owned())
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
    fn devices_read_back_as_written() {
        for text in ["auto", "cpu", "cuda:0", "cuda:12"] {
            assert_eq!(text.parse::<DeviceChoice>().expect("parses").to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for text in ["cuda:", "cuda:-1", "CPU", ""] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_setting_splits_at_its_first_equals_sign() {
        let setting: Setting = "train.note = a=b".parse().expect("parses");
        assert_eq!((setting.key.as_str(), setting.value.as_str()), ("train.note", "a=b"));
        for text in ["train", "=3", "train..epochs=3", ".=1"] {
            assert!(text.parse::<Setting>().is_err(), "{text}");
        }
    }
}
