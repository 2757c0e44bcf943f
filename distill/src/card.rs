//! The model card of an export: `README.md` with the front matter that the Hugging Face Hub reads.
//!
//! It contains nothing that depends on the machine, the time or the folder, so that equal exports have equal cards.

use std::fmt::Write;

use nn::Clip;
use nn::hf::HfConfig;

use crate::objective::LossTermRecipe;
use crate::recipe::{ExportDtype, FitRecipe, HeadChoice, ScheduleKind, ScheduleRecipe};
use crate::run_record::{RunInputs, RunRecord};
use crate::scores::{MACRO_F1, Scores};
use crate::tasks::single_label::CardText;
use crate::ui;

/// The contents of a card.
pub(crate) struct ModelCard<'a> {
    pub(crate) config: &'a HfConfig,
    pub(crate) dtype: ExportDtype,
    pub(crate) parameters: usize,
    /// Of the weights' file.
    pub(crate) bytes: u64,
    /// Maximum length of a text in tokens; longer ones are truncated.
    pub(crate) max_length: usize,
    pub(crate) figures: Option<&'a CardFigures>,
    /// The record of the training run, if there is one.
    pub(crate) run: Option<&'a RunRecord>,
}

/// Scores, with the data they were measured on.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct CardFigures {
    /// Name of the data, such as `validation rows`.
    pub(crate) measured_on: String,
    /// Whether the scores were measured with weights in the exported number format, rather than in f32.
    pub(crate) as_exported: bool,
    #[serde(flatten)]
    pub(crate) scores: Scores,
}

impl ModelCard<'_> {
    /// The card as Markdown.
    pub(crate) fn markdown(&self) -> String {
        [self.front_matter(), self.what(), self.figures(), self.how(), self.usage(), self.classes()].concat()
    }

    fn task(&self) -> CardText<'_> {
        CardText { config: self.config, max_length: self.max_length }
    }

    fn front_matter(&self) -> String {
        let pipeline = CardText::PIPELINE;
        let mut tags = vec![pipeline, &self.config.encoder.family.model_type()];
        if self.run.is_some_and(|run| run.inputs.student.is_some()) {
            tags.push("knowledge-distillation");
        }
        tags.push("distill");
        let tags: String = tags.iter().map(|tag| format!("- {tag}\n")).collect();
        format!("---\nlibrary_name: transformers\npipeline_tag: {pipeline}\ntags:\n{tags}---\n\n")
    }

    fn what(&self) -> String {
        let encoder = &self.config.encoder;
        let made = match self.run.map(|run| run.inputs.student.is_some()) {
            Some(true) => ", trained on the stored logits of a larger teacher with `distill`",
            Some(false) => ", fine-tuned on labelled text with `distill`",
            None => "",
        };
        format!(
            "# {title}\n\n\
             {family} with {layers} layers of width {width} ({heads} heads, {pieces} word pieces) and {head}{made}. \
             {purpose} The weights are stored as {dtype}.\n\n",
            title = self.task().title(),
            head = CardText::HEAD,
            purpose = self.task().purpose(),
            family = encoder.family.title(),
            layers = encoder.num_layers,
            width = encoder.hidden_size,
            heads = encoder.num_heads,
            pieces = ui::count(encoder.vocab_size as u64),
            dtype = self.dtype,
        )
    }

    fn figures(&self) -> String {
        let mut rows = Vec::new();
        let mut text = "## Figures\n\n".to_string();
        if let Some(CardFigures { measured_on, as_exported, scores }) = self.figures {
            let labelled = match scores.labelled {
                all if all == scores.rows => String::new(),
                some => format!(", {} of them labelled", ui::count(some as u64)),
            };
            let before = match as_exported {
                true => String::new(),
                false => format!(", before the weights were rounded to {}", self.dtype),
            };
            let count = ui::count(scores.rows as u64);
            let _ = writeln!(text, "Measured on {} ({count} rows{labelled}){before}.\n", inline(measured_on));
            for (name, figure) in [
                ("accuracy", scores.accuracy),
                (MACRO_F1, scores.macro_f1),
                ("agreement with the teacher", scores.agreement),
                ("calibration error (ECE, 15 bins)", scores.ece),
            ] {
                rows.extend(figure.map(|figure| (name.to_string(), format!("{figure:.4}"))));
            }
        }
        rows.push(("parameters".to_string(), ui::count(self.parameters as u64)));
        rows.push(("bytes of `model.safetensors`".to_string(), ui::count(self.bytes)));
        text + &table(["figure", ""], &rows)
    }

    /// The resolved recipe.
    fn how(&self) -> String {
        let Some(RunRecord { inputs, figures, .. }) = self.run else { return String::new() };
        let mut rows =
            vec![("made by".to_string(), format!("`distill {}`, version {}", inputs.command, inputs.distill))];
        let mut row = |name: &str, value: String| rows.push((name.to_string(), value));
        match &inputs.student {
            Some(student) => {
                row("teacher (BLAKE3 of its weights)", format!("`{}`", inputs.model));
                match &inputs.student_weights {
                    Some(weights) => row("started from (BLAKE3 of its weights)", format!("`{weights}`")),
                    None => row("started from the teacher's layers", student.layers.to_string()),
                }
                if student.head == HeadChoice::Teacher {
                    row("head started from", "the teacher's".to_owned());
                }
                row("dropout", student.dropout.to_string());
            }
            None => row("started from (BLAKE3 of its weights)", format!("`{}`", inputs.model)),
        }
        row("vocabulary", if inputs.prune_vocabulary { "pruned to the data" } else { "whole" }.to_string());
        row("training rows (BLAKE3)", format!("`{}`", inputs.train));
        row("validation rows (BLAKE3)", format!("`{}`", inputs.validation));
        row("tokens kept of a text", inputs.max_length.to_string());
        row("objective", objective(inputs));
        let fit = &inputs.fit;
        row("optimiser", optimizer(fit));
        row("learning rate", learning_rate(fit));
        row("rows a step", fit.batch_rows.to_string());
        row(
            "epochs",
            format!("{} ({} steps), epoch {} kept", fit.epochs(), ui::count(figures.steps as u64), figures.kept_epoch),
        );
        row("seed", fit.seed.to_string());
        format!("## How it was made\n\n{}", table(["", ""], &rows))
    }

    fn usage(&self) -> String {
        self.task().usage()
    }

    fn classes(&self) -> String {
        let rows = self.task().outputs(inline);
        format!("## Classes\n\n{}", table(["id", "class"], &rows)).trim_end().to_string() + "\n"
    }
}

