//! Lists student sizes within limits on parameters, bytes and latency: the named shapes, and the teacher's own sizes with
//! fewer layers. Latency is measured with random weights on texts of the data; nothing is trained.

mod timing;

use std::path::Path;

use anyhow::Context;
use datasets::{TextTokenizer, prune_vocabulary, read_rows};
use nn::hf::HfConfig;
use nn::{Compute, EncoderConfig, Layout};
use serde::Serialize;
use student::start::{self, Layers, Sizes};
use teacher::HubOptions;

use crate::data::text_columns_of;
use crate::inference::announce;
use crate::jobs::student::OTHER_PADDING;
use crate::model;
use crate::recipe::{ColumnsRecipe, Shape, StudentFamily, StudentRecipe};
use crate::tasks::single_label;
use crate::telemetry::Progress;
use crate::ui::{self, Table};
use timing::{BATCH_ROWS, Clock, Milliseconds};

/// Layers that a student with its teacher's sizes is proposed with, where the teacher has more.
const FEWER_LAYERS: [usize; 9] = [1, 2, 3, 4, 6, 8, 12, 16, 24];

/// Upper limits; `None` for no limit.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Limits {
    pub(crate) parameters: Option<u64>,
    /// Bytes of the weights, in f32 or else in 16 bits.
    pub(crate) bytes: Option<u64>,
    /// Latency of a single text.
    pub(crate) milliseconds: Option<f64>,
}

/// The inputs of `propose`.
pub(crate) struct Proposing<'a> {
    pub(crate) teacher: &'a str,
    pub(crate) hub: &'a HubOptions,
    pub(crate) data: &'a Path,
    pub(crate) columns: &'a ColumnsRecipe,
    pub(crate) limits: Limits,
    pub(crate) compute: &'a Compute,
}

/// What `propose` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    limits: Limits,
    rows: usize,
    median_tokens: u32,
    /// Pieces of the teacher's vocabulary, and those that a student keeps.
    vocabulary: usize,
    kept_vocabulary: usize,
    device: String,
    threads: usize,
    proposals: Vec<Proposal>,
    /// Students that exceed a limit or have invalid sizes.
    left_out: Vec<LeftOut>,
}

/// A student that fits.
#[derive(Debug, Serialize)]
struct Proposal {
    shape: String,
    #[serde(flatten)]
    sizes: Counted,
    milliseconds: Milliseconds,
    /// The widest number format that it fits in.
    format: &'static str,
    /// Whether it can start from its teacher's layers.
    from_teacher: bool,
    /// Of `distill train`.
    flags: String,
}

/// A student that does not.
#[derive(Debug, Serialize)]
struct LeftOut {
    shape: String,
    reason: String,
}

/// A student's sizes.
#[derive(Debug, Clone, Serialize)]
struct Counted {
    model_type: &'static str,
    num_layers: usize,
    hidden_size: usize,
    num_heads: usize,
    intermediate_size: usize,
    parameters: u64,
    bytes: Bytes,
}

/// Bytes of the weights in each number format that `export` writes.
#[derive(Debug, Clone, Copy, Serialize)]
struct Bytes {
    f32: u64,
    f16: u64,
    bf16: u64,
}

/// A student before it is counted.
struct Candidate {
    name: String,
    family: StudentFamily,
    sizes: Sizes,
    /// Of `distill train`, its start and its vocabulary aside.
    flags: String,
}

