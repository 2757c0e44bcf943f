//! Classification: which one of several classes a text belongs to.

use std::collections::BTreeSet;

use anyhow::bail;
use datasets::{Encodings, LabelNames, Row, TokenBatch};
use nn::hf::HfConfig;
use nn::{Head, Layout, Model, Parameters};
use serde::ser::{Serialize, Serializer};
use teacher::HubOptions;

use super::common::{Questions, Source, Start};
use crate::data::{self, TaskData};
use crate::hint::HintExt;
use crate::inference::forward_all;
use crate::model::{self, TextModel};
use crate::objective::LossTermRecipe;
use crate::scores::{self, Evaluated, Scores};
use crate::ui;

/// What a student learns from its teacher and from labels, unless told otherwise.
pub(crate) const TERMS_WITH_TEACHER: [LossTermRecipe; 2] = [
    LossTermRecipe::soft_target(LossTermRecipe::DEFAULT_WEIGHTS[0], LossTermRecipe::DEFAULT_TEMPERATURE),
    LossTermRecipe::hard_label(LossTermRecipe::DEFAULT_WEIGHTS[1]),
];

/// Loads a model that has a classification head.
pub(crate) fn load(name: &str, hub: &HubOptions) -> anyhow::Result<TextModel> {
    let way_out = format!("make a classifier of it: distill finetune --model {name} --data FILE --output FOLDER");
    let model = model::load_with_head(name, hub, Head::Classification, "classification", way_out)?;
    refuse_score(name, &model.config)?;
    Ok(model)
}

/// Refuses a model with one output.
pub(crate) fn refuse_score(name: &str, config: &HfConfig) -> anyhow::Result<()> {
    if config.labels.len() != 1 {
        return Ok(());
    }
    Err(anyhow::anyhow!(
        "{name}: the model has one output, a score and no classes, as those of regressions and of cross-encoders; only \
         classifiers are run"
    ))
    .hint(format!("make a classifier of it: distill finetune --model {name} --data FILE --output FOLDER"))
}

/// The class names that data is matched with: the model's, or where it has none, the given ones in its order.
pub(crate) fn name_labels(model: &mut TextModel, given: &[String]) -> anyhow::Result<LabelNames> {
    let names = LabelNames::new(model.config.labels.clone())?;
    if given.is_empty() || given == model.config.labels {
        return Ok(names);
    }
    if given.len() != names.len() {
        bail!("--label-names has {} names, the model has {} classes", given.len(), names.len());
    }
    if !names.are_generic() {
        bail!(
            "--label-names says {}, but the model's own class names are {}; leave --label-names out",
            given.join(","),
            model.config.labels.join(",")
        );
    }
    model.config.labels = given.to_vec();
    Ok(LabelNames::new(given.to_vec())?)
}

/// Loads a model and labelled rows to fine-tune it on, with a head for their classes.
pub(super) fn start(source: &Source<'_>) -> anyhow::Result<Start> {
    let mut model = model::load_base(source.model, source.hub)?;
    let TaskData { train, validation, .. } = labelled(&mut model, source)?;
    Ok(Start { model, train, validation })
}

/// What can be done without labels.
const TEXTS_ALONE: &str = "--task masked-lm learns from texts alone";

/// Rows with labels, and the model with a head for their classes.
fn labelled(model: &mut TextModel, source: &Source<'_>) -> anyhow::Result<TaskData> {
    let Source { data: path, validation, columns, seed, .. } = *source;
    let read = |path| data::read_rows(path, columns);
    let (rows, validation_rows) = (read(path)?, validation.map(read).transpose()?);
    let known = match columns.label_names.as_slice() {
        [] => Some(LabelNames::new(model.config.labels.clone())?).filter(|own| are_ids_of(&rows, model, own)),
        names => Some(LabelNames::new(names.to_vec())?),
    };
    let data = match data::split(rows, validation_rows, known.as_ref(), [path, validation.unwrap_or(path)]) {
        Err(error) if matches!(error.downcast_ref(), Some(datasets::Error::NoLabels)) => {
            return Err(error).hint(TEXTS_ALONE);
        }
        read => read?,
    };
    let data = in_order_of(model, data)?;
    if data.train.labels.iter().all(Option::is_none) {
        return Err(anyhow::anyhow!("{}: no row has a label; fine-tuning learns from labels", path.display()))
            .hint(TEXTS_ALONE);
    }
    let generic = LabelNames::new(model.config.labels.clone())?.are_generic();
    if generic && model.missing_head.is_empty() && columns.label_names.len() == model.config.labels.len() {
        // Names for the head that is there, in its order.
        name_labels(model, &columns.label_names)?;
    }
    start_head(model, &data.names, seed)?;
    Ok(data)
}

