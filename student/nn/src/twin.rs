//! The plain twin: the same models stated in candle operators, one row at a time, with candle's autograd behind them.
//!
//! Nothing is fused or packed here. The engine is tested against it, values and gradients, with and without dropout.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::ops::softmax;

use crate::random::{DropoutRng, DropoutSite};
use crate::{Activation, EncoderConfig, Gradients, Head, LayerSlot, Mode, PackedInput, Parameters, Slot};

/// An encoder in candle operators.
pub struct Twin {
    config: EncoderConfig,
    parameters: Parameters,
    /// One a parameter, in the layout's order.
    vars: Vec<Var>,
}

/// What the twin's forward pass returns, with candle's graph behind it.
pub struct TwinOutput {
    /// `[B, num_labels]`, or `[P, vocabulary]` of a masked-language model
    pub logits: Tensor,
    /// `num_layers + 1` times `[T, hidden]`
    pub hidden_states: Vec<Tensor>,
}

impl Twin {
    /// The twin of an engine with these weights.
    pub fn new(config: &EncoderConfig, parameters: &Parameters) -> Result<Self> {
        let entries = parameters.layout().entries().iter();
        let vars = entries.map(|e| Var::from_slice(parameters.get(e.slot), e.shape.as_slice(), &Device::Cpu));
        Ok(Self { config: config.clone(), vars: vars.collect::<Result<_>>()?, parameters: parameters.clone() })
    }

    /// Runs the encoder and its head.
    pub fn forward(&self, input: PackedInput<'_>, mode: Mode<'_>) -> Result<TwinOutput> {
        let rng = match mode {
            Mode::Train(rng) => Some(rng),
            Mode::Eval => None,
        };
        let mut logits = Vec::new();
        let mut hidden_states = vec![Vec::new(); self.config.num_layers + 1];
        for (row, pair) in input.starts.windows(2).enumerate() {
            let (first, end) = (pair[0] as usize, pair[1] as usize);
            let masks = Masks { config: &self.config, rng, first, row };
            let states = self.encode(&input.input_ids[first..end], &input.token_type_ids[first..end], &masks)?;
            let last = &states[self.config.num_layers];
            match self.config.head {
                Head::Classification => logits.push(self.head(&last.narrow(0, 0, 1)?, &masks)?),
                Head::MaskedLm => {
                    let chosen = input
                        .positions
                        .unwrap_or_default()
                        .iter()
                        .filter(|&&token| (pair[0]..pair[1]).contains(&token));
                    let chosen: Vec<u32> = chosen.map(|token| token - pair[0]).collect();
                    if !chosen.is_empty() {
                        logits.push(self.lm_head(&last.index_select(&Tensor::new(chosen, &Device::Cpu)?, 0)?)?);
                    }
                }
            }
            for (all, state) in hidden_states.iter_mut().zip(states) {
                all.push(state);
            }
        }
        let hidden_states = hidden_states.iter().map(|states| Tensor::cat(states, 0)).collect::<Result<_>>()?;
        Ok(TwinOutput { logits: Tensor::cat(&logits, 0)?, hidden_states })
    }

    /// The gradients of a scalar in all parameters; an error names a parameter that none reaches.
    pub fn gradients(&self, loss: &Tensor) -> Result<Gradients> {
        let store = loss.backward()?;
        let mut gradients = Gradients::zeros(self.parameters.layout().clone());
        for (entry, var) in self.parameters.layout().entries().iter().zip(&self.vars) {
            let gradient =
                store.get(var).ok_or_else(|| candle_core::Error::Msg(format!("no gradient in {}", entry.name)))?;
            let values = gradient.flatten_all()?.to_vec1::<f32>()?;
            gradients.flat_mut()[entry.range.clone()].copy_from_slice(&values);
        }
        Ok(gradients)
    }

    fn get(&self, slot: Slot) -> &Tensor {
        let position = self.parameters.layout().entries().iter().position(|entry| entry.slot == slot);
        &self.vars[position.unwrap_or_else(|| panic!("{slot:?} is not in this layout"))]
    }

