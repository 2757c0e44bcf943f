//! Student sizes that have a name: those of small models that others have published.

use std::fmt;

use serde::{Deserialize, Serialize};
use student::start::Sizes;

use super::StudentFamily;

/// A published student: its kind and its sizes. Vocabulary and positions are the teacher's, whatever was published.
///
/// - `tiny`, `mini`, `small`, `medium`: Turc et al. (2019), *Well-Read Students Learn Better*. 64-wide heads, feed-forward
///   parts four times as wide as the model.
/// - `distilbert`: Sanh et al. (2019), *DistilBERT, a distilled version of BERT*.
/// - `tinybert-4`, `tinybert-6`: Jiao et al. (2020), *TinyBERT: Distilling BERT for Natural Language Understanding*.
/// - `minilm-6x384`, `minilm-12x384`: Wang et al. (2020), *MiniLM: Deep Self-Attention Distillation*.
/// - `mobilebert`: Sun et al. (2020), *MobileBERT: a Compact Task-Agnostic BERT*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) enum Shape {
    Tiny,
    Mini,
    Small,
    Medium,
    DistilBert,
    TinyBert4,
    TinyBert6,
    MiniLm6x384,
    MiniLm12x384,
    MobileBert,
}

impl Shape {
    /// All of them, as published.
    pub(crate) const ALL: [Self; 10] = [
        Self::Tiny,
        Self::Mini,
        Self::Small,
        Self::Medium,
        Self::DistilBert,
        Self::TinyBert4,
        Self::TinyBert6,
        Self::MiniLm6x384,
        Self::MiniLm12x384,
        Self::MobileBert,
    ];

    /// The word for it on the command line and in a recipe.
    pub(crate) fn name(self) -> &'static str {
        self.row().0
    }

    pub(crate) fn family(self) -> StudentFamily {
        self.row().1
    }

    /// Every size that the kind of model has.
    pub(crate) fn sizes(self) -> Sizes {
        let (_, family, [num_layers, hidden_size, num_heads, intermediate_size]) = self.row();
        let thin = family == StudentFamily::MobileBert;
        Sizes {
            num_layers: Some(num_layers),
            hidden_size: Some(hidden_size),
            num_heads: Some(num_heads),
            intermediate_size: Some(intermediate_size),
            bottleneck_size: thin.then_some(128),
            feed_forwards: thin.then_some(4),
            embedding_size: None,
        }
    }

    /// Name, kind, and layers, width, heads, width of the feed-forward parts.
    #[rustfmt::skip]
    fn row(self) -> (&'static str, StudentFamily, [usize; 4]) {
        use StudentFamily::*;
        match self {
            Self::Tiny         => ("tiny",          Bert,       [ 2, 128,  2,  512]),
            Self::Mini         => ("mini",          Bert,       [ 4, 256,  4, 1024]),
            Self::Small        => ("small",         Bert,       [ 4, 512,  8, 2048]),
            Self::Medium       => ("medium",        Bert,       [ 8, 512,  8, 2048]),
            Self::DistilBert   => ("distilbert",    DistilBert, [ 6, 768, 12, 3072]),
            Self::TinyBert4    => ("tinybert-4",    Bert,       [ 4, 312, 12, 1200]),
            Self::TinyBert6    => ("tinybert-6",    Bert,       [ 6, 768, 12, 3072]),
            Self::MiniLm6x384  => ("minilm-6x384",  Bert,       [ 6, 384, 12, 1536]),
            Self::MiniLm12x384 => ("minilm-12x384", Bert,       [12, 384, 12, 1536]),
            Self::MobileBert   => ("mobilebert",    MobileBert, [24, 512,  4,  512]),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<String> for Shape {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name);
        let found = Self::ALL.into_iter().find(|shape| shape.name() == text);
        found.ok_or_else(|| format!("`{text}` is no shape; must be one of {}", names.join(", ")))
    }
}

impl From<Shape> for String {
    fn from(shape: Shape) -> Self {
        shape.name().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_has_one_name_on_the_command_line_and_in_a_recipe() {
        for shape in Shape::ALL {
            let json = serde_json::to_value(shape).expect("serialises");
            assert_eq!(json, shape.name());
            assert_eq!(serde_json::from_value::<Shape>(json).expect("reads back"), shape);
        }
        let error = serde_json::from_str::<Shape>("\"huge\"").expect_err("no such shape").to_string();
        assert!(error.contains("`huge` is no shape; must be one of tiny, mini"), "{error}");
    }

    /// The counts are those of `transformers` for each published model's encoder, without pooler and classifier, with the
    /// vocabulary of 30,522 and the 512 positions that all of them have.
    #[test]
    fn shapes_have_the_parameters_of_the_published_models() {
        let json = serde_json::json!({"model_type": "bert", "vocab_size": 30522, "hidden_size": 768,
            "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
            "max_position_embeddings": 512, "type_vocab_size": 2});
        let teacher = nn::hf::read_config(&json).expect("BERT").encoder;
        let published = [
            4_369_408, 11_104_768, 28_500_992, 41_110_528, 66_362_880, 14_252_592, 66_364_416, 22_565_376, 33_212_160,
            24_581_888,
        ];
        for (shape, published) in Shape::ALL.into_iter().zip(published) {
            let config = student::start::configure(shape.family().family(), &teacher, &shape.sizes(), 0.1);
            let config = config.expect("sizes fit each other");
            config.validate().expect("a model");
            let layout = nn::Layout::new(&config);
            let encoder = layout.entries().iter().filter(|entry| !nn::names::is_head(entry.slot));
            assert_eq!(encoder.map(|entry| entry.range.len()).sum::<usize>(), published, "{shape}");
        }
    }
}
