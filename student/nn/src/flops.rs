//! How many floating-point operations the matrix products of a pass take, counted from the lengths of its rows.
//!
//! Of models with a classification head; a masked-language model's would need the number of tokens that its head reads.
//!
//! A multiply and an add are two operations; everything that is no matrix product is left out, as is usual. Two counts:
//! what an engine of this crate really does, and what is conventionally quoted for a whole model. With `T` tokens in `B`
//! rows of lengths `L`, `Q` the sum of `L^2`, sizes `h` (hidden), `i` (intermediate), `e` (embedding), `K` classes and
//! `n` layers:
//!
//! | forward pass | done | conventional |
//! |---|---|---|
//! | embedding projection, where there is one | `2 T e h` | the same |
//! | each layer but the last: linear maps | `2 T (4 h^2 + 2 h i)` | the same |
//! | and attention, scores and weighted values | `4 h Q` | the same |
//! | the last layer: linear maps | `4 T h^2` (keys, values) `+ 2 B (2 h^2 + 2 h i)` | as each other |
//! | and attention, one query a row | `4 h T` | as each other |
//! | head | `2 B (h^2 + h K)` | the same |
//!
//! A training step is three forward passes by convention. What is really done in a backward pass is two products for
//! each linear map (gradients of its input and of its weight) and five for attention's two, since the scores are
//! computed again.

use crate::EncoderConfig;

/// Operations of some work, by both counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flops {
    /// In the products that are done.
    pub done: u64,
    /// In the whole model: every token in every layer, and nothing computed twice.
    pub conventional: u64,
}

impl Flops {
    /// Of a forward pass over rows of these lengths that returns the logits alone.
    pub fn forward(config: &EncoderConfig, lengths: impl IntoIterator<Item = usize>) -> Self {
        Products::of(config, lengths).forward()
    }

    /// Of a training step over rows of these lengths: forward and backward.
    pub fn training(config: &EncoderConfig, lengths: impl IntoIterator<Item = usize>) -> Self {
        let products = Products::of(config, lengths);
        Self {
            done: 3 * products.linear + products.attention / 2 * 7,
            conventional: 3 * products.forward().conventional,
        }
    }
}

/// Operations of a forward pass by kind.
struct Products {
    linear: u64,
    attention: u64,
    /// What the last layer leaves out.
    spared: u64,
}

impl Products {
    fn of(config: &EncoderConfig, lengths: impl IntoIterator<Item = usize>) -> Self {
        let (mut rows, mut tokens, mut pairs) = (0, 0, 0);
        for length in lengths {
            let length = length as u64;
            rows += 1;
            tokens += length;
            pairs += length * length;
        }
        let (h, i) = (config.hidden_size as u64, config.intermediate_size as u64);
        let whole_linear = 2 * tokens * (4 * h * h + 2 * h * i);
        let whole_attention = 4 * h * pairs;
        let last_linear = 4 * tokens * h * h + 2 * rows * (2 * h * h + 2 * h * i);
        let last_attention = 4 * h * tokens;
        let projection = if config.projects_embeddings() { 2 * tokens * config.embedding_size as u64 * h } else { 0 };
        let head = 2 * rows * (h * h + h * config.num_labels as u64);
        let layers = config.num_layers as u64 - 1;
        Self {
            linear: projection + layers * whole_linear + last_linear + head,
            attention: layers * whole_attention + last_attention,
            spared: whole_linear - last_linear + whole_attention - last_attention,
        }
    }

    fn forward(&self) -> Flops {
        let done = self.linear + self.attention;
        Flops { done, conventional: done + self.spared }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::counted;
    use crate::{Capture, DropoutRng, Encoder, Gradients, Layout, Mode, PackedInput, Parameters};

    fn config(json: serde_json::Value) -> EncoderConfig {
        crate::hf::read_config(&json).expect("a model").encoder
    }

    fn bert(layers: usize) -> EncoderConfig {
        config(
            serde_json::json!({"model_type": "bert", "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": layers,
            "num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 32}),
        )
    }

    /// The formula against the products that the engine asks for.
    fn counts_are_the_engines(config: &EncoderConfig) {
        let lengths = [7, 1, 12, 3];
        let starts: Vec<u32> = [0, 7, 8, 20, 23].into();
        let input = PackedInput { input_ids: &[5; 23], token_type_ids: &[0; 23], starts: &starts, positions: None };
        let layout = Layout::new(config);
        let parameters = Parameters::random(layout.clone(), 0, 1);
        let mut gradients = Gradients::zeros(layout);
        let mut encoder = Encoder::new(config).expect("valid");
        let forward = counted(|| {
            encoder.forward(&parameters, input, Capture::LOGITS, Mode::Eval).expect("forward");
        });
        assert_eq!(forward, Flops::forward(config, lengths).done);
        let training = counted(|| {
            let rng = DropoutRng::new(1, 0, 0);
            let output = encoder.forward(&parameters, input, Capture::LOGITS, Mode::Train(&rng)).expect("forward");
            encoder.backward(&parameters, &vec![0.1; output.logits.len()], &mut gradients).expect("backward");
        });
        assert_eq!(training, Flops::training(config, lengths).done);
    }

    #[test]
    fn done_is_what_the_engine_asks_for() {
        counts_are_the_engines(&bert(1));
        counts_are_the_engines(&bert(3));
        counts_are_the_engines(&config(serde_json::json!({"model_type": "electra", "vocab_size": 50,
            "embedding_size": 16, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
            "intermediate_size": 40, "max_position_embeddings": 32})));
    }

    #[test]
    fn conventional_is_the_whole_model() {
        let (h, i, classes, layers) = (24, 40, 2, 3);
        let (rows, tokens, pairs) = (2, 5 + 8, 25 + 64);
        let layer = 2 * tokens * (4 * h * h + 2 * h * i) + 4 * h * pairs;
        let expected = layers * layer + 2 * rows * (h * h + h * classes);
        assert_eq!(Flops::forward(&bert(3), [5, 8]).conventional, expected);
        assert_eq!(Flops::training(&bert(3), [5, 8]).conventional, 3 * expected);
    }
}