    /// `[L]` tokens to `num_layers + 1` hidden states `[L, hidden]`.
    fn encode(&self, input_ids: &[u32], token_type_ids: &[u32], masks: &Masks<'_>) -> Result<Vec<Tensor>> {
        let config = &self.config;
        let length = input_ids.len();
        let lookup = |slot, ids: &[u32]| self.get(slot).index_select(&Tensor::new(ids, &Device::Cpu)?, 0);
        let offset = config.position_offset() as u32;
        let positions: Vec<u32> = (offset..offset + length as u32).collect();
        let mut sum = (lookup(Slot::WordEmbeddings, input_ids)? + lookup(Slot::PositionEmbeddings, &positions)?)?;
        if config.type_vocab_size > 0 {
            sum = (sum + lookup(Slot::TypeEmbeddings, token_type_ids)?)?;
        }
        let normed = self.norm(&sum, Slot::EmbeddingNormWeight, Slot::EmbeddingNormBias)?;
        let mut x = masks.apply(&normed, 1 << 32, config.hidden_dropout, masks.first * config.embedding_size)?;
        if config.projects_embeddings() {
            x = self.linear(&x, Slot::EmbeddingProjectionWeight, Slot::EmbeddingProjectionBias)?;
        }
        let mut states = vec![x.clone()];
        for layer in 0..config.num_layers {
            x = self.layer(&x, layer, masks)?;
            states.push(x.clone());
        }
        Ok(states)
    }

    fn layer(&self, x: &Tensor, layer: usize, masks: &Masks<'_>) -> Result<Tensor> {
        use LayerSlot::*;
        let config = &self.config;
        let slot = |part| Slot::Layer(layer, part);
        let (length, heads, size) = (x.dim(0)?, config.num_heads, config.head_size());
        // [L, hidden] to [heads, L, size]
        let split = |t: Tensor| t.reshape((length, heads, size))?.transpose(0, 1)?.contiguous();
        let query = split(self.linear(x, slot(QueryWeight), slot(QueryBias))?)?;
        let key = split(self.linear(x, slot(KeyWeight), slot(KeyBias))?)?;
        let value = split(self.linear(x, slot(ValueWeight), slot(ValueBias))?)?;
        let scores = (query.matmul(&key.transpose(1, 2)?.contiguous()?)? / (size as f64).sqrt())?;
        let probabilities = masks.apply_attention(&softmax(&scores, D::Minus1)?, layer)?;
        let context = probabilities.matmul(&value)?.transpose(0, 1)?.contiguous()?.reshape((length, heads * size))?;
        let first = masks.first * config.hidden_size;
        let site = layer as u64 * 4;
        let branch = self.linear(&context, slot(AttentionOutputWeight), slot(AttentionOutputBias))?;
        let branch = masks.apply(&branch, site + 1, config.attention_output_dropout(), first)?;
        let x = self.norm(&(branch + x)?, slot(AttentionNormWeight), slot(AttentionNormBias))?;
        let inner = self.linear(&x, slot(IntermediateWeight), slot(IntermediateBias))?;
        let branch = self.linear(&activate(config.activation, &inner)?, slot(OutputWeight), slot(OutputBias))?;
        let branch = masks.apply(&branch, site + 2, config.hidden_dropout, first)?;
        self.norm(&(branch + x)?, slot(OutputNormWeight), slot(OutputNormBias))
    }

    /// `[1, hidden]` to `[1, num_labels]`.
    fn head(&self, x: &Tensor, masks: &Masks<'_>) -> Result<Tensor> {
        let config = &self.config;
        let first = masks.row * config.hidden_size;
        let x = masks.apply(x, (1 << 32) + 1, config.head_input_dropout(), first)?;
        let x = activate(config.head_activation(), &self.linear(&x, Slot::HeadDenseWeight, Slot::HeadDenseBias)?)?;
        let x = masks.apply(&x, (1 << 32) + 2, config.classifier_dropout, first)?;
        self.linear(&x, Slot::HeadOutputWeight, Slot::HeadOutputBias)
    }

    /// `[P, hidden]` to `[P, vocabulary]`.
    fn lm_head(&self, x: &Tensor) -> Result<Tensor> {
        let x = activate(self.config.lm_activation(), &self.linear(x, Slot::LmDenseWeight, Slot::LmDenseBias)?)?;
        let x = self.norm(&x, Slot::LmNormWeight, Slot::LmNormBias)?;
        self.linear(&x, Slot::WordEmbeddings, Slot::LmOutputBias)
    }

