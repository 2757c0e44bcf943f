//! A student before its training: its sizes, the layers that it starts from, its vocabulary.

use anyhow::bail;
use datasets::{TextTokenizer, prune_vocabulary};
use nn::hf::HfConfig;
use nn::{EncoderConfig, Layout, Parameters};
use student::start::{self, Layers, Sizes};

use crate::data::Split;
use crate::hint::HintExt;
use crate::model::TextModel;
use crate::recipe::{LayerChoice, StudentRecipe};
use crate::ui;

/// The student's configuration, first weights and tokenizer.
pub(super) fn start_student(
    mut teacher: TextModel,
    rows: &Split,
    max_length: usize,
    recipe: &StudentRecipe,
    seed: u64,
) -> anyhow::Result<(HfConfig, Parameters, TextTokenizer)> {
    if recipe.prune_vocabulary {
        prune(&mut teacher, rows, max_length)?;
    }
    let old = &teacher.config.encoder;
    let (encoder, layers) = plan_student(recipe, old)?;
    let parameters = match layers {
        None => Parameters::random(Layout::new(&encoder), encoder.pad_token_id, seed),
        Some(layers) => start::from_teacher(&encoder, old, &teacher.parameters, &layers, seed)
            .hint("--layers random starts a student of any size")?,
    };
    let config = HfConfig { encoder, labels: teacher.config.labels };
    Ok((config, parameters, teacher.tokenizer))
}

/// The student's configuration, and the teacher's layers that it starts from; refuses what cannot be.
pub(super) fn plan_student(
    recipe: &StudentRecipe,
    teacher: &EncoderConfig,
) -> anyhow::Result<(EncoderConfig, Option<Vec<usize>>)> {
    let encoder = configure(recipe, teacher)?;
    encoder.validate()?;
    let layers = match &recipe.layers {
        LayerChoice::Random => None,
        LayerChoice::Uniform => Some(Layers::Uniform),
        LayerChoice::First => Some(Layers::First),
        LayerChoice::Last => Some(Layers::Last),
        LayerChoice::Listed(listed) => Some(Layers::Listed(listed.clone())),
    };
    let layers = layers.map(|layers| start::choose_layers(&layers, teacher.num_layers, encoder.num_layers));
    Ok((encoder, layers.transpose()?))
}

/// The student's sizes, with every default resolved against the teacher's.
fn configure(recipe: &StudentRecipe, teacher: &EncoderConfig) -> anyhow::Result<EncoderConfig> {
    let listed = match &recipe.layers {
        LayerChoice::Listed(listed) => Some(listed.len()),
        _ => None,
    };
    let sizes = Sizes { num_layers: recipe.num_layers.or(listed), ..recipe.sizes() };
    let student = start::configure(recipe.family.family(), teacher, &sizes, recipe.dropout as f32);
    student.map_err(|error| match error {
        start::Error::HeadWidth { inner, width } => {
            let flag = if sizes.bottleneck_size.is_some() { "--bottleneck-size" } else { "--hidden-size" };
            anyhow::anyhow!("{flag} {inner} is no multiple of the head width {width}; give --num-heads")
        }
        error => error.into(),
    })
}

/// Cuts the model's vocabulary to the pieces of these rows and every single character.
pub(super) fn prune(model: &mut TextModel, rows: &Split, max_length: usize) -> anyhow::Result<()> {
    let encodings = model.tokenizer.encode(&rows.rows, max_length)?;
    let before = model.config.encoder.vocab_size;
    let pruned = prune_vocabulary(&model.tokenizer, encodings.used_ids().into_iter())?;
    let Some((config, parameters)) = student::prune::prune(&model.config, &model.parameters, &pruned.kept) else {
        bail!("the tokenizer's padding token is not the model's; its vocabulary cannot be pruned");
    };
    ui::say(format!(
        "vocabulary pruned from {} to {} pieces",
        ui::count(before as u64),
        ui::count(pruned.kept.len() as u64)
    ));
    model.config = config;
    model.parameters = parameters;
    model.tokenizer = pruned.tokenizer;
    Ok(())
}
