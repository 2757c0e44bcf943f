//! The initial weights of a student: chosen layers of its teacher, at full width or narrowed, or random ones.
//!
//! Turning a BERT into a DistilBERT (Sanh et al., 2019): embeddings and chosen layers are copied, the pooler is dropped,
//! and the embedding of token type 0, which every token of a single text has, is added to the position embeddings.
//!
//! The head is random, or the teacher's.
//!
//! Embeddings narrower than the hidden states, with a projection, are made by `factorise.rs`.
//!
//! For a narrower student, `narrow.rs` selects the dimensions, heads and neurons to copy.

use nn::{Blocks, EncoderConfig, Family, Head, LayerSlot, Layout, Parameters, Slot, names};

use crate::factorise::factorise;
use crate::narrow::Selection;

/// The teacher layers that a student is initialised from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layers {
    /// Evenly spaced, including the first and the last: `round(i * (teacher - 1) / (student - 1))`.
    Uniform,
    /// The first ones, closest to the embeddings.
    First,
    /// The last ones.
    Last,
    /// These, counted from 0, in this order.
    Listed(Vec<usize>),
}

/// Why a student cannot be initialised from a teacher.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listed layer that the teacher does not have.
    #[error("layer {layer} is not one of the {layers} that there are to start from (0 to {last})")]
    NoSuchLayer {
        /// The layer asked for.
        layer: usize,
        /// The number of layers of the teacher.
        layers: usize,
        /// The index of its last layer.
        last: usize,
    },
    /// More layers than the teacher has.
    #[error("{wanted} layers cannot be taken from a model of {layers}; ask for fewer, or for random ones")]
    TooManyLayers {
        /// The number asked for.
        wanted: usize,
        /// The number of layers of the teacher.
        layers: usize,
    },
    /// The list has another length than the student has layers.
    #[error("{listed} layers are listed for a student of {wanted}")]
    OtherCount {
        /// The length of the list.
        listed: usize,
        /// The number of layers of the student.
        wanted: usize,
    },
    /// The teacher's size cannot be reduced to the student's.
    #[error("a student with {field} {student} cannot start from a teacher with {teacher}; start it at random")]
    OtherSize {
        /// The field.
        field: &'static str,
        /// The student's.
        student: usize,
        /// The teacher's.
        teacher: usize,
    },
    /// The student's layers have another structure than the teacher's.
    #[error("a {student} cannot start from the layers of this {teacher}; start it at random")]
    OtherForm {
        /// The student's family.
        student: &'static str,
        /// The teacher's.
        teacher: &'static str,
    },
    /// The student's classifier has another shape than the teacher's.
    #[error(
        "the teacher's head has width {} and {} outputs, and the student's would have {} and {}, so that it cannot start \
         from it", teacher[1], teacher[0], student[1], student[0]
    )]
    OtherHead {
        /// The student's classes and width.
        student: [usize; 2],
        /// The teacher's.
        teacher: [usize; 2],
    },
    /// A size that this model family does not have.
    #[error("a {family} has no {what}")]
    NotOfFamily {
        /// The family.
        family: &'static str,
        /// The size.
        what: &'static str,
    },
    /// Narrow embeddings in a family that has none.
    #[error(
        "the embeddings of a {family} are as wide as its hidden states, {hidden_size}, not {size}; an ELECTRA \
         (--model-type electra) or a MobileBERT has a projection behind them"
    )]
    WideEmbeddings {
        /// The family.
        family: &'static str,
        /// The size asked for.
        size: usize,
        /// The student's hidden size.
        hidden_size: usize,
    },
    /// The width is not a multiple of the head size.
    #[error("the size {inner} is no multiple of the head width {width}")]
    HeadWidth {
        /// Width inside a layer.
        inner: usize,
        /// Head size.
        width: usize,
    },
}

/// The index of the teacher layer that each student layer is initialised from.
pub fn choose_layers(layers: &Layers, teacher: usize, student: usize) -> Result<Vec<usize>, Error> {
    if student > teacher && !matches!(layers, Layers::Listed(_)) {
        return Err(Error::TooManyLayers { wanted: student, layers: teacher });
    }
    let chosen: Vec<usize> = match layers {
        // A single layer has no last one to reach: it starts from the first.
        Layers::Uniform if student == 1 => vec![0],
        Layers::Uniform => (0..student).map(|i| (2 * i * (teacher - 1) + student - 1) / (2 * (student - 1))).collect(),
        Layers::First => (0..student).collect(),
        Layers::Last => (teacher - student..teacher).collect(),
        Layers::Listed(listed) => listed.clone(),
    };
    if chosen.len() != student {
        return Err(Error::OtherCount { listed: chosen.len(), wanted: student });
    }
    match chosen.iter().find(|&&layer| layer >= teacher) {
        Some(&layer) => Err(Error::NoSuchLayer { layer, layers: teacher, last: teacher - 1 }),
        None => Ok(chosen),
    }
}

