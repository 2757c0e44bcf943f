//! The engine on the CPU against the twin: every family, the values at all taps, gradients that enter at any of them.

use super::*;
use crate::config::Definition;
use crate::cpu::CpuSession;
use crate::hf::HfConfig;
use crate::op::{Decode, Embed, Lookup, NormSlots, ResidualNorm, Site, Table};
use crate::session::Session;
use crate::{
    Activation, AdamW, AttentionInput, Blocks, Bottleneck, Clip, Error, Family, Head, LayerSlot, Layout, Model,
    NormKind, Normal, Pass, StepRates,
};

pub(crate) fn config(family: Family, activation: Activation, dropout: f32) -> EncoderConfig {
    EncoderConfig {
        num_layers: 3,
        num_heads: 3,
        intermediate_size: 40,
        max_positions: 64,
        activation,
        hidden_dropout: dropout,
        attention_dropout: dropout,
        classifier_dropout: dropout,
        ..family.small(24)
    }
}

pub(crate) fn masked_lm(family: Family, activation: Activation, dropout: f32) -> EncoderConfig {
    EncoderConfig { head: Head::MaskedLm, num_labels: 0, ..config(family, activation, dropout) }
}

fn model(config: &EncoderConfig, parameters: &Parameters) -> Model {
    Model::new(HfConfig { encoder: config.clone(), labels: Vec::new() }, parameters.clone()).expect("valid")
}

/// Largest difference between two slices, as a share of the second's largest value.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let scale = b.iter().fold(1e-6f32, |scale, value| scale.max(value.abs()));
    let worst = |worst: f32, d: f32| if d <= worst { worst } else { d };
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, worst) / scale
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|t| t.to_vec1()).expect("values")
}

/// Weights far from zero.
fn weights(config: &EncoderConfig) -> Parameters {
    let layout = Layout::new(config);
    let mut parameters = Parameters::zeros(layout.clone());
    for entry in layout.entries() {
        let norm = entry.name.ends_with("orm.weight");
        let values = parameters.get_mut(entry.slot);
        Normal::new(3, &entry.name, if norm { 0.1 } else { 0.2 }).fill(values);
        values.iter_mut().for_each(|value| *value += if norm { 1.0 } else { 0.0 });
    }
    parameters
}

/// A batch of rows of some lengths.
struct Batch {
    input_ids: Vec<u32>,
    token_type_ids: Vec<u32>,
    starts: Vec<u32>,
    positions: Option<Vec<u32>>,
}

impl Batch {
    fn new(config: &EncoderConfig, lengths: &[usize]) -> Self {
        let mut starts = vec![0];
        for length in lengths {
            starts.push(starts[starts.len() - 1] + *length as u32);
        }
        let tokens = starts[starts.len() - 1];
        Self {
            input_ids: (0..tokens).map(|i| (i * 7 + i / 11) % 50).collect(),
            token_type_ids: (0..tokens).map(|i| (i / 5) % 2).collect(),
            starts,
            // Every third token and its neighbour: rows with several, rows of one token with one or none.
            positions: (config.head == Head::MaskedLm).then(|| (0..tokens).filter(|token| token % 3 != 2).collect()),
        }
    }

    fn input(&self) -> PackedInput<'_> {
        PackedInput {
            input_ids: &self.input_ids,
            token_type_ids: &self.token_type_ids,
            starts: &self.starts,
            positions: self.positions.as_deref(),
        }
    }
}

fn all_taps(config: &EncoderConfig) -> Vec<Tap> {
    config.program().taps().map(|(tap, _)| tap).collect()
}

/// A made-up gradient at a tap.
fn gradient(tap: Tap, len: usize) -> Vec<f32> {
    let mut gradient = vec![0.0; len];
    Normal::new(5, &tap.to_string(), 1.0).fill(&mut gradient);
    gradient
}

