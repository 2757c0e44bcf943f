//! A student before training: its sizes, initial weights and vocabulary.

use anyhow::{Context, anyhow};
use datasets::{LabelNames, TextTokenizer, prune_vocabulary};
use nn::hf::HfConfig;
use nn::{EncoderConfig, Head, Layout, Parameters, names};
use serde_json::json;
use student::start::{self, Layers};
use teacher::HubOptions;

use super::teacher::Teacher;
use crate::data::Split;
use crate::hint::HintExt;
use crate::model::{self, TextModel};
use crate::recipe::{HeadChoice, LayerChoice, StudentRecipe};
use crate::tasks::single_label;
use crate::ui;

/// How a student is made from its teacher, or from a pretrained model.
pub(super) struct Wanted<'a> {
    pub(super) recipe: &'a StudentRecipe,
    /// How to look up a pretrained student.
    pub(super) hub: &'a HubOptions,
    /// Training rows; a pruned vocabulary keeps their pieces.
    pub(super) rows: &'a Split,
    /// Maximum length of the student's texts in tokens; `None` for its default.
    pub(super) max_length: Option<usize>,
    pub(super) seed: u64,
}

/// A student before its first step.
pub(super) struct Start {
    pub(super) config: HfConfig,
    pub(super) parameters: Parameters,
    pub(super) tokenizer: TextTokenizer,
    /// Maximum length of its texts in tokens.
    pub(super) max_length: usize,
    /// Hash of the pretrained model it starts from; `None` if it starts from its teacher or at random.
    pub(super) weights: Option<String>,
}

/// Makes the student that the recipe describes, with a head for the teacher's classes.
pub(super) fn start_student(teacher: Teacher, wanted: &Wanted<'_>) -> anyhow::Result<Start> {
    wanted.recipe.check()?;
    let teacher_size = match &teacher {
        Teacher::Model(teacher, _) => Some(teacher.parameters.flat().len()),
        Teacher::Cached(..) => None,
    };
    let start = match (&wanted.recipe.model, teacher) {
        (Some(name), teacher) => pretrained(name, teacher, wanted)?,
        (None, Teacher::Model(model, max_length)) => of_teacher(*model, max_length, wanted)?,
        (None, teacher) => at_random(&teacher, wanted)?,
    };
    let size = start.parameters.flat().len();
    if let Some(teacher) = teacher_size.filter(|teacher| size > *teacher) {
        let [size, teacher] = [size, teacher].map(|parameters| ui::count(parameters as u64));
        ui::say(format!("the student is larger than its teacher: {size} parameters against {teacher}"));
    }
    Ok(start)
}

/// Makes each of several students for the same rows, so that one that cannot be made is told before any is trained.
pub(super) fn check_students<'a>(
    recipes: impl Iterator<Item = &'a StudentRecipe>,
    load: impl Fn() -> anyhow::Result<Teacher>,
    rows: &Split,
    max_length: Option<usize>,
    hub: &HubOptions,
) -> anyhow::Result<()> {
    let mut students: Vec<&StudentRecipe> = Vec::new();
    for recipe in recipes {
        if !students.contains(&recipe) {
            students.push(recipe);
        }
    }
    // A single one is made for the first training, before anything else.
    for recipe in students.iter().filter(|_| students.len() > 1) {
        start_student(load()?, &Wanted { recipe, hub: &recipe.hub(hub), rows, max_length, seed: 0 })?;
    }
    Ok(())
}

/// A pretrained student, with its own tokenizer.
fn pretrained(name: &str, teacher: Teacher, wanted: &Wanted<'_>) -> anyhow::Result<Start> {
    let names = teacher.names()?;
    // Before the student comes, so that memory holds one of the two.
    drop(teacher);
    match &wanted.recipe.layers {
        LayerChoice::Random => of_its_form(name, names, wanted),
        _ => of_its_weights(name, &names, wanted),
    }
}