/// Initial weights of a student: its teacher's embeddings and these layers, narrowed if the student is narrower, and a
/// random head.
pub fn from_teacher(
    config: &EncoderConfig,
    teacher_config: &EncoderConfig,
    teacher: &Parameters,
    layers: &[usize],
    seed: u64,
) -> Result<Parameters, Error> {
    check(config, teacher_config)?;
    if keeps_layers_whole(config, teacher_config) {
        return Ok(copy(config, teacher, layers, seed));
    }
    let selection = Selection::new(config, teacher_config, teacher, layers);
    let mut parameters = Parameters::random(Layout::new(config), config.pad_token_id, seed);
    let narrow_tables = config.projects_embeddings();
    if narrow_tables {
        let (positions, _) = selected(&selection, Slot::PositionEmbeddings, config, teacher_config);
        factorise(&mut parameters, config, teacher_config, teacher, &positions, &selection.hidden);
    }
    for entry in parameters.layout().clone().entries() {
        if names::is_head(entry.slot) || narrow_tables && !matches!(entry.slot, Slot::Layer(..)) {
            continue;
        }
        if entry.slot == Slot::TypeEmbeddings && teacher_config.type_vocab_size == 0 {
            parameters.get_mut(entry.slot).fill(0.0);
            continue;
        }
        let (rows, columns) = selected(&selection, entry.slot, config, teacher_config);
        let source = match entry.slot {
            Slot::Layer(layer, part) => Slot::Layer(layers[layer], part),
            slot => slot,
        };
        let (to, from) = (parameters.get_mut(entry.slot), teacher.get(source));
        match columns {
            None => to.iter_mut().zip(rows).for_each(|(value, row)| *value = from[row]),
            Some((columns, width)) => {
                for (to, row) in to.chunks_exact_mut(columns.len()).zip(rows) {
                    to.iter_mut().zip(columns).for_each(|(value, column)| *value = from[row * width + column]);
                }
            }
        }
        if entry.slot == Slot::PositionEmbeddings && config.type_vocab_size == 0 && teacher_config.type_vocab_size > 0 {
            let first_type = teacher.get(Slot::TypeEmbeddings);
            for row in to.chunks_exact_mut(config.embedding_size) {
                row.iter_mut().zip(&selection.hidden).for_each(|(value, column)| *value += first_type[*column]);
            }
        }
    }
    Ok(parameters)
}

/// Gives a student its teacher's classifier, matrix and bias. The layer before it, with its activation, is the family's own:
/// it is copied to a student of the same family, and stays as it is in one of another. That of a masked-language model is
/// copied to every family: they differ in it by its widths alone. Its output matrix is the word embeddings, which come with the
/// layers.
pub fn copy_head(
    parameters: &mut Parameters,
    config: &EncoderConfig,
    teacher_config: &EncoderConfig,
    teacher: &Parameters,
) -> Result<(), Error> {
    check_head(config, teacher_config)?;
    for entry in parameters.layout().clone().entries().iter().filter(|entry| names::is_head(entry.slot)) {
        let classifier = matches!(entry.slot, Slot::HeadOutputWeight | Slot::HeadOutputBias);
        if classifier || config.family == teacher_config.family || config.head == Head::MaskedLm {
            parameters.get_mut(entry.slot).copy_from_slice(teacher.get(entry.slot));
        }
    }
    Ok(())
}

/// Refuses a student whose head cannot be its teacher's, with both sizes.
pub fn check_head(config: &EncoderConfig, teacher_config: &EncoderConfig) -> Result<(), Error> {
    let sizes = [config, teacher_config].map(|config| [config.outputs(), config.hidden_size]);
    // The layer before the outputs of a masked-language model is as wide as its word embeddings.
    let inner = [config, teacher_config].map(|config| [config.outputs(), config.embedding_size]);
    for [student, teacher] in if config.head == Head::MaskedLm { vec![sizes, inner] } else { vec![sizes] } {
        if student != teacher {
            return Err(Error::OtherHead { student, teacher });
        }
    }
    Ok(())
}