impl Proposing<'_> {
    pub(crate) fn run(&self) -> anyhow::Result<Report> {
        let (teacher, tokenizer) = model::describe_classifier(self.teacher, self.hub)?;
        single_label::refuse_score(self.teacher, &teacher)?;
        let max_length = model::max_length(&teacher.encoder, self.columns.max_length)?;
        let rows = read_rows(self.data, &text_columns_of(self.columns))?;
        let encodings = tokenizer.encode(&rows, max_length)?;
        let (student_like, tokenizer) = pruned(&teacher.encoder, tokenizer, encodings.used_ids())?;
        let prunes = student_like.vocab_size < teacher.encoder.vocab_size;
        let encodings = if prunes { tokenizer.encode(&rows, max_length)? } else { encodings };
        let mut lengths = encodings.lengths();
        lengths.sort_unstable();
        announce(self.compute);

        let clock = Clock::new(self.compute, &encodings);
        let candidates = candidates(&student_like);
        let progress = Progress::new("propose", candidates.len() as u64, "shapes");
        let (mut proposals, mut left_out) = (Vec::new(), Vec::new());
        for candidate in candidates {
            let shape = candidate.name.clone();
            match self.propose(candidate, &teacher, &student_like, prunes, &clock)? {
                Ok(proposal) => proposals.push(proposal),
                Err(reason) => left_out.push(LeftOut { shape, reason }),
            }
            progress.inc(1);
        }
        progress.finish();
        Ok(Report {
            limits: self.limits,
            rows: rows.len(),
            median_tokens: lengths.get(lengths.len() / 2).copied().unwrap_or(0),
            vocabulary: teacher.encoder.vocab_size,
            kept_vocabulary: student_like.vocab_size,
            device: self.compute.kind().to_string(),
            threads: rayon::current_num_threads(),
            proposals,
            left_out,
        })
    }

    /// Counts a student, and times it where its sizes are within the limits; or says what it is left out for.
    fn propose(
        &self,
        candidate: Candidate,
        teacher: &HfConfig,
        student_like: &EncoderConfig,
        prunes: bool,
        clock: &Clock<'_>,
    ) -> anyhow::Result<Result<Proposal, String>> {
        let configured = start::configure(candidate.family.family(), student_like, &candidate.sizes, 0.0);
        let config =
            match configured.map_err(anyhow::Error::new).and_then(|config| Ok(config.validate().map(|()| config)?)) {
                Ok(config) => config,
                Err(error) => return Ok(Err(format!("{error:#}"))),
            };
        let sizes = Counted::of(&config);
        let format = match self.limits.format(&sizes) {
            Ok(format) => format,
            Err(reason) => return Ok(Err(reason)),
        };
        let from_teacher = starts_from(&config, student_like);
        let start = if from_teacher { "" } else { " --layers random" };
        let vocabulary = if prunes { " --prune-vocabulary" } else { "" };
        let milliseconds = clock.time(HfConfig { encoder: config, labels: teacher.labels.clone() })?;
        if let Some(limit) = self.limits.milliseconds.filter(|&limit| milliseconds.alone > limit) {
            return Ok(Err(format!("{:.2} ms a text, more than {limit}", milliseconds.alone)));
        }
        let flags = format!("{}{start}{vocabulary}", candidate.flags);
        Ok(Ok(Proposal { shape: candidate.name, sizes, milliseconds, format, from_teacher, flags }))
    }
}

impl Limits {
    /// The widest number format in which a student of these sizes is within the limits, or the one that it is beyond.
    fn format(&self, sizes: &Counted) -> Result<&'static str, String> {
        if let Some(limit) = self.parameters.filter(|&limit| sizes.parameters > limit) {
            return Err(format!("{} parameters, more than {}", ui::count(sizes.parameters), ui::count(limit)));
        }
        match self.bytes {
            Some(limit) if sizes.bytes.f16 > limit => {
                Err(format!("{} in f16, more than {}", ui::bytes(sizes.bytes.f16), ui::bytes(limit)))
            }
            Some(limit) if sizes.bytes.f32 > limit => Ok("f16"),
            _ => Ok("f32"),
        }
    }
}

impl Counted {
    fn of(config: &EncoderConfig) -> Self {
        let parameters = Layout::new(config).len() as u64;
        Self {
            model_type: config.family.model_type(),
            num_layers: config.num_layers,
            hidden_size: config.hidden_size,
            num_heads: config.num_heads,
            intermediate_size: config.intermediate_size,
            parameters,
            bytes: Bytes { f32: 4 * parameters, f16: 2 * parameters, bf16: 2 * parameters },
        }
    }
}