/// Whether the rows' labels are the ids of a head that is there and whose classes have no names: each of them, so that labels
/// from 1 to 4 are not five classes.
fn are_ids_of(rows: &[Row], model: &TextModel, own: &LabelNames) -> bool {
    let has_head = model.missing_head.is_empty() && own.are_generic() && !own.are_numbers();
    let labels = datasets::reconcile(rows, Some(own)).map(|(_, labels)| labels);
    let occurring = labels.map(|labels| labels.into_iter().flatten().collect::<BTreeSet<u32>>());
    has_head && occurring.is_ok_and(|ids| ids.len() == own.len())
}

/// Numbers the data's classes as the model does, if they are the same ones by name.
fn in_order_of(model: &TextModel, mut data: TaskData) -> anyhow::Result<TaskData> {
    let theirs = LabelNames::new(model.config.labels.clone())?;
    let ids: Option<Vec<u32>> = data.names.names().iter().map(|name| theirs.id(name)).collect();
    if let Some(ids) = ids.filter(|ids| ids.len() == theirs.len()) {
        for label in data.train.labels.iter_mut().chain(&mut data.validation.labels).flatten() {
            *label = ids[*label as usize];
        }
        data.names = theirs;
    }
    Ok(data)
}

/// Gives a pretrained student a head for its teacher's classes: its own, where it has the same ones by name, in the
/// teacher's order; else a random one.
pub(crate) fn fit_head(model: &mut TextModel, names: &LabelNames, seed: u64) -> anyhow::Result<()> {
    if model.missing_head.is_empty()
        && let Ok(theirs) = LabelNames::new(model.config.labels.clone())
        && theirs.len() == names.len()
        && let Some(order) = names.names().iter().map(|name| theirs.id(name)).collect::<Option<Vec<u32>>>()
    {
        for slot in [nn::Slot::HeadOutputWeight, nn::Slot::HeadOutputBias] {
            let old = model.parameters.get(slot).to_vec();
            let width = old.len() / names.len();
            for (to, &from) in model.parameters.get_mut(slot).chunks_exact_mut(width).zip(&order) {
                to.copy_from_slice(&old[from as usize * width..(from as usize + 1) * width]);
            }
        }
        model.config.labels = names.names().to_vec();
    }
    start_head(model, names, seed)
}

/// Keeps the model's head if its classes are the data's; else starts a new one at random.
fn start_head(model: &mut TextModel, names: &LabelNames, seed: u64) -> anyhow::Result<()> {
    if model.missing_head.is_empty() && names.names() == model.config.labels {
        return Ok(());
    }
    let mut config = model.config.clone();
    config.labels = names.names().to_vec();
    config.encoder.num_labels = config.labels.len();
    let mut parameters = Parameters::zeros(Layout::new(&config.encoder));
    for entry in parameters.layout().clone().entries() {
        // BERT's pooler is pretrained; a classifier for other classes has nothing to keep.
        let fits = model.parameters.layout().entry(entry.slot).is_some_and(|old| old.shape == entry.shape);
        let classifier = matches!(entry.slot, nn::Slot::HeadOutputWeight | nn::Slot::HeadOutputBias);
        if nn::names::is_head(entry.slot) && (classifier || !fits || model.missing_head.contains(&entry.slot)) {
            parameters.randomize(entry.slot, config.encoder.pad_token_id, seed);
        } else {
            parameters.get_mut(entry.slot).copy_from_slice(model.parameters.get(entry.slot));
        }
    }
    ui::say(format!("a new classification head for {} classes starts at random", config.labels.len()));
    model.config = config;
    model.parameters = parameters;
    model.missing_head.clear();
    Ok(())
}

/// Rows with their labels. The views of a row stand next to each other, so that they have the same numbers in the step,
/// and with them the same dropout masks, however it is cut into micro-batches.
pub(super) fn ask(encodings: &Encodings, labels: &[Option<u32>], rows: &[u32], views: usize) -> Questions {
    let answers = rows.iter().map(|&row| labels[row as usize]).collect();
    let viewed: Vec<u32> = rows.iter().flat_map(|&row| std::iter::repeat_n(row, views)).collect();
    Questions { batch: TokenBatch::gather(encodings, &viewed), positions: None, answers }
}

/// Accuracy and the like, and agreement with the teacher where its choices are known.
pub(super) fn score(
    model: &mut Model,
    encodings: &Encodings,
    labels: &[Option<u32>],
    teacher: impl FnOnce() -> anyhow::Result<Option<Vec<u32>>>,
    batch_tokens: usize,
) -> anyhow::Result<Evaluated> {
    let classes = model.config().labels.len();
    let logits = forward_all(model, encodings, batch_tokens, |_| ())?;
    let teacher = teacher()?;
    let scores = Scores::of(&logits, teacher.as_deref(), labels, classes)?;
    let of_labels = scores::cross_entropy(&logits, labels, classes);
    let loss = of_labels.or_else(|| {
        let choices: Vec<Option<u32>> = teacher?.into_iter().map(Some).collect();
        scores::cross_entropy(&logits, &choices, classes)
    });
    let predicted = scores::predictions(&logits, classes);
    let only_class = predicted.first().copied().filter(|first| predicted.iter().all(|class| class == first));
    Ok(Evaluated { scores, only_class, loss })
}