    fn linear(&self, x: &Tensor, weight: Slot, bias: Slot) -> Result<Tensor> {
        x.matmul(&self.get(weight).t()?)?.broadcast_add(self.get(bias))
    }

    // candle_nn's own layer norm drops gradients; this one is made of operators that have them.
    fn norm(&self, x: &Tensor, weight: Slot, bias: Slot) -> Result<Tensor> {
        let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
        let normalized = centered.broadcast_div(&(variance + f64::from(self.config.layer_norm_epsilon))?.sqrt()?)?;
        normalized.broadcast_mul(self.get(weight))?.broadcast_add(self.get(bias))
    }
}

fn activate(activation: Activation, x: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluNew => x.gelu(),
        Activation::Relu => x.relu(),
        Activation::Tanh => x.tanh(),
    }
}

/// The engine's dropout masks for one row.
struct Masks<'a> {
    config: &'a EncoderConfig,
    rng: Option<&'a DropoutRng>,
    /// The row's first token and its index in the batch.
    first: usize,
    row: usize,
}

impl Masks<'_> {
    fn site(&self, site: u64, rate: f32) -> Option<DropoutSite> {
        self.rng.and_then(|rng| rng.site(site, rate))
    }

    /// Masks `[rows, width]` elements numbered row by row from `first`.
    fn apply(&self, x: &Tensor, site: u64, rate: f32, first: usize) -> Result<Tensor> {
        let Some(site) = self.site(site, rate) else { return Ok(x.clone()) };
        let mask: Vec<f32> = (first..first + x.elem_count()).map(|element| site.factor(element as u32)).collect();
        x.mul(&Tensor::from_vec(mask, x.shape(), x.device())?)
    }

    /// Masks attention probabilities `[heads, L, L]`.
    fn apply_attention(&self, x: &Tensor, layer: usize) -> Result<Tensor> {
        let Some(site) = self.site(layer as u64 * 4, self.config.attention_dropout) else { return Ok(x.clone()) };
        let (heads, length, _) = x.dims3()?;
        let mut mask = Vec::with_capacity(x.elem_count());
        for head in 0..heads {
            for query in 0..length {
                let element = ((self.first + query) * heads + head) * self.config.max_length();
                mask.extend((0..length).map(|key| site.factor((element + key) as u32)));
            }
        }
        x.mul(&Tensor::from_vec(mask, x.shape(), x.device())?.to_dtype(DType::F32)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Capture, Encoder, Family, Layout, Normal};

    fn config(family: Family, activation: Activation, dropout: f32) -> EncoderConfig {
        EncoderConfig {
            family,
            head: Head::Classification,
            vocab_size: 50,
            embedding_size: if family == Family::Electra { 16 } else { 24 },
            hidden_size: 24,
            num_layers: 3,
            num_heads: 3,
            intermediate_size: 40,
            max_positions: 64,
            pad_token_id: 0,
            type_vocab_size: if family == Family::DistilBert { 0 } else { 2 },
            layer_norm_epsilon: 1e-12,
            activation,
            hidden_dropout: dropout,
            attention_dropout: dropout,
            classifier_dropout: dropout,
            num_labels: 5,
        }
    }

    /// Largest difference between two slices, as a share of the second's largest value.
    fn distance(a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        let scale = b.iter().fold(1e-6f32, |scale, value| scale.max(value.abs()));
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / scale
    }

    /// Engine and twin on rows of these lengths, with weights far from zero.
    fn check(config: &EncoderConfig, lengths: &[usize]) {
        let layout = Layout::new(config);
        let mut parameters = Parameters::zeros(layout.clone());
        for entry in layout.entries() {
            let norm = entry.name.ends_with("orm.weight");
            let values = parameters.get_mut(entry.slot);
            Normal::new(3, &entry.name, if norm { 0.1 } else { 0.2 }).fill(values);
            values.iter_mut().for_each(|value| *value += if norm { 1.0 } else { 0.0 });
        }
        let mut starts = vec![0];
        for length in lengths {
            starts.push(starts[starts.len() - 1] + *length as u32);
        }
        let tokens = starts[starts.len() - 1];
        let input_ids: Vec<u32> = (0..tokens).map(|i| (i * 7 + i / 11) % 50).collect();
        let token_type_ids: Vec<u32> = (0..tokens).map(|i| (i / 5) % 2).collect();
        // Every third token and its neighbour: rows with several, rows of one token with one or none.
        let positions: Vec<u32> = (0..tokens).filter(|token| token % 3 != 2).collect();
        let positions = (config.head == Head::MaskedLm).then_some(positions.as_slice());
        let input = PackedInput { input_ids: &input_ids, token_type_ids: &token_type_ids, starts: &starts, positions };
        let mut d_logits = vec![0.0; positions.map_or(lengths.len(), <[u32]>::len) * config.outputs()];
        Normal::new(5, "d_logits", 1.0).fill(&mut d_logits);

        let rng = DropoutRng::new(1, 2, 3);
        let mut engine = Encoder::new(config).expect("a valid configuration");
        let all = engine.forward(&parameters, input, Capture::HIDDEN_STATES, Mode::Eval).expect("forward");
        let twin = Twin::new(config, &parameters).expect("a twin");
        let plain = twin.forward(input, Mode::Eval).expect("the twin's forward");
        for (layer, (engine, twin)) in all.hidden_states.iter().zip(&plain.hidden_states).enumerate() {
            let twin = twin.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("values");
            // Measured: at most 1.6e-6.
            assert!(distance(engine, &twin) < 5e-6, "hidden state {layer}: {:e}", distance(engine, &twin));
        }
        let first_tokens = engine.forward(&parameters, input, Capture::LOGITS, Mode::Eval).expect("forward");
        // Measured: at most 6.4e-7; 6.9e-6 behind the norm of a masked-language-model head.
        let tolerance = if config.head == Head::MaskedLm { 2e-5 } else { 5e-6 };
        assert!(distance(&first_tokens.logits, &all.logits) < tolerance);

        let output = engine.forward(&parameters, input, Capture::LOGITS, Mode::Train(&rng)).expect("forward");
        let plain = twin.forward(input, Mode::Train(&rng)).expect("the twin's forward");
        let logits = plain.logits.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("values");
        assert!(distance(&output.logits, &logits) < tolerance, "logits: {:e}", distance(&output.logits, &logits));

        let mut gradients = Gradients::zeros(layout.clone());
        engine.backward(&parameters, &d_logits, &mut gradients).expect("backward");
        let weights = Tensor::from_vec(d_logits, plain.logits.shape(), &Device::Cpu).expect("weights");
        let loss = plain.logits.mul(&weights).and_then(|t| t.sum_all()).expect("loss");
        let expected = twin.gradients(&loss).expect("the twin's gradients");
        for entry in layout.entries() {
            let (ours, theirs) = (gradients.get(entry.slot), expected.get(entry.slot));
            if matches!(entry.slot, Slot::Layer(_, LayerSlot::KeyBias)) {
                // Zero by the mathematics: only rounding is left.
                assert!(ours.iter().all(|g| g.abs() < 1e-3), "{}", entry.name);
                continue;
            }
            // Measured: at most 8e-6.
            assert!(distance(ours, theirs) < 2.5e-5, "{}: {:e}", entry.name, distance(ours, theirs));
        }
    }

    #[test]
    fn engine_equals_twin_in_every_family() {
        for family in [Family::Bert, Family::Roberta, Family::Electra, Family::DistilBert] {
            check(&config(family, Activation::Gelu, 0.0), &[3, 17, 1, 8]);
        }
    }

    #[test]
    fn engine_equals_twin_with_dropout() {
        for family in [Family::Bert, Family::Roberta, Family::Electra, Family::DistilBert] {
            check(&config(family, Activation::Gelu, 0.2), &[3, 17, 1, 8]);
        }
    }

    fn masked_lm(family: Family, activation: Activation, dropout: f32) -> EncoderConfig {
        EncoderConfig { head: Head::MaskedLm, num_labels: 0, ..config(family, activation, dropout) }
    }

    #[test]
    fn engine_equals_twin_as_a_masked_language_model() {
        for family in [Family::Bert, Family::Roberta, Family::DistilBert] {
            for dropout in [0.0, 0.2] {
                check(&masked_lm(family, Activation::Gelu, dropout), &[3, 17, 1, 1, 1, 8]);
            }
        }
        check(&masked_lm(Family::Bert, Activation::Relu, 0.0), &[5, 9]);
        // RoBERTa's head has its own activation.
        check(&masked_lm(Family::Roberta, Activation::Relu, 0.0), &[5, 9]);
    }

    #[test]
    fn engine_equals_twin_as_a_masked_language_model_over_several_chunks() {
        let lengths: Vec<usize> = (0..40).map(|row| 1 + row * 7 % 60).collect();
        // More words than one product of the way back takes.
        let config = EncoderConfig { vocab_size: 2100, ..masked_lm(Family::DistilBert, Activation::Gelu, 0.1) };
        check(&config, &lengths);
    }

    #[test]
    fn a_masked_language_model_reads_the_tokens_that_it_is_given() {
        let config = masked_lm(Family::Bert, Activation::Gelu, 0.0);
        let parameters = Parameters::random(Layout::new(&config), 0, 1);
        let mut engine = Encoder::new(&config).expect("valid");
        let (input_ids, starts): (Vec<u32>, Vec<u32>) = ((1..=40).collect(), vec![0, 3, 40]);
        let mut logits = |positions: Option<&[u32]>| {
            let input = PackedInput { input_ids: &input_ids, token_type_ids: &[0; 40], starts: &starts, positions };
            engine.forward(&parameters, input, Capture::LOGITS, Mode::Eval).map(|output| output.logits)
        };
        let all = logits(Some(&(0..40).collect::<Vec<_>>())).expect("every token");
        let some = logits(Some(&[2, 3, 39])).expect("three tokens");
        assert_eq!(some, [&all[2 * 50..4 * 50], &all[39 * 50..]].concat());
        assert!(logits(Some(&[])).expect("no token").is_empty());
        for (positions, expected) in [
            (None, "reads token positions: none given"),
            (Some([3, 2].as_slice()), "do not ascend below 40 tokens"),
            (Some(&[3, 3]), "do not ascend"),
            (Some(&[40]), "do not ascend below 40 tokens"),
        ] {
            let error = logits(positions).expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
        let classifier = self::config(Family::Bert, Activation::Gelu, 0.0);
        let input = PackedInput { input_ids: &[1, 2], token_type_ids: &[0, 0], starts: &[0, 2], positions: Some(&[1]) };
        let parameters = Parameters::random(Layout::new(&classifier), 0, 1);
        let mut engine = Encoder::new(&classifier).expect("valid");
        let error = engine.forward(&parameters, input, Capture::LOGITS, Mode::Eval).expect_err("refused").to_string();
        assert!(error.contains("classification head"), "{error}");
    }

    #[test]
    fn the_tied_gradient_is_the_same_for_any_number_of_threads() {
        let config = masked_lm(Family::Bert, Activation::Gelu, 0.1);
        let parameters = Parameters::random(Layout::new(&config), 0, 1);
        let starts: Vec<u32> = (0..=40).map(|row| row * 30).collect();
        let input_ids: Vec<u32> = (0..1200).map(|i| i * 13 % 50).collect();
        let positions: Vec<u32> = (0..1200).step_by(7).collect();
        let mut d_logits = vec![0.0; positions.len() * 50];
        Normal::new(5, "d_logits", 1.0).fill(&mut d_logits);
        let gradients = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| {
                let input = PackedInput {
                    input_ids: &input_ids,
                    token_type_ids: &[0; 1200],
                    starts: &starts,
                    positions: Some(&positions),
                };
                let mut engine = Encoder::new(&config).expect("valid");
                let mut gradients = Gradients::zeros(Layout::new(&config));
                let rng = DropoutRng::new(1, 2, 3);
                engine.forward(&parameters, input, Capture::LOGITS, Mode::Train(&rng)).expect("forward");
                engine.backward(&parameters, &d_logits, &mut gradients).expect("backward");
                gradients.flat().to_vec()
            })
        };
        assert_eq!(gradients(1), gradients(3));
    }

    #[test]
    fn engine_equals_twin_with_other_activations() {
        check(&config(Family::Bert, Activation::Relu, 0.0), &[5, 9]);
        check(&config(Family::Bert, Activation::GeluNew, 0.0), &[5, 9]);
    }

    #[test]
    fn engine_equals_twin_over_several_chunks() {
        let lengths: Vec<usize> = (0..40).map(|row| 1 + row * 7 % 60).collect();
        check(&config(Family::DistilBert, Activation::Gelu, 0.1), &lengths);
    }
}