/// Engine and twin where gradients enter at each of these groups of taps, all of a group at once. A pass is asked for the
/// group alone, and for all taps of the model.
fn check(config: &EncoderConfig, lengths: &[usize], groups: &[Vec<Tap>]) {
    let (parameters, batch) = (weights(config), Batch::new(config, lengths));
    let mut engine = model(config, &parameters);
    let twin = Twin::new(config, &parameters).expect("a twin");
    let rng = DropoutRng::new(1, 2, 3).behind(4, 9);
    // Measured: at most 5.6e-6, of logits behind the norm of a masked-language-model head; 1.6e-6 elsewhere.
    let value_tolerance = if config.head == Head::MaskedLm { 2e-5 } else { 5e-6 };
    let taps = all_taps(config);
    for mode in [Mode::Eval, Mode::Train(&rng)] {
        let plain = twin.forward(batch.input(), mode).expect("the twin's forward");
        let mut all = engine.forward(batch.input(), &taps, mode).expect("forward");
        for (tap, expected) in &plain {
            let expected = values(expected);
            for taps in [vec![*tap], vec![Tap::Logits, *tap]] {
                let mut alone = engine.forward(batch.input(), &taps, mode).expect("forward");
                let found = engine.read(&mut alone, *tap).expect("read");
                assert!(distance(&found, &expected) < value_tolerance, "{tap}: {:e}", distance(&found, &expected));
            }
            let found = engine.read(&mut all, *tap).expect("read");
            assert!(distance(&found, &expected) < value_tolerance, "{tap} of all: {:e}", distance(&found, &expected));
        }
    }
    let plain = twin.forward(batch.input(), Mode::Train(&rng)).expect("the twin's forward");
    let of = |tap: Tap| plain.iter().find(|(other, _)| *other == tap).map(|(_, value)| value).expect("a tap");
    for group in groups {
        let losses = group.iter().map(|&tap| {
            let d = Tensor::from_vec(gradient(tap, of(tap).elem_count()), of(tap).shape(), &Device::Cpu)?;
            of(tap).mul(&d)?.sum_all()
        });
        let loss = losses.reduce(|a, b| a? + b?).expect("a tap").expect("the loss");
        let expected = twin.gradients(&loss).expect("the twin's gradients");
        for asked in [group, &taps] {
            let mut pass = engine.forward(batch.input(), asked, Mode::Train(&rng)).expect("forward");
            for &tap in group {
                pass.enter(tap, gradient(tap, of(tap).elem_count())).expect("enter");
            }
            engine.backward(pass).expect("backward");
            let gradients = engine.gradients().expect("gradients");
            engine.clear_gradients().expect("clear");
            let names = group.iter().map(Tap::to_string).collect::<Vec<_>>().join(", ");
            compare(&names, group, &gradients, &expected);
        }
    }
}

fn compare(names: &str, group: &[Tap], gradients: &Gradients, expected: &Gradients) {
    for entry in expected.layout().entries() {
        let (ours, theirs) = (gradients.get(entry.slot), expected.get(entry.slot));
        if matches!(entry.slot, Slot::Layer(layer, LayerSlot::KeyBias) if !group.contains(&Tap::Key(layer))) {
            // Zero by the mathematics: only rounding is left.
            assert!(ours.iter().all(|g| g.abs() < 1e-3), "{names}: {}", entry.name);
            continue;
        }
        if theirs.iter().all(|&g| g == 0.0) {
            assert!(ours.iter().all(|&g| g == 0.0), "{names}: {} has a gradient, and should have none", entry.name);
            continue;
        }
        // Measured: at most 6.2e-6.
        let distance = distance(ours, theirs);
        assert!(distance < 2e-5, "{names}: {}: {distance:e}", entry.name);
    }
}

fn logits_alone() -> Vec<Vec<Tap>> {
    vec![vec![Tap::Logits]]
}

/// Each tap alone, all at once, and a few together that lie around the last layer, which may compute some rows only.
fn every_tap(config: &EncoderConfig) -> Vec<Vec<Tap>> {
    let taps = all_taps(config);
    let layers = config.num_layers;
    let mut groups: Vec<Vec<Tap>> = taps.iter().map(|&tap| vec![tap]).collect();
    groups.push(vec![Tap::Logits, Tap::Hidden(layers), Tap::Hidden(0)]);
    groups.push(vec![Tap::Logits, Tap::Query(layers - 1), Tap::Value(layers - 1)]);
    groups.push(vec![Tap::Key(layers - 1), Tap::Hidden(1)]);
    groups.push(taps);
    groups
}

/// Those that compute something of their own.
pub(crate) const FAMILIES: [Family; 5] =
    [Family::BERT, Family::ROBERTA, Family::ELECTRA, Family::DISTILBERT, Family::MOBILEBERT];
const LENGTHS: [usize; 4] = [3, 17, 1, 8];

#[test]
fn backward_after_a_forward_with_hidden_states_takes_the_right_rows() {
    let config = config(Family::BERT, Activation::Gelu, 0.1);
    let mut asked = logits_alone();
    asked.push(vec![Tap::Logits, Tap::Hidden(3)]);
    check(&config, &LENGTHS, &asked);
}

