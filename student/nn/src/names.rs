//! The parameters of an encoder, their shapes, and their Hugging Face names.
//!
//! Loading, export and the initialisation of students all use these tables, which are in the file of each family.

use crate::slot::{LayerSlot, Slot};
use crate::{EncoderConfig, Family, Head};

/// Names under which a checkpoint of a masked-language model may hold a copy of a tied parameter; it must be equal.
pub fn copies(family: Family) -> &'static [(Slot, &'static str)] {
    family.0.copies
}

/// The name that `transformers` gives the parameter in a model of the family with the head that has it.
pub fn hugging_face_name(family: Family, slot: Slot) -> String {
    let family = family.0;
    if let Slot::Layer(index, part) = slot {
        // The table has the first of the feed-forward parts, with a place for its number.
        let (row, number) = match part {
            LayerSlot::FeedForward(number, slot) => (LayerSlot::FeedForward(0, slot), number.to_string()),
            part => (part, String::new()),
        };
        let name = family.layer.iter().find(|(candidate, _)| *candidate == row).map_or("", |(_, name)| name);
        return format!("{}{}{index}.{}", family.prefix, family.layers, name.replace("{}", &number));
    }
    if let Some((_, name)) = family.embeddings.iter().find(|(candidate, _)| *candidate == slot) {
        return format!("{}{name}", family.prefix);
    }
    // A configuration whose family lacks the head is refused before anybody asks for names.
    family.heads.iter().find(|(candidate, _)| *candidate == slot).map_or(String::new(), |(_, name)| (*name).to_string())
}

/// A tensor's name without the prefix of its family.
pub fn without_prefix(name: &str) -> &str {
    Family::ALL.iter().find_map(|family| name.strip_prefix(family.0.prefix)).unwrap_or(name)
}

/// The index of the layer that a tensor belongs to, by its name [without prefix](without_prefix).
pub fn layer_of(name: &str) -> Option<usize> {
    let rest = Family::ALL.iter().find_map(|family| name.strip_prefix(family.0.layers))?;
    rest.split('.').next()?.parse().ok()
}

/// Whether the parameter belongs to a head.
pub fn is_head(slot: Slot) -> bool {
    head_of(slot).is_some()
}

fn head_of(slot: Slot) -> Option<Head> {
    use Slot::*;
    match slot {
        HeadDenseWeight | HeadDenseBias | HeadOutputWeight | HeadOutputBias => Some(Head::Classification),
        LmDenseWeight | LmDenseBias | LmNormWeight | LmNormBias | LmRestWeight | LmOutputBias => Some(Head::MaskedLm),
        _ => None,
    }
}

/// Every parameter of the encoder with its shape, in the order of the flat buffer.
pub(crate) fn slots(config: &EncoderConfig) -> Vec<(Slot, Vec<usize>)> {
    let family = config.family.0;
    let embeddings = family.embeddings.iter().map(|(slot, _)| *slot);
    let once = family.layer.iter().map(|(part, _)| *part).filter(|part| !matches!(part, LayerSlot::FeedForward(..)));
    let again = (0..config.blocks.feed_forwards.saturating_sub(1)).flat_map(|number| {
        family.layer.iter().filter_map(move |(part, _)| match part {
            LayerSlot::FeedForward(_, slot) => Some(LayerSlot::FeedForward(number, *slot)),
            _ => None,
        })
    });
    let parts: Vec<LayerSlot> = once.chain(again).collect();
    let layers = (0..config.num_layers).flat_map(|layer| parts.iter().map(move |&part| Slot::Layer(layer, part)));
    let head = family.heads.iter().map(|(slot, _)| *slot).filter(|&slot| head_of(slot) == Some(config.head));
    let shaped = |slot| Some((slot, (family.shape)(config, slot)?));
    embeddings.chain(layers).chain(head).filter_map(shaped).collect()
}