/// Refuses a student that cannot start from layers of this teacher, with the size that they differ in.
pub fn check(config: &EncoderConfig, teacher_config: &EncoderConfig) -> Result<(), Error> {
    let equal = [
        ("vocabulary", config.vocab_size, teacher_config.vocab_size),
        ("head width", config.head_size(), teacher_config.head_size()),
        ("maximum length", config.max_length(), teacher_config.max_length()),
    ];
    let at_most = [
        ("hidden size", config.hidden_size, teacher_config.hidden_size),
        ("intermediate size", config.intermediate_size, teacher_config.intermediate_size),
    ];
    let whole = [
        ("embedding size", config.embedding_size, teacher_config.embedding_size),
        ("hidden size", config.hidden_size, teacher_config.hidden_size),
        ("intermediate size", config.intermediate_size, teacher_config.intermediate_size),
        ("size inside the bottleneck", config.inner_size(), teacher_config.inner_size()),
        ("number of feed-forward parts", config.blocks.feed_forwards, teacher_config.blocks.feed_forwards),
    ];
    let plain = [config, teacher_config].iter().all(|config| config.blocks == Blocks::default());
    // Sizes aside, a student of the teacher's family has the teacher's blocks.
    if !plain && config.family != teacher_config.family {
        let (student, teacher) = (config.family.title(), teacher_config.family.title());
        return Err(Error::OtherForm { student, teacher });
    }
    // The norm between a narrow embedding and its projection keeps the two from being one table, so that such a teacher's stay
    // as they are.
    let of_wide = plain && !teacher_config.projects_embeddings() && !keeps_layers_whole(config, teacher_config);
    let equal = [&equal[..], if of_wide { &[] } else { &whole }].concat();
    let misfit = equal.iter().find(|(_, student, teacher)| student != teacher);
    let misfit = misfit.or_else(|| at_most.iter().find(|(_, student, teacher)| student > teacher));
    match misfit {
        Some(&(field, student, teacher)) => Err(Error::OtherSize { field, student, teacher }),
        None => Ok(()),
    }
}

/// Whether the two differ in nothing but their number of layers, so that each layer is copied as it is.
fn keeps_layers_whole(config: &EncoderConfig, teacher_config: &EncoderConfig) -> bool {
    let form = |config: &EncoderConfig| {
        let EncoderConfig { family, embedding_size, hidden_size, num_heads, intermediate_size, .. } = *config;
        (family, [embedding_size, hidden_size, num_heads, intermediate_size, config.type_vocab_size], config.blocks)
    };
    form(config) == form(teacher_config)
}

/// Embeddings and layers as the teacher's are, the head random.
fn copy(config: &EncoderConfig, teacher: &Parameters, layers: &[usize], seed: u64) -> Parameters {
    let mut parameters = Parameters::random(Layout::new(config), config.pad_token_id, seed);
    for entry in parameters.layout().clone().entries().iter().filter(|entry| !names::is_head(entry.slot)) {
        let source = match entry.slot {
            Slot::Layer(layer, part) => Slot::Layer(layers[layer], part),
            slot => slot,
        };
        parameters.get_mut(entry.slot).copy_from_slice(teacher.get(source));
    }
    parameters
}

/// The teacher's rows, and its columns with its row's width, that one of the student's parameters is made of.
fn selected<'a>(
    selection: &'a Selection,
    slot: Slot,
    config: &EncoderConfig,
    teacher: &EncoderConfig,
) -> (Vec<usize>, Option<(&'a [usize], usize)>) {
    use LayerSlot::*;
    let hidden = selection.hidden.as_slice();
    let of_hidden = Some((hidden, teacher.hidden_size));
    match slot {
        Slot::WordEmbeddings => ((0..config.vocab_size).collect(), of_hidden),
        Slot::TypeEmbeddings => ((0..config.type_vocab_size).collect(), of_hidden),
        // RoBERTa counts positions from another index; rows before it are never read.
        Slot::PositionEmbeddings => {
            let (offset, from) = (config.position_offset(), teacher.position_offset());
            ((0..config.max_positions).map(|row| (row + from).saturating_sub(offset)).collect(), of_hidden)
        }
        Slot::Layer(layer, part) => {
            let layer = &selection.layers[layer];
            match part {
                QueryWeight | KeyWeight | ValueWeight => (layer.attention.clone(), of_hidden),
                QueryBias | KeyBias | ValueBias => (layer.attention.clone(), None),
                AttentionOutputWeight => (hidden.to_vec(), Some((&layer.attention, teacher.hidden_size))),
                IntermediateWeight => (layer.neurons.clone(), of_hidden),
                IntermediateBias => (layer.neurons.clone(), None),
                OutputWeight => (hidden.to_vec(), Some((&layer.neurons, teacher.intermediate_size))),
                _ => (hidden.to_vec(), None),
            }
        }
        _ => (hidden.to_vec(), None),
    }
}

/// Sizes to change in a model's configuration; `None` leaves the default of [`Sizes::of`].
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "as in `EncoderConfig`")]
pub struct Sizes {
    pub num_layers: Option<usize>,
    pub hidden_size: Option<usize>,
    pub num_heads: Option<usize>,
    pub intermediate_size: Option<usize>,
    /// Width inside the bottleneck of a layer.
    pub bottleneck_size: Option<usize>,
    /// Feed-forward blocks per layer.
    pub feed_forwards: Option<usize>,
    /// Width of the embeddings, where a family may have them narrower than the hidden states.
    pub embedding_size: Option<usize>,
}