#[test]
fn engine_equals_twin_in_every_family() {
    for family in FAMILIES {
        check(&config(family, Activation::Gelu, 0.0), &LENGTHS, &logits_alone());
    }
}

/// As the embeddings' `padding_idx` in `transformers`: words have one in every family, positions in RoBERTa's.
#[test]
fn padding_within_a_text_has_no_gradient() {
    for family in FAMILIES {
        let config = config(family, Activation::Gelu, 0.0);
        let (pad, width) = (config.pad_token_id, config.embedding_size);
        let mut batch = Batch::new(&config, &LENGTHS);
        batch.input_ids[4] = pad as u32;
        let mut engine = model(&config, &weights(&config));
        let mut pass = engine.forward(batch.input(), &[Tap::Logits], Mode::Eval).expect("forward");
        let logits = engine.read(&mut pass, Tap::Logits).expect("read").len();
        let rng = DropoutRng::new(1, 2, 3);
        let mut pass = engine.forward(batch.input(), &[Tap::Logits], Mode::Train(&rng)).expect("forward");
        pass.enter(Tap::Logits, gradient(Tap::Logits, logits)).expect("enter");
        engine.backward(pass).expect("backward");
        let gradients = engine.gradients().expect("gradients");
        let learns = |slot: Slot, row: usize| {
            let width =
                gradients.get(slot).len() / if slot == Slot::WordEmbeddings { 50 } else { config.max_positions };
            gradients.get(slot)[row * width..(row + 1) * width].iter().any(|&g| g != 0.0)
        };
        assert!(!learns(Slot::WordEmbeddings, pad) && learns(Slot::WordEmbeddings, batch.input_ids[5] as usize));
        assert_eq!(gradients.get(Slot::WordEmbeddings).len(), 50 * width, "{family:?}");
        let first = config.position_offset();
        assert!(learns(Slot::PositionEmbeddings, first), "{family:?}");
        assert!(first == 0 || !learns(Slot::PositionEmbeddings, first - 1), "{family:?}");
    }
}

#[test]
fn engine_equals_twin_with_a_gradient_at_any_tap() {
    for family in FAMILIES {
        let config = config(family, Activation::Gelu, 0.2);
        check(&config, &LENGTHS, &every_tap(&config));
    }
}

#[test]
fn engine_equals_twin_with_a_gradient_at_any_tap_over_several_chunks() {
    let lengths: Vec<usize> = (0..40).map(|row| 1 + row * 7 % 60).collect();
    for family in [Family::BERT, Family::DISTILBERT, Family::MOBILEBERT] {
        let config = config(family, Activation::Gelu, 0.1);
        check(&config, &lengths, &every_tap(&config));
    }
}

#[test]
fn engine_equals_twin_as_a_masked_language_model() {
    for family in [Family::BERT, Family::ROBERTA, Family::DISTILBERT, Family::MOBILEBERT] {
        for dropout in [0.0, 0.2] {
            let config = masked_lm(family, Activation::Gelu, dropout);
            check(&config, &[3, 17, 1, 1, 1, 8], &every_tap(&config));
        }
    }
    check(&masked_lm(Family::BERT, Activation::Relu, 0.0), &[5, 9], &logits_alone());
    // RoBERTa's head has its own activation.
    check(&masked_lm(Family::ROBERTA, Activation::Relu, 0.0), &[5, 9], &logits_alone());
}

#[test]
fn engine_equals_twin_as_a_masked_language_model_over_several_chunks() {
    let lengths: Vec<usize> = (0..40).map(|row| 1 + row * 7 % 60).collect();
    // More words than one product of the way back takes.
    let config = EncoderConfig { vocab_size: 2100, ..masked_lm(Family::DISTILBERT, Activation::Gelu, 0.1) };
    check(&config, &lengths, &logits_alone());
}

#[test]
fn engine_equals_twin_in_every_form_of_mobilebert() {
    let base = config(Family::MOBILEBERT, Activation::Relu, 0.1);
    let (size, layer_norm) = (12, NormKind::LayerNorm);
    let thin = base.blocks;
    let hidden = Some(Bottleneck { size: 24, attention: AttentionInput::Hidden });
    let narrow = Some(Bottleneck { size, attention: AttentionInput::Narrow });
    let forms = [
        Blocks { norm: layer_norm, pooler: true, ..thin },
        Blocks { bottleneck: narrow, feed_forwards: 1, ..thin },
        Blocks { bottleneck: hidden, trigrams: false, norm: layer_norm, ..thin },
        Blocks { bottleneck: None, trigrams: false, ..thin },
        // Three words are mapped even if one is as wide as the hidden states.
        thin,
    ];
    for (index, blocks) in forms.into_iter().enumerate() {
        // Words as wide as the hidden states are not mapped without trigrams.
        let embedding_size = if index >= 3 { 24 } else { 16 };
        let config = EncoderConfig { embedding_size, blocks, ..base.clone() };
        check(&config, &LENGTHS, &every_tap(&config));
        let config = EncoderConfig { head: Head::MaskedLm, num_labels: 0, ..config };
        check(&config, &LENGTHS, &logits_alone());
    }
}