/// The loss as a sum of its terms.
fn objective(inputs: &RunInputs) -> String {
    inputs.objective.iter().map(LossTermRecipe::words).collect::<Vec<_>>().join(" + ")
}

fn optimizer(fit: &FitRecipe) -> String {
    let clip = match fit.clip() {
        Clip::Norm(norm) => format!("gradients clipped to norm {norm}"),
        Clip::Value(value) => format!("each gradient clipped to {value}"),
    };
    let frozen = Some(fit.freeze.join(", ")).filter(|frozen| !frozen.is_empty());
    let more = [
        frozen.map(|frozen| format!(", {} frozen", inline(&frozen))),
        fit.ema_decay.map(|decay| format!(", moving average of the weights with decay {decay}")),
    ];
    format!("AdamW, weight decay {}, {clip}{}", fit.weight_decay, more.into_iter().flatten().collect::<String>())
}

/// The rate's peak and its curve.
fn learning_rate(fit: &FitRecipe) -> String {
    let ScheduleRecipe { kind, floor, restarts, warmup_steps, plateau_patience, plateau_factor } = fit.schedule();
    let warmup = match warmup_steps {
        Some(steps) => format!("{} steps", ui::count(steps as u64)),
        None => format!("{} of the steps", fit.warmup_ratio),
    };
    let curve = match kind {
        ScheduleKind::Constant => "constant".to_owned(),
        ScheduleKind::Linear => format!("linear to {floor}"),
        ScheduleKind::Cosine if restarts > 0 => format!("a cosine to {floor} with {restarts} restarts"),
        ScheduleKind::Cosine => format!("a cosine to {floor}"),
        ScheduleKind::InverseSqrt => "inverse square root".to_owned(),
        ScheduleKind::OneCycle => "down again in a single cycle".to_owned(),
        ScheduleKind::Plateau => {
            format!("times {plateau_factor} after more than {plateau_patience} evaluations without gain")
        }
    };
    let layers = if fit.layer_decay == 1.0 { String::new() } else { format!(", times {} a layer", fit.layer_decay) };
    let head = fit.head_learning_rate.map_or(String::new(), |rate| format!(", head {rate}"));
    format!("{}{layers}{head}, warm-up over {warmup}, then {curve}", fit.learning_rate())
}