/// The configuration and tokenizer of a pretrained model, with random weights; a folder need not have any.
fn of_its_form(name: &str, names: LabelNames, wanted: &Wanted<'_>) -> anyhow::Result<Start> {
    let (mut config, mut tokenizer) = model::describe(name, wanted.hub)?;
    let max_length = model::max_length(&config.encoder, wanted.max_length)?;
    if wanted.recipe.prune_vocabulary {
        let used = wanted.rows.encode(&tokenizer, max_length)?.used_ids();
        let pruned = prune_vocabulary(&tokenizer, used.into_iter())?;
        say_pruned(config.encoder.vocab_size, pruned.kept.len());
        config.encoder = student::prune::prune_config(&config.encoder, &pruned.kept).context(OTHER_PADDING)?;
        tokenizer = pruned.tokenizer;
    }
    config.labels = names.names().to_vec();
    config.encoder.num_labels = names.len();
    config.encoder.num_layers = wanted.recipe.layer_count().unwrap_or(config.encoder.num_layers);
    config.encoder = config.encoder.with_dropout(wanted.recipe.dropout as f32);
    config.encoder.validate()?;
    let parameters = Parameters::random(Layout::new(&config.encoder), config.encoder.pad_token_id, wanted.seed);
    Ok(Start { config, parameters, tokenizer, max_length, weights: None })
}

/// A pretrained model with its weights, or with the layers that the recipe selects.
fn of_its_weights(name: &str, names: &LabelNames, wanted: &Wanted<'_>) -> anyhow::Result<Start> {
    let mut model = model::load_base(name, wanted.hub)?;
    let weights = teacher::weights_hash(&model.parameters);
    single_label::fit_head(&mut model, names, wanted.seed)?;
    model.config.encoder = model.config.encoder.with_dropout(wanted.recipe.dropout as f32);
    let max_length = model.max_length(wanted.max_length)?;
    if wanted.recipe.prune_vocabulary {
        prune(&mut model, wanted.rows, max_length)?;
    }
    let TextModel { mut config, mut parameters, tokenizer, .. } = model;
    let whole = config.encoder.clone();
    config.encoder.num_layers = wanted.recipe.layer_count().unwrap_or(whole.num_layers);
    config.encoder.validate()?;
    if let Some(layers) = layers_of(&wanted.recipe.layers) {
        let layers = start::choose_layers(&layers, whole.num_layers, config.encoder.num_layers)?;
        let mut chosen = start::from_teacher(&config.encoder, &whole, &parameters, &layers, wanted.seed)?;
        for entry in chosen.layout().clone().entries().iter().filter(|entry| names::is_head(entry.slot)) {
            chosen.get_mut(entry.slot).copy_from_slice(parameters.get(entry.slot));
        }
        parameters = chosen;
    }
    Ok(Start { config, parameters, tokenizer, max_length, weights: Some(weights) })
}

/// Why a vocabulary cannot be pruned where the tokenizer allows it.
pub(super) const OTHER_PADDING: &str =
    "the tokenizer's padding token is not the model's; its vocabulary cannot be pruned";

/// A student with the teacher's tokenizer, from the teacher's layers or at random.
fn of_teacher(mut teacher: TextModel, max_length: usize, wanted: &Wanted<'_>) -> anyhow::Result<Start> {
    if wanted.recipe.prune_vocabulary {
        prune(&mut teacher, wanted.rows, max_length)?;
    }
    let old = &teacher.config.encoder;
    let (encoder, layers) = plan_student(wanted.recipe, old)?;
    let mut parameters = match layers {
        None => Parameters::random(Layout::new(&encoder), encoder.pad_token_id, wanted.seed),
        Some(layers) => start::from_teacher(&encoder, old, &teacher.parameters, &layers, wanted.seed)
            .hint("--layers random starts a student of any size")?,
    };
    if wanted.recipe.head == HeadChoice::Teacher {
        start::copy_head(&mut parameters, &encoder, old, &teacher.parameters)?;
    }
    let config = HfConfig { encoder, labels: teacher.config.labels };
    Ok(Start { config, parameters, tokenizer: teacher.tokenizer, max_length, weights: None })
}