#[test]
fn engine_equals_twin_with_other_activations() {
    check(&config(Family::BERT, Activation::Relu, 0.0), &[5, 9], &logits_alone());
    check(&config(Family::BERT, Activation::GeluNew, 0.0), &[5, 9], &logits_alone());
}

#[test]
fn a_masked_language_model_reads_the_tokens_that_it_is_given() {
    let config = masked_lm(Family::BERT, Activation::Gelu, 0.0);
    let mut engine = model(&config, &Parameters::random(Layout::new(&config), 0, 1));
    let (input_ids, starts): (Vec<u32>, Vec<u32>) = ((1..=40).collect(), vec![0, 3, 40]);
    let mut logits = |positions: Option<&[u32]>| {
        engine.logits(PackedInput { input_ids: &input_ids, token_type_ids: &[0; 40], starts: &starts, positions })
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
    let classifier = self::config(Family::BERT, Activation::Gelu, 0.0);
    let input = PackedInput { input_ids: &[1, 2], token_type_ids: &[0, 0], starts: &[0, 2], positions: Some(&[1]) };
    let mut engine = model(&classifier, &Parameters::random(Layout::new(&classifier), 0, 1));
    let error = engine.logits(input).expect_err("refused").to_string();
    assert!(error.contains("classification head"), "{error}");
}

#[test]
fn the_tied_gradient_is_the_same_for_any_number_of_threads() {
    let config = masked_lm(Family::BERT, Activation::Gelu, 0.1);
    let parameters = Parameters::random(Layout::new(&config), 0, 1);
    let starts: Vec<u32> = (0..=40).map(|row| row * 30).collect();
    let input_ids: Vec<u32> = (0..1200).map(|i| i * 13 % 50).collect();
    let positions: Vec<u32> = (0..1200).step_by(7).collect();
    let gradients = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| {
            let input = PackedInput {
                input_ids: &input_ids,
                token_type_ids: &[0; 1200],
                starts: &starts,
                positions: Some(&positions),
            };
            let mut engine = model(&config, &parameters);
            let rng = DropoutRng::new(1, 2, 3);
            let mut pass = engine.forward(input, &[Tap::Logits], Mode::Train(&rng)).expect("forward");
            pass.enter(Tap::Logits, gradient(Tap::Logits, positions.len() * 50)).expect("enter");
            engine.backward(pass).expect("backward");
            engine.gradients().expect("gradients").flat().to_vec()
        })
    };
    assert_eq!(gradients(1), gradients(3));
}

#[test]
fn a_step_in_micro_batches_has_the_masks_and_the_gradient_of_the_step_in_one_piece() {
    let config = config(Family::ROBERTA, Activation::Gelu, 0.2);
    let (parameters, whole) = (weights(&config), Batch::new(&config, &[3, 17, 1, 8, 5, 12]));
    let taps = [Tap::Logits, Tap::Hidden(2)];
    let widths = [config.num_labels, config.hidden_size];
    let d = [gradient(taps[0], 6 * widths[0]), gradient(taps[1], 46 * widths[1])];
    // Logits and gradients of a step that is cut at these texts.
    let step = |cut: &[usize]| {
        let mut engine = model(&config, &parameters);
        let mut logits = Vec::new();
        for texts in cut.windows(2).map(|pair| pair[0]..pair[1]) {
            let tokens = whole.starts[texts.start] as usize..whole.starts[texts.end] as usize;
            let starts = whole.starts[texts.start..=texts.end].iter().map(|start| start - tokens.start as u32);
            let input = PackedInput {
                input_ids: &whole.input_ids[tokens.clone()],
                token_type_ids: &whole.token_type_ids[tokens.clone()],
                starts: &starts.collect::<Vec<_>>(),
                positions: None,
            };
            let masks = DropoutRng::new(1, 2, 0).behind(texts.start, tokens.start);
            let mut pass = engine.forward(input, &taps, Mode::Train(&masks)).expect("forward");
            logits.extend(engine.read(&mut pass, Tap::Logits).expect("logits"));
            for ((tap, d), (rows, width)) in taps.into_iter().zip(&d).zip([&texts, &tokens].into_iter().zip(widths)) {
                pass.enter(tap, d[rows.start * width..rows.end * width].to_vec()).expect("enter");
            }
            engine.backward(pass).expect("backward");
        }
        (logits, engine.gradients().expect("gradients"))
    };
    let (logits, gradients) = step(&[0, 6]);
    for cut in [&[0, 2, 6][..], &[0, 1, 3, 6]] {
        let (in_parts, accumulated) = step(cut);
        assert_eq!(in_parts, logits, "the same bits, so the same masks");
        for entry in gradients.layout().entries() {
            let distance = distance(accumulated.get(entry.slot), gradients.get(entry.slot));
            // The sums have another order. Measured: at most 2.7e-7.
            let rounding = matches!(entry.slot, Slot::Layer(_, LayerSlot::KeyBias));
            assert!(rounding || distance < 1e-6, "{}: {distance:e}", entry.name);
        }
    }
}

