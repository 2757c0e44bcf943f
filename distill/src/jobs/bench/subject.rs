//! The model that is timed: sizes come from the flags, from another model, or from BERT-base. Weights do not affect the
//! time, so they are random unless an existing model is timed as it is.

use anyhow::{Context, bail};
use datasets::{Encodings, LabelNames, TextTokenizer, prune_vocabulary};
use nn::hf::HfConfig;
use nn::{EncoderConfig, Head, Layout, Parameters};
use student::start::{self, Sizes};
use teacher::HubOptions;

use crate::jobs::student::{OTHER_PADDING, bert_base, with_flags};
use crate::model;
use crate::recipe::{StudentFamily, StudentRecipe};

/// The model that is asked for; what is not given is taken from `model`, or from BERT-base.
pub(crate) struct Shape {
    pub(crate) model: Option<String>,
    pub(crate) family: Option<StudentFamily>,
    pub(crate) layers: Option<usize>,
    pub(crate) hidden_size: Option<usize>,
    pub(crate) heads: Option<usize>,
    pub(crate) intermediate_size: Option<usize>,
    pub(crate) vocab_size: Option<usize>,
    pub(crate) labels: Option<usize>,
}

impl Shape {
    /// Whether it is another model than `model`, whatever its head.
    fn changes_encoder(&self) -> bool {
        let sizes = [self.layers, self.hidden_size, self.heads, self.intermediate_size, self.vocab_size];
        self.family.is_some() || sizes.iter().any(Option::is_some)
    }
}

/// A model's sizes, and where they are from.
pub(super) struct Subject {
    /// With as many classes as the base has.
    pub(super) encoder: EncoderConfig,
    /// Of the model that the sizes are from.
    pub(super) tokenizer: Option<TextTokenizer>,
    /// The model whose weights are run.
    weights: Option<String>,
}

/// What is to be done with the model, for what no flag says.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Purpose {
    Capture,
    /// With this dropout rate.
    Train(f64),
}

impl Subject {
    /// The model that the flags describe. Reads no weights.
    pub(super) fn of(shape: &Shape, hub: &HubOptions, purpose: Purpose) -> anyhow::Result<Self> {
        let (base, tokenizer) = match &shape.model {
            Some(name) => {
                let (config, tokenizer) = model::describe(name, hub)?;
                (config.encoder, Some(tokenizer))
            }
            None => (bert_base()?, None),
        };
        let layers = match purpose {
            Purpose::Train(_) if shape.model.is_none() => None,
            _ => Some(base.num_layers),
        };
        let sizes = Sizes {
            num_layers: shape.layers.or(layers),
            hidden_size: shape.hidden_size,
            num_heads: shape.heads,
            intermediate_size: shape.intermediate_size,
            ..Sizes::default()
        };
        let family = match (shape.family, purpose) {
            (Some(family), _) => Some(family.family()),
            (None, Purpose::Train(_)) => Some(StudentRecipe::DEFAULT.family().family()),
            (None, Purpose::Capture) => None,
        };
        let dropout = if let Purpose::Train(rate) = purpose { rate as f32 } else { 0.0 };
        let resized = match family {
            Some(family) => start::configure(family, &base, &sizes, dropout),
            None => sizes.of(&base),
        };
        let mut encoder = resized.map_err(|error| with_flags(error, "--hidden-size", "--heads"))?;
        encoder.vocab_size = shape.vocab_size.unwrap_or(encoder.vocab_size);
        encoder.validate()?;
        if let Some(pieces) = tokenizer.as_ref().map(TextTokenizer::vocab_size).filter(|&n| n > encoder.vocab_size) {
            bail!("--vocab-size {}: the tokenizer has {pieces} tokens; give at least as many", encoder.vocab_size);
        }
        let weights = shape.model.clone().filter(|_| purpose == Purpose::Capture && !shape.changes_encoder());
        Ok(Self { encoder, tokenizer, weights })
    }

    /// Configuration and weights for this many classes: the model's where it is whole, random ones else and for a head
    /// of another size.
    pub(super) fn build(&self, classes: usize, hub: &HubOptions, seed: u64) -> anyhow::Result<(HfConfig, Parameters)> {
        let config = self.config(classes);
        let (layout, pad) = (Layout::new(&config.encoder), config.encoder.pad_token_id);
        let Some(name) = &self.weights else {
            return Ok((config, Parameters::random(layout, pad, seed)));
        };
        let loaded = model::load_for(name, hub, Head::Classification)?;
        let (mut parameters, missing) = (loaded.parameters, loaded.missing_head);
        let mut random = missing;
        if parameters.layout().len() != layout.len() {
            let mut resized = Parameters::zeros(layout.clone());
            for entry in layout.entries() {
                match parameters.layout().entry(entry.slot).is_some_and(|old| old.shape == entry.shape) {
                    true => resized.get_mut(entry.slot).copy_from_slice(parameters.get(entry.slot)),
                    false => random.push(entry.slot),
                }
            }
            parameters = resized;
        }
        random.into_iter().for_each(|slot| parameters.randomize(slot, pad, seed));
        Ok((config, parameters))
    }

    /// Whose weights [`build`](Self::build) gives.
    pub(super) fn weights(&self) -> &'static str {
        if self.weights.is_some() { "model" } else { "random" }
    }

    /// The same with its vocabulary cut to the pieces of these rows.
    pub(super) fn prune(&self, rows: &Encodings) -> anyhow::Result<Self> {
        let tokenizer = self.tokenizer.as_ref().context("--prune-vocabulary needs --model's tokenizer")?;
        let pruned = prune_vocabulary(tokenizer, rows.used_ids().into_iter())?;
        let encoder = student::prune::prune_config(&self.encoder, &pruned.kept).context(OTHER_PADDING)?;
        Ok(Self { encoder, tokenizer: Some(pruned.tokenizer), weights: None })
    }

    fn config(&self, classes: usize) -> HfConfig {
        let encoder = EncoderConfig { num_labels: classes, ..self.encoder.clone() };
        HfConfig { encoder, labels: LabelNames::generic(classes).names().to_vec() }
    }
}