/// A student of which only the teacher's cache is available: with the cache's tokenizer, and sizes that are all given.
fn at_random(teacher: &Teacher, wanted: &Wanted<'_>) -> anyhow::Result<Start> {
    let (recipe, sizes) = (wanted.recipe, wanted.recipe.sizes());
    let whole = [sizes.num_layers, sizes.hidden_size, sizes.num_heads, sizes.intermediate_size];
    if recipe.head == HeadChoice::Teacher {
        return Err(anyhow!("--head teacher: the teacher's head is not here, only a cache of its answers"))
            .hint("give --teacher, or leave --head out (in a recipe `student.head`)");
    }
    if recipe.layers != LayerChoice::Random || whole.iter().any(Option::is_none) {
        return Err(anyhow!("the teacher is not here, whose layers or sizes this student would start from")).hint(
            "give --teacher; or a pretrained --student; or --layers random with a --shape (or with --num-layers, \
             --hidden-size, --num-heads and --intermediate-size)",
        );
    }
    let (Some(tokenizer), Some(teacher_length)) = (teacher.tokenizer(), teacher.max_length()) else {
        return Err(anyhow!("the cache's answers are to texts: it has no tokenizer that a student could read with"))
            .hint("give a pretrained --student, or with --layers random one that lends its sizes and its tokenizer");
    };
    let mut tokenizer = tokenizer.clone();
    if recipe.prune_vocabulary {
        let used = wanted.rows.encode(&tokenizer, teacher_length)?.used_ids();
        let before = tokenizer.vocab_size();
        tokenizer = prune_vocabulary(&tokenizer, used.into_iter())?.tokenizer;
        say_pruned(before, tokenizer.vocab_size());
    }
    let max_length = wanted.max_length.unwrap_or(teacher_length);
    let labels = teacher.names()?.names().to_vec();
    let base = bert_base()?;
    let base = EncoderConfig {
        vocab_size: tokenizer.vocab_size(),
        pad_token_id: tokenizer.pad_id().unwrap_or(0) as usize,
        max_positions: base.max_positions.max(max_length),
        num_labels: labels.len(),
        ..base
    };
    let (encoder, _) = plan_student(recipe, &base)?;
    let parameters = Parameters::random(Layout::new(&encoder), encoder.pad_token_id, wanted.seed);
    Ok(Start { config: HfConfig { encoder, labels }, parameters, tokenizer, max_length, weights: None })
}

/// The sizes of BERT-base, uncased.
pub(super) fn bert_base() -> anyhow::Result<EncoderConfig> {
    let json = json!({
        "model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12,
        "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 2,
        "hidden_act": "gelu",
    });
    Ok(nn::hf::read_config(&json)?.encoder)
}

/// The student's configuration, and the teacher layers that initialise it; an error if they are incompatible.
fn plan_student(
    recipe: &StudentRecipe,
    teacher: &EncoderConfig,
) -> anyhow::Result<(EncoderConfig, Option<Vec<usize>>)> {
    let encoder = configure(recipe, teacher)?;
    refuse_heads(&encoder)?;
    encoder.validate()?;
    if recipe.head == HeadChoice::Teacher {
        start::check_head(&encoder, teacher).hint("leave --head teacher out (in a recipe `student.head`)")?;
    }
    let layers = layers_of(&recipe.layers);
    if recipe.head == HeadChoice::Teacher && encoder.head == Head::MaskedLm && layers.is_none() {
        return Err(anyhow!(
            "--head teacher contradicts --layers random: the word embeddings are a part of the head, and would be random"
        ))
        .hint("leave --head teacher out, or start from layers of the teacher");
    }
    let layers = layers.map(|layers| start::choose_layers(&layers, teacher.num_layers, encoder.num_layers));
    Ok((encoder, layers.transpose()?))
}