/// BERT whose layers all name the parameters of the first, as ALBERT's do.
static SHARED: Definition = Definition {
    program: |config| {
        let config = EncoderConfig { family: Family::BERT, num_layers: 3, ..config.clone() };
        let mut program = config.program();
        let first = |slot: &mut Slot| {
            if let Slot::Layer(layer, _) = slot {
                *layer = 0;
            }
        };
        for op in &mut program.ops {
            match &mut op.kind {
                Kind::Linear(linear) => {
                    [Some(&mut linear.weight), linear.bias.as_mut()].into_iter().flatten().for_each(|span| {
                        first(&mut span.first);
                        first(&mut span.last);
                    })
                }
                Kind::Activate(activate) => first(&mut activate.bias),
                Kind::ResidualNorm(end) => {
                    [&mut end.bias, &mut end.norm.weight, &mut end.norm.bias].into_iter().for_each(first)
                }
                _ => {}
            }
        }
        program
    },
    ..*Family::BERT.0
};

/// Embeddings of three neighbours, sums of tables without a norm, norms that only scale and shift, and an output matrix of
/// two parts; dropout stands where MobileBERT, which has all of these, has none.
static TRIAL: Definition = Definition {
    shape: |config, slot| {
        let (e, h) = (config.embedding_size, config.hidden_size);
        Some(match slot {
            Slot::WordEmbeddings => vec![config.vocab_size, e],
            Slot::EmbeddingProjectionWeight => vec![h, 3 * e],
            Slot::PositionEmbeddings => vec![config.max_positions, h],
            Slot::TypeEmbeddings => vec![config.type_vocab_size, h],
            Slot::LmRestWeight => vec![h - e, config.vocab_size],
            Slot::LmOutputBias => vec![config.vocab_size],
            _ => vec![h],
        })
    },
    layer: &[],
    heads: &[
        (Slot::LmNormWeight, "norm.weight"),
        (Slot::LmNormBias, "norm.bias"),
        (Slot::LmRestWeight, "rest"),
        (Slot::LmOutputBias, "bias"),
    ],
    program: |config| {
        let mut program = Program::default();
        let norm = |weight, bias| NormSlots { weight, bias, epsilon: None };
        let word = Table { slot: Slot::WordEmbeddings, lookup: config.words() };
        let site = |number| Site::new(number, config.hidden_dropout);
        let words = Embed { tables: vec![word], norm: None, site: site(1) };
        let position = Table { slot: Slot::PositionEmbeddings, lookup: Lookup::Position(config.positions()) };
        let kind = Table { slot: Slot::TypeEmbeddings, lookup: Lookup::Type };
        let places = Embed { tables: vec![position, kind], norm: None, site: None };
        let words = program.embed(words, config.embedding_size);
        let three = program.trigram(words);
        let branch = program.linear(three, Slot::EmbeddingProjectionWeight, None, config.hidden_size);
        let places = program.embed(places, config.hidden_size);
        let end = ResidualNorm {
            bias: Slot::EmbeddingProjectionBias,
            norm: norm(Slot::EmbeddingNormWeight, Slot::EmbeddingNormBias),
            site: site(2),
        };
        let x = program.residual_norm(branch, places, end);
        let x = program.dropout(x, site(3));
        program.tap(Tap::Hidden(0), x);
        let chosen = program.select(x, Rows::Positions);
        let x = program.norm(chosen, norm(Slot::LmNormWeight, Slot::LmNormBias));
        let (embedding, more) = (config.embedding_size, config.hidden_size - config.embedding_size);
        let (words, rest, bias) = (Slot::WordEmbeddings, Slot::LmRestWeight, Slot::LmOutputBias);
        let logits = program.decode(x, Decode { words, rest, bias, embedding, more }, config.vocab_size);
        program.tap(Tap::Logits, logits);
        program
    },
    ..*Family::BERT.0
};

