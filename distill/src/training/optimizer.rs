//! The optimiser of a training: which parameters it trains, each at which learning rate, and the moving average of the
//! weights.

use anyhow::{bail, ensure};
use nn::{AdamW, Layout, Parameters, Slot, names};

use crate::objective::Objective;
use crate::recipe::FitRecipe;

/// The optimiser of a training that starts from these weights.
pub(super) fn start(recipe: &FitRecipe, parameters: &Parameters) -> anyhow::Result<AdamW> {
    let layout = parameters.layout();
    let optimizer = AdamW::new(layout.clone(), recipe.weight_decay);
    with_settings(optimizer, recipe, layout, || Some(parameters.flat().to_vec()))
}

/// The item of `--freeze` that leaves the projections of a loss alone.
const ALL: &str = "all";

/// Refuses to train nothing: a frozen model beside a loss without projections.
pub(super) fn check_trained(recipe: &FitRecipe, objective: &Objective) -> anyhow::Result<()> {
    let all = recipe.freeze.iter().any(|item| item == ALL);
    ensure!(
        !all || !objective.projections(0).is_empty(),
        "--freeze all leaves the projections of hidden states to train, and this loss has none: no term compares hidden states of \
         two widths"
    );
    Ok(())
}

/// An optimiser with a recipe's settings; `average` is asked for where it keeps one.
pub(super) fn with_settings(
    optimizer: AdamW,
    recipe: &FitRecipe,
    layout: &Layout,
    average: impl FnOnce() -> Option<Vec<f32>>,
) -> anyhow::Result<AdamW> {
    let optimizer = optimizer.with_rate_factors(rate_factors(recipe, layout)?);
    let average = recipe.ema_decay.and_then(|decay| Some((decay, average()?)));
    Ok(match average {
        Some((decay, average)) => optimizer.with_average(decay, average),
        None => optimizer,
    })
}

/// What each parameter's learning rate is multiplied by; 0 for those that are frozen. An error if what is to be frozen is not
/// there, or if nothing is left to train, unless `all` is frozen by that name, which leaves the projections of a loss.
///
/// With a layer decay of `d` the head has the whole rate, the last of `L` layers `d` times that, and so on down to the
/// embeddings with `d^(L + 1)`: `param_groups_layer_decay` of `timm`, and Clark et al., 2020 (ELECTRA). What is frozen from the
/// head down is not counted: the highest part that learns has the whole rate.
pub(crate) fn rate_factors(recipe: &FitRecipe, layout: &Layout) -> anyhow::Result<Vec<f64>> {
    let slots: Vec<Slot> = layout.entries().iter().map(|entry| entry.slot).collect();
    let layer_count = slots.iter().filter_map(|slot| layer(*slot)).max().map_or(0, |last| last + 1);
    let head_rate = recipe.head_learning_rate.map_or(1.0, |rate| rate / recipe.learning_rate());
    // Of the embeddings 0, of the head the largest.
    let height = |slot: Slot| match (names::is_head(slot), layer(slot)) {
        (true, _) => layer_count + 1,
        (false, layer) => layer.map_or(0, |layer| layer + 1),
    };
    let mut learns = vec![true; slots.len()];
    for item in &recipe.freeze {
        let mut found = false;
        for (entry, learns) in layout.entries().iter().zip(&mut learns) {
            if names_parameter(item, entry.slot, &entry.name) {
                (*learns, found) = (false, true);
            }
        }
        let last = layer_count.saturating_sub(1);
        let beyond = layers(item).is_some_and(|[first, end]| end > last || first > end);
        ensure!(
            found && !beyond,
            "--freeze {item}: the model has no such parameters; give embeddings, head, layers from 0 to {last} such as 0 or \
             0-{last}, all, or the beginning of a name such as {}",
            layout.entries().get(layout.entries().len() / 2).map_or("", |entry| names::without_prefix(&entry.name))
        );
    }
    let learning = || slots.iter().zip(&learns).filter(|(_, learns)| **learns).map(|(slot, _)| *slot);
    if let Some(rate) = recipe.head_learning_rate.filter(|_| !learning().any(names::is_head)) {
        bail!("--head-learning-rate {rate}: the head is frozen; leave out one of the two");
    }
    if recipe.freeze.iter().any(|item| item == ALL) {
        return Ok(vec![0.0; slots.len()]);
    }
    let Some(highest) = learning().map(height).max() else {
        bail!("--freeze {}: no parameter is left to train", recipe.freeze.join(","));
    };
    let factor = |(&slot, &learns): (&Slot, &bool)| match (learns, names::is_head(slot)) {
        (false, _) => 0.0,
        (true, true) => head_rate,
        (true, false) => recipe.layer_decay.powi((highest - height(slot)) as i32),
    };
    Ok(slots.iter().zip(&learns).map(factor).collect())
}

/// Whether an item of `--freeze` means this parameter.
fn names_parameter(item: &str, slot: Slot, name: &str) -> bool {
    match (item, layers(item)) {
        (ALL, _) => true,
        ("head", _) => names::is_head(slot),
        ("embeddings", _) => layer(slot).is_none() && !names::is_head(slot),
        (_, Some([first, last])) => layer(slot).is_some_and(|layer| (first..=last).contains(&layer)),
        (item, None) => [name, names::without_prefix(name)].into_iter().any(|name| {
            // A whole name, or the beginning of one up to a dot: `encoder.layer.1` is not `encoder.layer.10`.
            let rest = name.strip_prefix(item.trim_end_matches('.'));
            !item.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        }),
    }
}

