//! Selects the hidden dimensions, attention heads and feed-forward neurons of a teacher from which a narrower student
//! is initialised.
//!
//! The selection uses only the magnitudes of weights, no data: a hidden dimension is scored by the weights that read
//! it, a head by its value weights times its part of the output projection, a neuron by its incoming times its outgoing
//! weights. This is structured pruning before distillation (Muralidharan et al., 2024), with weights instead of
//! activations.

use nn::{EncoderConfig, LayerSlot, Parameters, Slot};

/// The selected indices, each list in the teacher's order.
pub(crate) struct Selection {
    /// Hidden dimensions, the same in all layers.
    pub(crate) hidden: Vec<usize>,
    pub(crate) layers: Vec<LayerSelection>,
}

pub(crate) struct LayerSelection {
    /// Rows of query, key and value; whole heads.
    pub(crate) attention: Vec<usize>,
    /// Neurons of the feed-forward layers.
    pub(crate) neurons: Vec<usize>,
}

impl Selection {
    /// Selects everything where the sizes are equal, else the indices with the largest scores.
    pub(crate) fn new(
        config: &EncoderConfig,
        teacher_config: &EncoderConfig,
        teacher: &Parameters,
        layers: &[usize],
    ) -> Self {
        let size = teacher_config.head_size();
        let pick = |layer: usize| LayerSelection {
            attention: largest(&head_scores(teacher_config, teacher, layer), config.num_heads)
                .into_iter()
                .flat_map(|head| head * size..(head + 1) * size)
                .collect(),
            neurons: largest(&neuron_scores(teacher_config, teacher, layer), config.intermediate_size),
        };
        Self {
            hidden: largest(&hidden_scores(teacher_config, teacher, layers), config.hidden_size),
            layers: layers.iter().map(|&layer| pick(layer)).collect(),
        }
    }
}

/// The squared weights that read each hidden dimension, times the squared scale that the norm before gives it.
fn hidden_scores(config: &EncoderConfig, teacher: &Parameters, layers: &[usize]) -> Vec<f64> {
    use LayerSlot::*;
    let hidden = config.hidden_size;
    let mut scores = vec![0.0; hidden];
    for &layer in layers {
        let before = match layer {
            0 => teacher.get(Slot::EmbeddingNormWeight),
            _ => teacher.get(Slot::Layer(layer - 1, OutputNormWeight)),
        };
        let between = teacher.get(Slot::Layer(layer, AttentionNormWeight));
        for (part, scale) in
            [(QueryWeight, before), (KeyWeight, before), (ValueWeight, before), (IntermediateWeight, between)]
        {
            for row in teacher.get(Slot::Layer(layer, part)).chunks_exact(hidden) {
                for ((score, weight), scale) in scores.iter_mut().zip(row).zip(scale) {
                    *score += f64::from(weight * scale).powi(2);
                }
            }
        }
    }
    scores
}

fn head_scores(config: &EncoderConfig, teacher: &Parameters, layer: usize) -> Vec<f64> {
    let (hidden, size) = (config.hidden_size, config.head_size());
    let value = teacher.get(Slot::Layer(layer, LayerSlot::ValueWeight));
    let output = teacher.get(Slot::Layer(layer, LayerSlot::AttentionOutputWeight));
    let score = |head: usize| {
        let columns = head * size..(head + 1) * size;
        let values: f64 = value[columns.start * hidden..columns.end * hidden].iter().map(square).sum();
        let outputs: f64 = output.chunks_exact(hidden).flat_map(|row| &row[columns.clone()]).map(square).sum();
        values * outputs
    };
    (0..config.num_heads).map(score).collect()
}

fn neuron_scores(config: &EncoderConfig, teacher: &Parameters, layer: usize) -> Vec<f64> {
    let ingoing = teacher.get(Slot::Layer(layer, LayerSlot::IntermediateWeight));
    let outgoing = teacher.get(Slot::Layer(layer, LayerSlot::OutputWeight));
    let mut out = vec![0.0; config.intermediate_size];
    for row in outgoing.chunks_exact(config.intermediate_size) {
        out.iter_mut().zip(row).for_each(|(sum, weight)| *sum += square(weight));
    }
    let rows = ingoing.chunks_exact(config.hidden_size);
    rows.zip(out).map(|(row, out)| row.iter().map(square).sum::<f64>() * out).collect()
}

fn square(value: &f32) -> f64 {
    f64::from(*value).powi(2)
}

/// The indices of the `count` largest scores, ascending; of equal scores the first.
fn largest(scores: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(count);
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use nn::{Family, Layout};

    fn config(hidden: usize, heads: usize, intermediate: usize) -> EncoderConfig {
        let json = serde_json::json!({"model_type": "bert", "vocab_size": 20, "hidden_size": hidden,
            "num_hidden_layers": 2, "num_attention_heads": heads, "intermediate_size": intermediate,
            "max_position_embeddings": 8});
        nn::hf::read_config(&json).expect("a BERT").encoder
    }

    #[test]
    fn equal_sizes_select_everything() {
        let config = config(12, 3, 10);
        let teacher = Parameters::random(Layout::new(&config), 0, 1);
        let all = Selection::new(&config, &config, &teacher, &[0, 1]);
        assert_eq!(all.hidden, (0..12).collect::<Vec<_>>());
        assert_eq!(all.layers[1].attention, (0..12).collect::<Vec<_>>());
        assert_eq!(all.layers[0].neurons, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_zero_in_the_teacher_is_left_out() {
        let (wide, narrow) = (config(12, 3, 10), config(8, 2, 6));
        let mut teacher = Parameters::random(Layout::new(&wide), 0, 1);
        // Head 1 of layer 0 writes nothing, neuron 4 of layer 1 neither, and no layer reads dimensions 2, 3, 5, 11.
        for row in teacher.get_mut(Slot::Layer(0, LayerSlot::AttentionOutputWeight)).chunks_exact_mut(12) {
            row[4..8].fill(0.0);
        }
        for row in teacher.get_mut(Slot::Layer(1, LayerSlot::OutputWeight)).chunks_exact_mut(10) {
            row[4] = 0.0;
        }
        for layer in 0..2 {
            use LayerSlot::*;
            for part in [QueryWeight, KeyWeight, ValueWeight, IntermediateWeight] {
                for row in teacher.get_mut(Slot::Layer(layer, part)).chunks_exact_mut(12) {
                    [2, 3, 5, 11].into_iter().for_each(|dimension| row[dimension] = 0.0);
                }
            }
        }
        let selection = Selection::new(&narrow, &wide, &teacher, &[0, 1]);
        assert_eq!(selection.hidden, [0, 1, 4, 6, 7, 8, 9, 10]);
        assert_eq!(selection.layers[0].attention, [0, 1, 2, 3, 8, 9, 10, 11]);
        assert!(!selection.layers[1].neurons.contains(&4));

        let student = crate::start::from_teacher(&narrow, &wide, &teacher, &[0, 1], 3).expect("fits");
        let word = |row: usize, column: usize| teacher.get(Slot::WordEmbeddings)[row * 12 + column];
        assert_eq!(student.get(Slot::WordEmbeddings)[7 * 8 + 2], word(7, 4));
        let query = teacher.get(Slot::Layer(0, LayerSlot::QueryWeight));
        assert_eq!(student.get(Slot::Layer(0, LayerSlot::QueryWeight))[4 * 8 + 3], query[8 * 12 + 6]);
        assert_eq!(narrow.family, Family::BERT);
    }
}