/// The teacher's configuration with the vocabulary that a student keeps, and the tokenizer with it. Where it cannot be cut,
/// all of it.
fn pruned(
    teacher: &EncoderConfig,
    tokenizer: TextTokenizer,
    used: Vec<u32>,
) -> anyhow::Result<(EncoderConfig, TextTokenizer)> {
    match prune_vocabulary(&tokenizer, used.into_iter()) {
        Ok(pruned) => {
            let config = student::prune::prune_config(teacher, &pruned.kept).context(OTHER_PADDING)?;
            Ok((config, pruned.tokenizer))
        }
        Err(error) => {
            ui::say(format!("counted with the whole vocabulary: {error}"));
            Ok((teacher.clone(), tokenizer))
        }
    }
}

/// All students that may be proposed.
fn candidates(teacher: &EncoderConfig) -> Vec<Candidate> {
    let named = Shape::ALL.into_iter().map(|shape| Candidate {
        name: shape.name().to_owned(),
        family: shape.family(),
        sizes: shape.sizes(),
        flags: format!("--shape {}", shape.name()),
    });
    let fewer = FEWER_LAYERS.into_iter().filter(|&layers| layers < teacher.num_layers).filter_map(|layers| {
        let sizes = Sizes { num_layers: Some(layers), ..Sizes::default() };
        let starts = |family: &StudentFamily| {
            start::configure(family.family(), teacher, &sizes, 0.0).is_ok_and(|config| starts_from(&config, teacher))
        };
        let family = StudentFamily::ALL.into_iter().find(starts)?;
        let model_type =
            if family == StudentRecipe::DEFAULT.family() { String::new() } else { format!("--model-type {family} ") };
        Some(Candidate {
            name: format!("{layers} of {} teacher layers", teacher.num_layers),
            family,
            sizes,
            flags: format!("{model_type}--num-layers {layers}"),
        })
    });
    named.chain(fewer).collect()
}

/// Whether a student can start from layers of a teacher, as `train` spreads them.
fn starts_from(student: &EncoderConfig, teacher: &EncoderConfig) -> bool {
    start::check(student, teacher).is_ok()
        && start::choose_layers(&Layers::Uniform, teacher.num_layers, student.num_layers).is_ok()
}