/// What a model says of one text.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Prediction<'a> {
    text: &'a str,
    label: &'a str,
    probability: f32,
    probabilities: ByLabel<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<Vec<f32>>,
}

impl<'a> Prediction<'a> {
    pub(crate) fn new(text: &'a str, labels: &'a [String], logits: &[f32], with_logits: bool) -> Self {
        let probabilities = softmax(logits);
        let mut best = 0;
        for (class, logit) in logits.iter().enumerate() {
            if *logit > logits[best] {
                best = class;
            }
        }
        Self {
            text,
            label: &labels[best],
            probability: probabilities[best],
            probabilities: ByLabel { labels, probabilities },
            logits: with_logits.then(|| logits.to_vec()),
        }
    }

    /// Label, probability, the logits if asked for (with commas between them) and the text, with tabs between them: the
    /// text stands last since it may hold tabs of its own.
    pub(crate) fn text_line(&self) -> String {
        let logits = self.logits.iter().map(|logits| {
            let logits: Vec<String> = logits.iter().map(f32::to_string).collect();
            logits.join(",") + "\t"
        });
        format!("{}\t{:.4}\t{}{}", self.label, self.probability, logits.collect::<String>(), self.text)
    }
}

/// Probabilities under their labels, in the order of the class ids.
#[derive(Debug)]
struct ByLabel<'a> {
    labels: &'a [String],
    probabilities: Vec<f32>,
}

impl Serialize for ByLabel<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.labels.iter().zip(&self.probabilities))
    }
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f64> = logits.iter().map(|&logit| f64::from(logit - top).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|exponential| (exponential / sum) as f32).collect()
}

/// What a model card says of a classifier.
pub(crate) struct CardText<'a> {
    pub(crate) config: &'a HfConfig,
    /// Tokens kept of a text.
    pub(crate) max_length: usize,
}

impl CardText<'_> {
    /// As the Hub calls the task.
    pub(crate) const PIPELINE: &'static str = "text-classification";

    pub(crate) fn title(&self) -> String {
        format!("Text classifier, {} classes", self.config.labels.len())
    }

    /// What stands on the encoder.
    pub(crate) const HEAD: &'static str = "a classification head";

    pub(crate) fn purpose(&self) -> String {
        format!("It sorts a text into one of {} classes.", self.config.labels.len())
    }

    pub(crate) fn usage(&self) -> String {
        format!(
            "## Usage\n\n\
             With `transformers`:\n\n\
             ```python\n\
             from transformers import pipeline\n\n\
             classify = pipeline(\"text-classification\", model=\"path/to/this/folder\")\n\
             print(classify(\"a text to classify\", truncation=True, max_length={length}))\n\
             ```\n\n\
             With `distill`, one text a line:\n\n\
             ```sh\n\
             echo \"a text to classify\" | distill predict --model path/to/this/folder --max-length {length} --json\n\
             ```\n\n",
            length = self.max_length
        )
    }

    /// The classes by their ids; `escape` makes text from outside harmless.
    pub(crate) fn outputs(&self, escape: impl Fn(&str) -> String) -> Vec<(String, String)> {
        self.config.labels.iter().enumerate().map(|(id, label)| (id.to_string(), escape(label))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prediction_as_text_and_as_json() {
        let labels = ["no".to_string(), "yes".to_string()];
        let prediction = Prediction::new("a\tb", &labels, &[0.0, 1.25], false);
        assert_eq!(prediction.text_line(), "yes\t0.7773\ta\tb");
        assert_eq!(
            serde_json::to_string(&prediction).expect("serialises"),
            r#"{"text":"a\tb","label":"yes","probability":0.7772999,"probabilities":{"no":0.22270013,"yes":0.7772999}}"#
        );
        let prediction = Prediction::new("", &labels, &[0.1, -0.3], true);
        assert_eq!(prediction.text_line(), "no\t0.5987\t0.1,-0.3\t");
        assert!(serde_json::to_string(&prediction).expect("serialises").ends_with(r#""logits":[0.1,-0.3]}"#));
    }

    #[test]
    fn large_logits_do_not_overflow() {
        assert_eq!(softmax(&[1000.0, 1000.0, -1000.0]), [0.5, 0.5, 0.0]);
    }
}