pub(crate) fn trial() -> EncoderConfig {
    EncoderConfig {
        num_layers: 1,
        embedding_size: 10,
        family: Family(&TRIAL),
        ..masked_lm(Family::BERT, Activation::Gelu, 0.2)
    }
}

#[test]
fn operations_in_forms_that_no_family_has_equal_the_twin() {
    let config = trial();
    let several: Vec<usize> = (0..40).map(|row| 1 + row * 7 % 60).collect();
    for lengths in [&LENGTHS[..], &several] {
        check(&config, lengths, &[vec![Tap::Logits], vec![Tap::Hidden(0)], vec![Tap::Logits, Tap::Hidden(0)]]);
    }
}

#[test]
fn layers_that_name_the_same_parameters_share_them_and_their_gradients_add_up() {
    let config =
        EncoderConfig { num_layers: 1, family: Family(&SHARED), ..config(Family::BERT, Activation::Gelu, 0.2) };
    let lengths: Vec<usize> = (0..40).map(|row| 1 + row * 7 % 60).collect();
    let taps = vec![Tap::Logits, Tap::Hidden(1), Tap::Value(2)];
    check(&config, &lengths, &[vec![Tap::Logits], vec![Tap::Hidden(2)], taps]);
}

#[test]
fn gradients_at_several_taps_are_the_same_for_any_number_of_threads() {
    let config = config(Family::ELECTRA, Activation::Gelu, 0.1);
    let batch = Batch::new(&config, &(0..40).map(|row| 1 + row * 7 % 60).collect::<Vec<_>>());
    let taps = all_taps(&config);
    let gradients = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| {
            let mut engine = model(&config, &weights(&config));
            let rng = DropoutRng::new(1, 2, 0);
            let mut pass = engine.forward(batch.input(), &taps, Mode::Train(&rng)).expect("forward");
            for &tap in &taps {
                let len = pass.tapped(tap).map(|tapped| tapped.rows * tapped.width).expect("asked for");
                pass.enter(tap, gradient(tap, len)).expect("enter");
            }
            engine.backward(pass).expect("backward");
            engine.gradients().expect("gradients").flat().to_vec()
        })
    };
    assert_eq!(gradients(1), gradients(3));
}

#[test]
fn a_backward_pass_in_ranges_finishes_their_gradients_one_by_one() {
    let several: Vec<usize> = (0..40).map(|row| 1 + row * 7 % 60).collect();
    let tied = masked_lm(Family::BERT, Activation::Gelu, 0.1);
    for config in [config(Family::BERT, Activation::Gelu, 0.1), config(Family::ELECTRA, Activation::Gelu, 0.1), tied] {
        let batch = Batch::new(&config, &several);
        let taps = all_taps(&config);
        let rng = DropoutRng::new(1, 2, 0);
        let mut engine = CpuSession::new(&config, weights(&config)).expect("valid");
        let mut gradients = |cuts: &[usize]| {
            let mut pass = engine.forward(batch.input(), &taps, Mode::Train(&rng)).expect("forward");
            for &tap in &taps {
                let len = pass.tapped(tap).map(|tapped| tapped.rows * tapped.width).expect("asked for");
                pass.enter(tap, gradient(tap, len)).expect("enter");
            }
            engine.backward_in_ranges(pass, cuts).expect("backward");
            let gradients = engine.gradients().expect("gradients");
            engine.clear_gradients().expect("clear");
            gradients
        };
        let whole = gradients(&[]);
        for cuts in [vec![9], vec![4, 17, 30], (1..60).collect()] {
            let parts = gradients(&cuts);
            for entry in whole.layout().entries() {
                let (whole, parts) = (whole.get(entry.slot), parts.get(entry.slot));
                // A table that two operations read adds up in another order: measured 2.7e-7.
                let limit =
                    if config.head == Head::MaskedLm && entry.slot == Slot::WordEmbeddings { 1e-6 } else { 0.0 };
                assert!(distance(parts, whole) <= limit, "{}: {:e}", entry.name, distance(parts, whole));
            }
        }
    }
}