/// The student's configuration before its rows are known, which may give it another vocabulary. Without its teacher all of
/// its sizes are given.
pub(crate) fn planned(
    recipe: &StudentRecipe,
    teacher: Option<&EncoderConfig>,
    hub: &HubOptions,
) -> anyhow::Result<EncoderConfig> {
    let Some(model) = &recipe.model else {
        return Ok(match teacher {
            Some(teacher) => plan_student(recipe, teacher)?,
            None => plan_student(recipe, &bert_base()?)?,
        }
        .0);
    };
    let whole = model::describe(model, hub)?.0.encoder;
    Ok(EncoderConfig { num_layers: recipe.layer_count().unwrap_or(whole.num_layers), ..whole })
}

/// The layers to copy; `None` for a random start.
fn layers_of(choice: &LayerChoice) -> Option<Layers> {
    match choice {
        LayerChoice::Random => None,
        LayerChoice::Uniform => Some(Layers::Uniform),
        LayerChoice::First => Some(Layers::First),
        LayerChoice::Last => Some(Layers::Last),
        LayerChoice::Listed(listed) => Some(Layers::Listed(listed.clone())),
    }
}

/// The student's configuration, with defaults from the teacher.
fn configure(recipe: &StudentRecipe, teacher: &EncoderConfig) -> anyhow::Result<EncoderConfig> {
    let sizes = recipe.sizes();
    let student = start::configure(recipe.family().family(), teacher, &sizes, recipe.dropout as f32);
    let width = if sizes.bottleneck_size.is_some() { "--bottleneck-size" } else { "--hidden-size" };
    student.map_err(|error| with_flags(error, width, "--num-heads"))
}

/// Refuses heads that do not divide the width of the layers.
fn refuse_heads(encoder: &EncoderConfig) -> anyhow::Result<()> {
    let (heads, width) = (encoder.num_heads, encoder.inner_size());
    if width.is_multiple_of(heads) {
        return Ok(());
    }
    let key = if encoder.blocks.bottleneck.is_some() { "bottleneck_size" } else { "hidden_size" };
    let flag = format!("--{}", key.replace('_', "-"));
    Err(anyhow!("--num-heads {heads} does not divide {flag} {width}, the width that the heads share")).hint(format!(
        "give other --num-heads, or another {flag} (in a recipe `student.num_heads` and `student.{key}`)"
    ))
}

/// An error about sizes, with the flags that set them.
pub(super) fn with_flags(error: start::Error, width_flag: &str, heads_flag: &str) -> anyhow::Error {
    match error {
        start::Error::HeadWidth { inner, width } => {
            anyhow!("{width_flag} {inner} is no multiple of the head width {width}; give {heads_flag}")
        }
        error => error.into(),
    }
}

/// Cuts the model's vocabulary to the pieces that occur in these rows, and all single characters.
pub(super) fn prune(model: &mut TextModel, rows: &Split, max_length: usize) -> anyhow::Result<()> {
    let encodings = rows.encode(&model.tokenizer, max_length)?;
    let before = model.config.encoder.vocab_size;
    let pruned = prune_vocabulary(&model.tokenizer, encodings.used_ids().into_iter())?;
    let (config, parameters) =
        student::prune::prune(&model.config, &model.parameters, &pruned.kept).context(OTHER_PADDING)?;
    say_pruned(before, pruned.kept.len());
    model.config = config;
    model.parameters = parameters;
    model.tokenizer = pruned.tokenizer;
    Ok(())
}

fn say_pruned(before: usize, after: usize) {
    ui::say(format!("vocabulary pruned from {} to {} pieces", ui::count(before as u64), ui::count(after as u64)));
}