impl Sizes {
    /// The configuration with these sizes. By default the head size stays the same, and the width of the feed-forward
    /// layers stays in proportion to the hidden size.
    pub fn of(&self, model: &EncoderConfig) -> Result<EncoderConfig, Error> {
        let mut blocks = model.blocks;
        match &mut blocks.bottleneck {
            Some(bottleneck) => bottleneck.size = self.bottleneck_size.unwrap_or(bottleneck.size),
            None => {
                let stacks = if model.family.stacks_feed_forwards() { None } else { self.feed_forwards };
                let asked = [("bottleneck", self.bottleneck_size), ("stacked feed-forward parts", stacks)];
                if let Some((what, _)) = asked.iter().find(|(_, size)| size.is_some()) {
                    return Err(Error::NotOfFamily { family: model.family.title(), what });
                }
            }
        }
        blocks.feed_forwards = self.feed_forwards.unwrap_or(blocks.feed_forwards);
        let hidden_size = self.hidden_size.unwrap_or(model.hidden_size);
        if let Some(size) =
            self.embedding_size.filter(|size| !model.family.projects_embeddings() && *size != hidden_size)
        {
            return Err(Error::WideEmbeddings { family: model.family.title(), size, hidden_size });
        }
        let embedding_size = if model.projects_embeddings() { model.embedding_size } else { hidden_size };
        let embedding_size = self.embedding_size.unwrap_or(embedding_size);
        let intermediate_size = model.intermediate_size * hidden_size / model.hidden_size;
        let mut resized = EncoderConfig {
            num_layers: self.num_layers.unwrap_or(model.num_layers),
            hidden_size,
            embedding_size,
            intermediate_size: self.intermediate_size.unwrap_or(intermediate_size),
            blocks,
            ..model.clone()
        };
        let (inner, width) = (resized.inner_size(), model.head_size());
        resized.num_heads = match self.num_heads {
            Some(heads) => heads,
            None if inner.is_multiple_of(width) => inner / width,
            None => return Err(Error::HeadWidth { inner, width }),
        };
        Ok(resized)
    }
}