#[test]
fn passes_that_compute_their_values_twice_have_the_same_bits() {
    let several: Vec<usize> = (0..40).map(|row| 1 + row * 7 % 60).collect();
    let tied = masked_lm(Family::BERT, Activation::Gelu, 0.1);
    let shared =
        EncoderConfig { num_layers: 1, family: Family(&SHARED), ..config(Family::BERT, Activation::Gelu, 0.2) };
    let families = FAMILIES.map(|family| config(family, Activation::Gelu, 0.1));
    for config in families.into_iter().chain([tied, trial(), shared]) {
        let batch = Batch::new(&config, &several);
        for taps in [vec![Tap::Logits], all_taps(&config)] {
            let rng = DropoutRng::new(1, 2, 0);
            let mut engine = CpuSession::new(&config, weights(&config)).expect("valid");
            let mut gradients = |layers: Option<usize>| {
                engine.recompute(layers);
                let mut pass = engine.forward(batch.input(), &taps, Mode::Train(&rng)).expect("forward");
                for &tap in &taps {
                    let len = pass.tapped(tap).map(|tapped| tapped.rows * tapped.width).expect("asked for");
                    pass.enter(tap, gradient(tap, len)).expect("enter");
                }
                engine.backward(pass).expect("backward");
                let gradients = engine.gradients().expect("gradients");
                engine.clear_gradients().expect("clear");
                let bytes = engine.pass_bytes(&[batch.input()], &[], &taps).expect("known taps");
                (gradients, bytes)
            };
            let (whole, most) = gradients(None);
            for layers in [1, 2, 7] {
                let (twice, bytes) = gradients(Some(layers));
                for entry in whole.layout().entries() {
                    let (whole, twice) = (whole.get(entry.slot), twice.get(entry.slot));
                    // What several stages read adds up in another order: measured 2.7e-7.
                    let is_shared = config.family == Family(&SHARED)
                        || config.head == Head::MaskedLm && entry.slot == Slot::WordEmbeddings;
                    let limit = if is_shared { 1e-6 } else { 0.0 };
                    assert!(distance(twice, whole) <= limit, "{}: {:e}", entry.name, distance(twice, whole));
                }
                assert!(bytes <= most, "{bytes} in stages of {layers}, {most} in one piece");
            }
        }
    }
}

#[test]
fn passes_are_their_models_and_may_be_open_side_by_side_or_dropped() {
    let config = config(Family::BERT, Activation::Gelu, 0.1);
    let [short, long] = [&[3, 8][..], &[17, 40, 300 % 61]].map(|lengths| Batch::new(&config, lengths));
    let rng = DropoutRng::new(1, 2, 0);
    let gradients = |engine: &mut Model, pass: Pass| {
        engine.backward(pass).expect("backward");
        let gradients = engine.gradients().expect("gradients");
        engine.clear_gradients().expect("clear");
        gradients.flat().to_vec()
    };
    let pass = |engine: &mut Model, batch: &Batch| {
        let mut pass = engine.forward(batch.input(), &[Tap::Logits], Mode::Train(&rng)).expect("forward");
        pass.enter(Tap::Logits, gradient(Tap::Logits, (batch.starts.len() - 1) * 5)).expect("enter");
        pass
    };
    let [mut engine, mut other] = [(); 2].map(|()| model(&config, &weights(&config)));
    let (one, two) = (pass(&mut other, &short), pass(&mut other, &long));
    let foreign = pass(&mut other, &short);
    assert!(matches!(engine.backward(foreign), Err(Error::NoForward)), "it is another model's");
    drop(pass(&mut engine, &long));
    let alone = [&short, &long].map(|batch| {
        let pass = pass(&mut engine, batch);
        gradients(&mut engine, pass)
    });
    assert_eq!([gradients(&mut other, one), gradients(&mut other, two)], alone);

    // A pass from before the training began.
    let old = pass(&mut engine, &long);
    engine.begin(AdamW::new(Layout::new(&config), 0.01)).expect("begin");
    engine.backward(old).expect("backward");
    engine.step(0, StepRates { learning_rate: 1e-3, clip: Clip::Norm(1.0) }).expect("a step");
    let before = pass(&mut engine, &long);
    engine.begin(AdamW::new(Layout::new(&config), 0.01)).expect("begin");
    let of_another = engine.parameters().flat().to_vec();
    engine.set_parameters(&of_another).expect("as many");
    assert!(matches!(engine.backward(before), Err(Error::StalePass)), "its weights are gone");
    let smaller = Layout::new(&EncoderConfig { num_layers: 1, ..config.clone() });
    let error = engine.begin(AdamW::new(smaller.clone(), 0.01)).expect_err("refused").to_string();
    let expected = format!("{0} and {0} moments for {1}", smaller.len(), Layout::new(&config).len());
    assert!(error.ends_with(&expected), "{error}");
}

