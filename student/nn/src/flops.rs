//! Counts the floating-point operations (FLOPs) of the matrix products of a pass, from the program and the lengths of
//! the rows.
//!
//! Only for models with a classification head; for a masked-language model the number of tokens that its head reads
//! would be needed.
//!
//! A multiply and an add are two operations; everything but matrix products is left out, as usual. There are two
//! counts: what the engines of this crate actually compute, which is the program reduced to what the logits need, and
//! what is conventionally quoted for a model, which is every token in every layer. A linear map is `2 rows inner
//! outer`, attention is `4 width` for each pair of query and key.
//!
//! By convention a training step counts as three forward passes. What is actually computed in a backward pass is two
//! products for each linear map (gradients of its input and of its weight), and five for attention's two, since the
//! scores are recomputed.

use crate::EncoderConfig;
use crate::op::{Lengths, Products};
use crate::value::Tap;

/// A number of floating-point operations, by both counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flops {
    /// In the products that are actually computed.
    pub done: u64,
    /// In the full model: every token in every layer, with nothing recomputed.
    pub conventional: u64,
}

impl Flops {
    /// A forward pass over rows of these lengths that computes only the logits.
    pub fn forward(config: &EncoderConfig, lengths: impl IntoIterator<Item = usize>) -> Self {
        let [done, whole] = products(config, lengths);
        Self { done: done.linear + done.attention, conventional: whole.linear + whole.attention }
    }

    /// A training step over rows of these lengths: forward and backward.
    pub fn training(config: &EncoderConfig, lengths: impl IntoIterator<Item = usize>) -> Self {
        let [done, whole] = products(config, lengths);
        Self { done: 3 * done.linear + done.attention / 2 * 7, conventional: 3 * (whole.linear + whole.attention) }
    }
}

/// Of the pass that makes the logits alone, and of the whole model.
fn products(config: &EncoderConfig, lengths: impl IntoIterator<Item = usize>) -> [Products; 2] {
    let counts = Lengths::of(lengths);
    let whole = config.program();
    // A program without logits has nothing to count.
    let done = whole.demanded(&[Tap::Logits], false).unwrap_or_default();
    [done, whole].map(|program| {
        let mut products = Products::default();
        program.ops.iter().for_each(|op| products += op.products(program.values[op.out.0], &counts));
        products
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::product::counted;
    use crate::hf::HfConfig;
    use crate::{DropoutRng, Layout, Mode, Model, PackedInput, Parameters};

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
        let parameters = Parameters::random(Layout::new(config), 0, 1);
        let mut model =
            Model::new(HfConfig { encoder: config.clone(), labels: Vec::new() }, parameters).expect("valid");
        let forward = counted(|| {
            model.logits(input).expect("forward");
        });
        assert_eq!(forward, Flops::forward(config, lengths).done);
        let training = counted(|| {
            let rng = DropoutRng::new(1, 0, 0);
            let mut pass = model.forward(input, &[Tap::Logits], Mode::Train(&rng)).expect("forward");
            let logits = model.read(&mut pass, Tap::Logits).expect("logits");
            pass.enter(Tap::Logits, vec![0.1; logits.len()]).expect("enter");
            model.backward(pass).expect("backward");
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