/// The first and the last layer that an item of `--freeze` names by number.
fn layers(item: &str) -> Option<[usize; 2]> {
    let number = |text: &str| text.parse::<usize>().ok();
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    Some([number(first)?, number(last)?])
}

/// The index of the layer that a parameter belongs to.
fn layer(slot: Slot) -> Option<usize> {
    if let Slot::Layer(layer, _) = slot { Some(layer) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nn::{EncoderConfig, Family};

    fn layout() -> std::sync::Arc<Layout> {
        Layout::new(&EncoderConfig { num_layers: 3, ..Family::BERT.small(12) })
    }

    fn factor(recipe: &FitRecipe, name: &str) -> f64 {
        let layout = layout();
        let index = layout.entries().iter().position(|entry| entry.name == name).expect("a parameter of BERT");
        rate_factors(recipe, &layout).expect("valid")[index]
    }

    fn freezing(items: &[&str]) -> FitRecipe {
        FitRecipe { freeze: items.iter().map(|item| (*item).to_owned()).collect(), ..FitRecipe::DEFAULT }
    }

    /// `param_groups_layer_decay(model, layer_decay=0.5)` of timm 1.0 gives a model of 3 blocks these `lr_scale`s.
    #[test]
    fn rates_decay_from_the_head_to_the_embeddings() {
        let recipe = FitRecipe { layer_decay: 0.5, ..FitRecipe::DEFAULT };
        for (name, expected) in [
            ("classifier.weight", 1.0),
            ("bert.pooler.dense.bias", 1.0),
            ("bert.encoder.layer.2.output.dense.weight", 0.5),
            ("bert.encoder.layer.0.output.dense.weight", 0.125),
            ("bert.embeddings.word_embeddings.weight", 0.0625),
            ("bert.embeddings.LayerNorm.bias", 0.0625),
        ] {
            assert_eq!(factor(&recipe, name), expected, "{name}");
        }
        let recipe = FitRecipe { learning_rate: Some(1e-4), head_learning_rate: Some(4e-4), ..recipe };
        assert_eq!(factor(&recipe, "classifier.weight"), 4.0, "1e-4 elsewhere");
        assert_eq!(factor(&recipe, "bert.encoder.layer.2.output.dense.weight"), 0.5);
        assert!(rate_factors(&FitRecipe::DEFAULT, &layout()).expect("valid").iter().all(|factor| *factor == 1.0));
        let recipe = FitRecipe { layer_decay: 0.5, ..freezing(&["2", "head"]) };
        assert_eq!(factor(&recipe, "bert.encoder.layer.2.output.dense.weight"), 0.0);
        assert_eq!(factor(&recipe, "bert.encoder.layer.1.output.dense.weight"), 1.0, "the highest that learns");
        assert_eq!(factor(&recipe, "bert.embeddings.LayerNorm.bias"), 0.25);
    }

    #[test]
    fn frozen_parameters_are_named_by_part_layer_or_name() {
        let layout = layout();
        let frozen = |items: &[&str]| -> Vec<String> {
            let factors = rate_factors(&freezing(items), &layout).expect("valid");
            let frozen = layout.entries().iter().zip(factors).filter(|(_, factor)| *factor == 0.0);
            frozen.map(|(entry, _)| entry.name.clone()).collect()
        };
        assert_eq!(frozen(&["embeddings"]).len(), 5);
        assert!(frozen(&["embeddings"]).iter().all(|name| name.starts_with("bert.embeddings.")));
        assert_eq!(frozen(&["1"]).len(), 16);
        assert!(frozen(&["1"]).iter().all(|name| name.starts_with("bert.encoder.layer.1.")));
        assert_eq!(frozen(&["0-1"]), frozen(&["0", "1"]));
        assert_eq!(frozen(&["head"]).len(), 4);
        let query =
            ["bert.encoder.layer.0.attention.self.query.weight", "bert.encoder.layer.0.attention.self.query.bias"];
        assert_eq!(frozen(&["encoder.layer.0.attention.self.query"]), query);
        assert_eq!(frozen(&["bert.encoder.layer.0.attention.self.query"]), query);
    }

    #[test]
    fn a_layer_s_name_is_not_that_of_the_tenth() {
        let layout = Layout::new(&EncoderConfig { num_layers: 12, ..Family::BERT.small(12) });
        for item in ["encoder.layer.1", "encoder.layer.1."] {
            let factors = rate_factors(&freezing(&[item]), &layout).expect("valid");
            assert_eq!(factors.iter().filter(|factor| **factor == 0.0).count(), 16, "{item}");
        }
    }

    #[test]
    fn what_is_not_there_cannot_be_frozen_nor_can_everything() {
        let error = |items: &[&str]| rate_factors(&freezing(items), &layout()).expect_err("refused").to_string();
        let unknown = error(&["3"]);
        assert!(unknown.starts_with("--freeze 3: the model has no such parameters"), "{unknown}");
        assert!(unknown.contains("layers from 0 to 2 such as 0 or 0-2"), "{unknown}");
        for item in ["1-3", "2-1", "", "encoder.lay"] {
            assert!(error(&[item]).starts_with(&format!("--freeze {item}: ")), "{item}");
        }
        assert!(rate_factors(&freezing(&["all"]), &layout()).expect("by name").iter().all(|factor| *factor == 0.0));
        assert!(error(&["head", "pooler.dense.weigth"]).contains("pooler.dense.weigth"));
        let nothing = error(&["embeddings", "0-2", "head"]);
        assert_eq!(nothing, "--freeze embeddings,0-2,head: no parameter is left to train");
    }
}