/// The configuration of a student of this family: its teacher's, except for these sizes and the dropout rate.
pub fn configure(family: Family, teacher: &EncoderConfig, sizes: &Sizes, dropout: f32) -> Result<EncoderConfig, Error> {
    Ok(sizes.of(&family.student_of(teacher))?.with_dropout(dropout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_spread_as_promised() {
        let uniform = |teacher, student| choose_layers(&Layers::Uniform, teacher, student).expect("fits");
        assert_eq!(uniform(6, 3), [0, 3, 5]); // round(2.5) = 3
        assert_eq!(uniform(12, 6), [0, 2, 4, 7, 9, 11]); // DistilBERT's own
        assert_eq!(uniform(12, 12), (0..12).collect::<Vec<_>>());
        assert_eq!(uniform(6, 1), [0]);
        assert_eq!(uniform(4, 2), [0, 3]);
        assert_eq!(choose_layers(&Layers::First, 6, 2).expect("fits"), [0, 1]);
        assert_eq!(choose_layers(&Layers::Last, 6, 2).expect("fits"), [4, 5]);
    }

    #[test]
    fn layers_that_are_not_there_are_refused() {
        let error =
            |layers, teacher, student| choose_layers(&layers, teacher, student).expect_err("refused").to_string();
        assert_eq!(
            error(Layers::Listed(vec![0, 6]), 6, 2),
            "layer 6 is not one of the 6 that there are to start from (0 to 5)"
        );
        assert!(error(Layers::Uniform, 2, 3).contains("3 layers cannot be taken from a model of 2"));
        assert!(error(Layers::Listed(vec![0, 1]), 6, 3).contains("2 layers are listed for a student of 3"));
    }

    #[test]
    fn a_student_of_another_form_takes_its_teacher_s_layers_whole() {
        let json = serde_json::json!({"model_type": "mobilebert", "vocab_size": 50, "hidden_size": 24,
            "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 32,
            "embedding_size": 10, "intra_bottleneck_size": 12, "num_feedforward_networks": 2});
        let teacher = nn::hf::read_config(&json).expect("a MobileBERT").encoder;
        let weights = Parameters::random(Layout::new(&teacher), 0, 3);
        let sizes = Sizes { num_layers: Some(2), ..Sizes::default() };
        let student = configure(teacher.family, &teacher, &sizes, 0.1).expect("sizes of the teacher");
        let start = from_teacher(&student, &teacher, &weights, &[2, 0], 5).expect("fits");
        let random = Parameters::random(Layout::new(&student), 0, 5);
        for entry in start.layout().entries() {
            let expected = match entry.slot {
                Slot::Layer(layer, part) => weights.get(Slot::Layer([2, 0][layer], part)),
                slot if names::is_head(slot) => random.get(slot),
                slot => weights.get(slot),
            };
            assert_eq!(start.get(entry.slot), expected, "{}", entry.name);
        }
    }

    #[test]
    fn a_classifier_is_copied_and_the_layer_before_it_within_a_family() {
        let json = serde_json::json!({"model_type": "bert", "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 32, "type_vocab_size": 2,
            "id2label": {"0": "a", "1": "b", "2": "c"}});
        let teacher = nn::hf::read_config(&json).expect("a BERT").encoder;
        let weights = Parameters::random(Layout::new(&teacher), 0, 3);
        for (family, dense_too) in [(Family::BERT, true), (Family::DISTILBERT, false)] {
            let student = configure(family, &teacher, &Sizes::default(), 0.1).expect("sizes of the teacher");
            let random = Parameters::random(Layout::new(&student), 0, 5);
            let mut start = random.clone();
            copy_head(&mut start, &student, &teacher, &weights).expect("fits");
            for entry in start.layout().entries() {
                let copied = match entry.slot {
                    Slot::HeadOutputWeight | Slot::HeadOutputBias => true,
                    slot => names::is_head(slot) && dense_too,
                };
                let expected = if copied { weights.get(entry.slot) } else { random.get(entry.slot) };
                assert_eq!(start.get(entry.slot), expected, "{}", entry.name);
            }
        }
        let narrow = EncoderConfig { hidden_size: 16, num_labels: 2, ..teacher.clone() };
        assert_eq!(
            check_head(&narrow, &teacher).expect_err("refused").to_string(),
            "the teacher's head has width 24 and 3 outputs, and the student's would have 16 and 2, so that it cannot \
             start from it"
        );
    }

    #[test]
    fn a_bert_starts_from_a_teacher_without_token_types() {
        let json = serde_json::json!({"model_type": "distilbert", "vocab_size": 50, "dim": 24, "n_layers": 2,
            "n_heads": 3, "hidden_dim": 40, "max_position_embeddings": 32});
        let teacher = nn::hf::read_config(&json).expect("a DistilBERT").encoder;
        let weights = Parameters::random(Layout::new(&teacher), 0, 3);
        let student = configure(Family::BERT, &teacher, &Sizes::default(), 0.1).expect("sizes of the teacher");
        assert_eq!(student.type_vocab_size, 1);
        let start = from_teacher(&student, &teacher, &weights, &[1], 5).expect("fits");
        assert!(start.get(Slot::TypeEmbeddings).iter().all(|&value| value == 0.0));
        assert_eq!(start.get(Slot::WordEmbeddings), weights.get(Slot::WordEmbeddings));
    }

    #[test]
    fn layers_of_a_model_with_narrow_embeddings_are_copied_where_nothing_else_changes() {
        let teacher = Family::ELECTRA.small(24);
        assert!(teacher.projects_embeddings());
        let weights = Parameters::random(Layout::new(&teacher), 0, 1);
        let student = EncoderConfig { num_layers: 1, ..teacher.clone() };
        let start = from_teacher(&student, &teacher, &weights, &[1], 2).expect("starts");
        for entry in start.layout().clone().entries().iter().filter(|entry| !names::is_head(entry.slot)) {
            let source = match entry.slot {
                Slot::Layer(_, part) => Slot::Layer(1, part),
                slot => slot,
            };
            assert_eq!(start.get(entry.slot), weights.get(source), "{:?}", entry.slot);
        }
        // Narrowing is another matter.
        let narrow = EncoderConfig { intermediate_size: 40, ..student };
        assert!(from_teacher(&narrow, &teacher, &weights, &[1], 2).is_err());
    }
}