#[test]
fn a_gradient_that_is_no_number_changes_nothing() {
    let config = config(Family::BERT, Activation::Gelu, 0.1);
    let (batch, rng) = (Batch::new(&config, &LENGTHS), DropoutRng::new(1, 2, 0));
    let mut engine = model(&config, &weights(&config));
    engine.begin(AdamW::new(Layout::new(&config), 0.01)).expect("begin");
    let mut pass = engine.forward(batch.input(), &[Tap::Logits], Mode::Train(&rng)).expect("forward");
    pass.enter(Tap::Logits, vec![f32::NAN; 20]).expect("enter");
    engine.backward(pass).expect("backward");
    engine.step(0, StepRates { learning_rate: 1e-3, clip: Clip::Norm(1.0) }).expect("a step");
    assert!(engine.reports(0).expect("reports").iter().all(|report| report.gradient_norm.is_nan()));
    assert!(engine.gradients().expect("gradients").flat().iter().all(|&g| g == 0.0));
    assert_eq!(engine.settle().expect("weights").flat(), weights(&config).flat());

    // The next step is as if there had been none before it.
    let step = |engine: &mut Model| {
        let mut pass = engine.forward(batch.input(), &[Tap::Logits], Mode::Train(&rng)).expect("forward");
        pass.enter(Tap::Logits, gradient(Tap::Logits, 20)).expect("enter");
        engine.backward(pass).expect("backward");
        engine.step(1, StepRates { learning_rate: 1e-3, clip: Clip::Norm(1.0) }).expect("a step");
        engine.settle().expect("weights").flat().to_vec()
    };
    let mut fresh = model(&config, &weights(&config));
    fresh.begin(AdamW::new(Layout::new(&config), 0.01)).expect("begin");
    assert_eq!(step(&mut engine), step(&mut fresh));
}

#[test]
fn taps_and_gradients_that_do_not_fit_are_refused() {
    let config = config(Family::DISTILBERT, Activation::Gelu, 0.1);
    let batch = Batch::new(&config, &LENGTHS);
    let mut engine = model(&config, &weights(&config));
    let rng = DropoutRng::new(1, 2, 3);
    let message = |error: Error| error.to_string();
    let refused = |engine: &mut Model, tap| {
        engine.forward(batch.input(), &[tap], Mode::Train(&rng)).map(|_| ()).map_err(message).expect_err("refused")
    };
    let known = "it has logits, hidden 0 to 3, query 0 to 2, key 0 to 2, value 0 to 2";
    assert_eq!(refused(&mut engine, Tap::Pooled), format!("the model has no tap `pooled`; {known}"));
    assert_eq!(refused(&mut engine, Tap::Hidden(4)), format!("the model has no tap `hidden 4`; {known}"));

    let mut pass = engine.forward(batch.input(), &[Tap::Logits, Tap::Hidden(1)], Mode::Train(&rng)).expect("forward");
    let error = pass.enter(Tap::Logits, vec![0.0; 3]).map_err(message).expect_err("refused");
    assert_eq!(error, "malformed batch: 3 gradients for 20 logits");
    let error = pass.enter(Tap::Hidden(1), vec![0.0; 3]).map_err(message).expect_err("refused");
    assert_eq!(error, "malformed batch: 3 gradients for 696 values at the tap `hidden 1`");
    let error = pass.enter(Tap::Key(1), vec![0.0; 3]).map_err(message).expect_err("refused");
    assert_eq!(error, "the forward pass was not asked for the tap `key 1`, but for hidden 1, logits");
    engine.read(&mut pass, Tap::Hidden(1)).expect("asked for");
    let error = engine.read(&mut pass, Tap::Hidden(1)).map_err(message).expect_err("refused");
    assert_eq!(error, "the tap `hidden 1` of this forward pass was read already");
    let error = engine.backward(pass).map_err(message).expect_err("refused");
    assert_eq!(error, "backward needs a gradient at one of the pass's taps");

    let mut pass = engine.forward(batch.input(), &[Tap::Logits], Mode::Eval).expect("forward");
    pass.enter(Tap::Logits, vec![0.0; 20]).expect("enter");
    let error = engine.backward(pass).map_err(message).expect_err("refused");
    assert_eq!(error, "backward needs a forward pass in training mode before it");
}
