//! Cuts a model's word embeddings to the pieces that a pruned tokenizer keeps.
//!
//! Rows are only moved, so on texts made of kept pieces every output is the same, bit for bit.

use nn::hf::HfConfig;
use nn::{EncoderConfig, Layout, Parameters, Slot};

/// The model with a smaller vocabulary: `kept[i]` is the old id of the new id `i`.
///
/// `None` if an id is beyond the vocabulary or the padding token is not kept.
pub fn prune(config: &HfConfig, parameters: &Parameters, kept: &[u32]) -> Option<(HfConfig, Parameters)> {
    let old = &config.encoder;
    let pruned = HfConfig { encoder: prune_config(old, kept)?, labels: config.labels.clone() };
    let mut weights = Parameters::zeros(Layout::new(&pruned.encoder));
    for entry in weights.layout().clone().entries() {
        let (to, from) = (weights.get_mut(entry.slot), parameters.get(entry.slot));
        // What has a row for each piece: the table, and the output bias of a masked-language model.
        if let Slot::WordEmbeddings | Slot::LmOutputBias = entry.slot {
            let width = if entry.slot == Slot::WordEmbeddings { old.embedding_size } else { 1 };
            for (row, &id) in to.chunks_exact_mut(width).zip(kept) {
                row.copy_from_slice(&from[id as usize * width..(id as usize + 1) * width]);
            }
        } else if entry.slot == Slot::LmRestWeight {
            for (row, from) in to.chunks_exact_mut(kept.len()).zip(from.chunks_exact(old.vocab_size)) {
                row.iter_mut().zip(kept).for_each(|(value, &id)| *value = from[id as usize]);
            }
        } else {
            to.copy_from_slice(from);
        }
    }
    Some((pruned, weights))
}

/// The configuration of the model with a smaller vocabulary; `None` under the same conditions as [`prune`].
pub fn prune_config(config: &EncoderConfig, kept: &[u32]) -> Option<EncoderConfig> {
    if kept.iter().any(|&id| id as usize >= config.vocab_size) {
        return None;
    }
    let pad_token_id = kept.iter().position(|&id| id as usize == config.pad_token_id)?;
    let pruned = EncoderConfig { vocab_size: kept.len(), pad_token_id, ..config.clone() };
    // RoBERTa counts positions from the padding index, which must therefore stay where it is.
    (pruned.position_offset() == config.position_offset()).then_some(pruned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nn::{Mode, Model, PackedInput, Tap};

    #[test]
    fn a_masked_language_model_says_the_same_of_the_kept_pieces() {
        let json = serde_json::json!({"model_type": "bert", "vocab_size": 50, "hidden_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 32});
        let mut thin = json.clone();
        thin["model_type"] = "mobilebert".into();
        // Hidden states wider than the embeddings: a part of the output matrix has a column for each piece.
        thin["embedding_size"] = 10.into();
        thin["intra_bottleneck_size"] = 12.into();
        for json in [json, thin] {
            says_the_same(&json);
        }
    }

    fn says_the_same(json: &serde_json::Value) {
        let config = nn::hf::read_config_for(json, nn::Head::MaskedLm).expect("a model");
        let mut parameters = Parameters::random(Layout::new(&config.encoder), 0, 9);
        nn::Normal::new(3, "bias", 1.0).fill(parameters.get_mut(Slot::LmOutputBias));
        let kept = [0, 3, 7, 8, 20, 49];
        let (pruned, weights) = prune(&config, &parameters, &kept).expect("ids of the vocabulary");
        let logits = |config: &HfConfig, parameters: &Parameters, input_ids: &[u32]| {
            let mut model = Model::new(config.clone(), parameters.clone()).expect("valid");
            let positions = Some([1, 4].as_slice());
            let input = PackedInput { input_ids, token_type_ids: &[0; 6], starts: &[0, 4, 6], positions };
            model.logits(input).expect("forward")
        };
        let before = logits(&config, &parameters, &[3, 49, 20, 8, 7, 3]);
        let after = logits(&pruned, &weights, &[1, 5, 4, 3, 2, 1]);
        let of_kept: Vec<f32> = before.chunks(50).flat_map(|row| kept.map(|id| row[id as usize])).collect();
        assert_eq!(after, of_kept);
    }

    #[test]
    fn outputs_do_not_change_by_a_bit() {
        let json = serde_json::json!({"model_type": "bert", "vocab_size": 50, "hidden_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 32});
        let config = nn::hf::read_config(&json).expect("a BERT");
        let parameters = Parameters::random(Layout::new(&config.encoder), 0, 9);
        let kept = [0, 3, 7, 8, 20, 49];
        let (pruned, weights) = prune(&config, &parameters, &kept).expect("ids of the vocabulary");
        let logits = |config: &HfConfig, parameters: &Parameters, input_ids: &[u32]| {
            let mut model = Model::new(config.clone(), parameters.clone()).expect("valid");
            let input = PackedInput { input_ids, token_type_ids: &[0; 6], starts: &[0, 4, 6], positions: None };
            let taps: Vec<Tap> = Tap::hidden_states(2).chain([Tap::Logits]).collect();
            let mut pass = model.forward(input, &taps, Mode::Eval).expect("forward");
            taps.into_iter().map(|tap| model.read(&mut pass, tap).expect("asked for")).collect::<Vec<_>>()
        };
        let before = logits(&config, &parameters, &[3, 49, 20, 8, 7, 3]);
        let after = logits(&pruned, &weights, &[1, 5, 4, 3, 2, 1]);
        assert_eq!(before, after);
        assert!(prune(&config, &parameters, &[3, 7]).is_none(), "without the padding piece");
        assert!(prune(&config, &parameters, &[0, 50]).is_none(), "beyond the vocabulary");
    }
}