impl Report {
    pub(crate) fn text(&self) -> String {
        let mut table = Table::new([
            "shape".to_string(),
            "type".to_string(),
            "parameters".to_string(),
            "f32".to_string(),
            "f16, bf16".to_string(),
            "ms a text".to_string(),
            format!("in batches of {BATCH_ROWS}"),
            "flags of distill train".to_string(),
        ]);
        for proposal in &self.proposals {
            let Counted { model_type, parameters, bytes, .. } = proposal.sizes;
            table.row([
                proposal.shape.clone(),
                model_type.to_string(),
                ui::count(parameters),
                ui::bytes(bytes.f32),
                ui::bytes(bytes.f16),
                format!("{:.2}", proposal.milliseconds.alone),
                format!("{:.2}", proposal.milliseconds.in_batch),
                proposal.flags.clone(),
            ]);
        }
        let mut text = if self.proposals.is_empty() { "nothing fits\n".to_string() } else { table.to_string() };
        let kept = match self.kept_vocabulary == self.vocabulary {
            true => format!("all {} pieces", ui::count(self.vocabulary as u64)),
            false => {
                // `train` holds a tenth of the rows out, unless it is given others to validate on.
                format!(
                    "{} of {} pieces, those of all rows (a few less where train holds rows out)",
                    ui::count(self.kept_vocabulary as u64),
                    ui::count(self.vocabulary as u64)
                )
            }
        };
        text += &format!(
            "\nvocabulary: {kept}; times: medians over texts of the data ({} tokens in the middle), {}, {} threads",
            self.median_tokens, self.device, self.threads
        );
        if self.proposals.iter().any(|proposal| proposal.format == "f16") {
            let half: Vec<&str> = self
                .proposals
                .iter()
                .filter(|proposal| proposal.format == "f16")
                .map(|one| one.shape.as_str())
                .collect();
            text += &format!("\nwithin the limit in 16 bits alone (distill export --dtype f16): {}", half.join(", "));
        }
        for LeftOut { shape, reason } in &self.left_out {
            text += &format!("\nleft out: {shape}: {reason}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn teacher(hidden: usize, heads: usize, layers: usize) -> EncoderConfig {
        let json = serde_json::json!({"model_type": "bert", "vocab_size": 1000, "hidden_size": hidden,
            "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": 4 * hidden,
            "max_position_embeddings": 128, "type_vocab_size": 2});
        nn::hf::read_config(&json).expect("BERT").encoder
    }

    fn counted(parameters: u64) -> Counted {
        let bytes = Bytes { f32: 4 * parameters, f16: 2 * parameters, bf16: 2 * parameters };
        Counted { parameters, bytes, ..Counted::of(&teacher(128, 2, 2)) }
    }

    #[test]
    fn limits_hold_together_and_bytes_in_the_widest_format_that_fits() {
        let limits = |parameters, bytes| Limits { parameters, bytes, milliseconds: None };
        let sizes = counted(1_000_000);
        assert_eq!(limits(None, None).format(&sizes), Ok("f32"));
        assert_eq!(limits(Some(1_000_000), Some(4_000_000)).format(&sizes), Ok("f32"));
        assert_eq!(limits(Some(1_000_000), Some(3_999_999)).format(&sizes), Ok("f16"));
        assert_eq!(limits(None, Some(2_000_000)).format(&sizes), Ok("f16"));
        assert_eq!(limits(None, Some(1_999_999)).format(&sizes), Err("2.0 MB in f16, more than 2.0 MB".to_owned()));
        let beyond = Err("1,000,000 parameters, more than 999,999".to_owned());
        assert_eq!(limits(Some(999_999), Some(4_000_000)).format(&sizes), beyond);
    }

    #[test]
    fn a_student_starts_from_its_teacher_where_train_would_let_it() {
        let of = |shape: Shape, teacher: &EncoderConfig| {
            let config = start::configure(shape.family().family(), teacher, &shape.sizes(), 0.0).expect("sizes");
            starts_from(&config, teacher)
        };
        let base = teacher(768, 12, 12);
        assert!(of(Shape::DistilBert, &base) && of(Shape::TinyBert6, &base) && of(Shape::Mini, &base));
        // Heads of 26 and of 32 are none of its 64.
        assert!(!of(Shape::TinyBert4, &base) && !of(Shape::MiniLm6x384, &base) && !of(Shape::MobileBert, &base));
        // More layers than the teacher has.
        let short = teacher(768, 12, 4);
        assert!(of(Shape::Small, &short) && !of(Shape::Medium, &short));
    }

    #[test]
    fn the_teacher_s_own_sizes_are_proposed_with_fewer_layers() {
        let names = |teacher: &EncoderConfig| {
            let all = candidates(teacher);
            let fewer = all.iter().skip(Shape::ALL.len());
            fewer.map(|one| (one.flags.clone(), one.sizes.num_layers)).collect::<Vec<_>>()
        };
        let flags = |layers: usize| (format!("--num-layers {layers}"), Some(layers));
        assert_eq!(names(&teacher(384, 12, 6)), [flags(1), flags(2), flags(3), flags(4)]);
        assert_eq!(names(&teacher(384, 12, 1)), []);
        let json = serde_json::json!({"model_type": "mobilebert", "vocab_size": 50, "hidden_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 32,
            "embedding_size": 10, "intra_bottleneck_size": 12, "num_feedforward_networks": 2});
        let mobile = nn::hf::read_config(&json).expect("a MobileBERT").encoder;
        assert_eq!(names(&mobile), [("--model-type mobilebert --num-layers 1".to_owned(), Some(1))]);
    }
}