fn table(headings: [&str; 2], rows: &[(String, String)]) -> String {
    let [left, right] = headings;
    let rows: String = rows.iter().map(|(name, value)| format!("| {name} | {value} |\n")).collect();
    format!("| {left} | {right} |\n| --- | --- |\n{rows}\n")
}

/// Escapes text from outside for use in tables and paragraphs.
fn inline(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '|' | '`' | '*' | '_' | '<' | '[' | ']' => escaped.extend(['\\', character]),
            character if character.is_control() => escaped.push(' '),
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config() -> HfConfig {
        let json = json!({"model_type": "distilbert", "vocab_size": 1000, "dim": 24, "n_layers": 2, "n_heads": 3,
            "hidden_dim": 40, "max_position_embeddings": 32, "id2label": {"0": "card_arrival", "1": "a|b"}});
        nn::hf::read_config(&json).expect("a configuration")
    }

    fn card<'a>(config: &'a HfConfig, figures: Option<&'a CardFigures>, run: Option<&'a RunRecord>) -> String {
        let dtype = ExportDtype::F16;
        ModelCard { config, dtype, parameters: 12345, bytes: 24700, max_length: 32, figures, run }.markdown()
    }

    #[test]
    fn without_a_run_it_says_what_the_model_is() {
        let text = card(&config(), None, None);
        assert!(
            text.starts_with("---\nlibrary_name: transformers\npipeline_tag: text-classification\ntags:\n- "),
            "{text}"
        );
        assert!(text.contains("DistilBERT with 2 layers of width 24 (3 heads, 1,000 word pieces)"), "{text}");
        assert!(text.contains("| parameters | 12,345 |\n| bytes of `model.safetensors` | 24,700 |"), "{text}");
        assert!(text.ends_with("| 0 | card\\_arrival |\n| 1 | a\\|b |\n"), "{text}");
        assert!(!text.contains("How it was made") && !text.contains("knowledge-distillation"), "{text}");
    }

    #[test]
    fn figures_say_what_they_were_measured_on() {
        let scores =
            Scores { rows: 3080, labelled: 3000, accuracy: Some(0.92), macro_f1: None, agreement: None, ece: None };
        let figures = CardFigures { measured_on: "test.tsv".to_string(), as_exported: false, scores };
        let text = card(&config(), Some(&figures), None);
        let expected =
            "Measured on test.tsv (3,080 rows, 3,000 of them labelled), before the weights were rounded to f16.";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("| accuracy | 0.9200 |\n| parameters |"), "{text}");
    }

    #[test]
    fn a_run_is_told_with_its_recipe() {
        let run: RunRecord = serde_json::from_value(json!({
            "schema_version": 1,
            "inputs": {"command": "train", "distill": "0.1.0", "model": "abc", "config": "c", "tokenizer": "t", "train": "r",
                "validation": "v", "labels": ["card_arrival", "a|b"], "max_length": 32,
                "objective": [{"term": "soft_target", "weight": 0.5, "temperature": 2.0}, {"term": "hard_label", "weight": 0.5},
                    {"term": "hard_label", "weight": 0.1, "class_weights": [1, 2.5], "focal_gamma": 2.0},
                    {"term": "r_drop", "weight": 0.7}],
                "student": {"layers": "0,2,4", "head": "teacher"}, "prune_vocabulary": true, "fit": {"epochs": 10, "learning_rate": 1e-4}},
            "figures": {"steps": 1200, "kept_epoch": 9, "parameters": 12345, "bytes": 49400, "validation": null}}))
        .expect("a record");
        let text = card(&config(), None, Some(&run));
        for expected in [
            "- knowledge-distillation\n",
            "| teacher (BLAKE3 of its weights) | `abc` |",
            "| started from the teacher's layers | 0,2,4 |\n| head started from | the teacher's |",
            "| objective | 0.5 × T² KL(teacher, student) at T = 2 + 0.5 × cross-entropy with the labels \
             + 0.1 × focal loss with the labels at gamma = 2, classes weighted 1, 2.5 + 0.7 × R-Drop |",
            "| learning rate | 0.0001, warm-up over 0.06 of the steps, then linear to 0 |",
            "| epochs | 10 (1,200 steps), epoch 9 kept |",
        ] {
            assert!(text.contains(expected), "no {expected:?} in\n{text}");
        }
    }
}
