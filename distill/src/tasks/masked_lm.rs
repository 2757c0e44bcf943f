//! Masked-language modelling, as in BERT's pretraining: predicts the original tokens at masked positions. Labels are
//! not used.

use cache::{Captured, Dtype, LogitForm, Masks, Outputs};
use datasets::{Encodings, Masking, RowLength, TextTokenizer, forward_batches};
use nn::{Compute, Head, Model, PackedInput};
use teacher::HubOptions;

use super::common::{Questions, Source, Start, StoredByDefault};
use crate::data::{self, Split};
use crate::inference::packed;
use crate::model::{self, TextModel};
use crate::scores::{self, Evaluated, Scores};
use crate::ui;

/// Maximum tokens per forward pass in a capture whose logits all come to the host: 512 x 30,522 take 62 MB, and a few
/// batches are in flight at a time.
const MOST_BATCH_TOKENS: usize = 512;

/// Most bytes of one pass' logits where a GPU keeps them, since only the largest are stored: 4,397 tokens of 30,522.
const MOST_DEVICE_LOGIT_BYTES: usize = 512 << 20;

/// Maximum tokens per forward pass in a capture, where every token has logits.
pub(super) fn most_batch_tokens(captured: &Captured, compute: &Compute) -> usize {
    let stay = matches!(&captured.logits, LogitForm::TopK { k, .. } if compute.selects_top(*k, captured.width));
    let fit = MOST_DEVICE_LOGIT_BYTES / (captured.width.max(1) * size_of::<f32>());
    if stay { fit.max(MOST_BATCH_TOKENS) } else { MOST_BATCH_TOKENS }
}

/// Only the largest logits of each token, since there is one for every word of the vocabulary.
pub(super) const STORED_BY_DEFAULT: StoredByDefault =
    StoredByDefault { outputs: Outputs::Token, top_k: Some(64), dtype: Dtype::F16 };

/// The masking of texts of this tokenizer.
pub(super) fn masking(masks: Masks, tokenizer: &TextTokenizer) -> Result<Masking, datasets::Error> {
    Masking::new(tokenizer, masks.probability, masks.seed)
}

/// Loads a model that has a masked-language-model head.
pub(super) fn load(name: &str, hub: &HubOptions) -> anyhow::Result<TextModel> {
    let way_out = format!("train one: distill finetune --task masked-lm --model {name} --data FILE --output FOLDER");
    model::load_with_head(name, hub, Head::MaskedLm, "masked-language-model", way_out)
}

/// Loads a model and texts to fine-tune it on; missing parameters of the head are initialised at random.
pub(super) fn start(source: &Source<'_>) -> anyhow::Result<Start> {
    let mut model = model::load_for(source.model, source.hub, Head::MaskedLm)?;
    if !model.missing_head.is_empty() {
        for slot in std::mem::take(&mut model.missing_head) {
            model.parameters.randomize(slot, model.config.encoder.pad_token_id, source.seed);
        }
        ui::say("a new masked-language-model head starts at random");
    }
    let (train, validation) = read(source, &model)?;
    Ok(Start { model, train, validation })
}

/// Reads the texts in tokens of a model.
pub(super) fn read(source: &Source<'_>, model: &TextModel) -> anyhow::Result<(Split, Split)> {
    let length = row_length(source.pack, model.max_length(source.columns.max_length)?);
    data::read_tokens(source.data, source.validation, source.columns, &model.tokenizer, length)
}

/// How texts become rows.
pub(crate) fn row_length(pack: bool, max_length: usize) -> RowLength {
    if pack { RowLength::Packed(max_length) } else { RowLength::AtMost(max_length) }
}

/// Masked rows; the masks differ between passes over the data.
pub(super) fn ask(masking: &Masking, pass: u64, encodings: &Encodings, rows: &[u32]) -> Questions {
    let masked = masking.gather(pass, encodings, rows);
    let answers = masked.originals.into_iter().map(Some).collect();
    Questions { batch: masked.batch, positions: Some(masked.positions), answers }
}

/// Accuracy on masked tokens; the same masks are used in every evaluation.
pub(super) fn score(
    model: &mut Model,
    masking: &Masking,
    rows: &Encodings,
    batch_tokens: usize,
) -> anyhow::Result<Evaluated> {
    let words = model.config().encoder.outputs();
    let (mut masked, mut right, mut loss) = (0, 0, 0.0);
    for batch in forward_batches(&rows.lengths(), batch_tokens) {
        let batch = masking.gather(0, rows, &batch);
        let input = PackedInput { positions: Some(&batch.positions), ..packed(&batch.batch) };
        let logits = model.logits(input)?;
        let predicted = scores::predictions(&logits, words);
        let originals: Vec<Option<u32>> = batch.originals.iter().copied().map(Some).collect();
        loss += scores::summed_cross_entropy(&logits, &originals, words).0;
        masked += predicted.len();
        right += predicted.iter().zip(&batch.originals).filter(|(predicted, original)| predicted == original).count();
    }
    let loss = (masked > 0).then(|| loss / masked as f64);
    Ok(Evaluated { scores: Scores::of_tokens(right, masked), only_class: None, loss })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulated::emulated_gpu;
    use nn::cuda::Precision;

    #[test]
    fn a_gpu_takes_as_many_tokens_as_it_has_room_for_the_logits_of_if_it_selects_the_largest() {
        let Some(device) = emulated_gpu() else { return };
        let gpu = Compute::Cuda { device, precision: Precision::Bf16 };
        let captured = |k, width| {
            let logits = LogitForm::TopK { k, dtype: Dtype::F16, temperatures: vec![1.0] };
            Captured { logits, ..Captured::dense(width, Dtype::F16) }
        };
        for (captured, on_gpu) in [
            (captured(64, 30_522), 4397),
            (captured(64, 250_002), 536),
            (captured(64, 1_000_000), 512),
            // More than the GPU selects, and all.
            (captured(300, 30_522), 512),
            (Captured::dense(30_522, Dtype::F16), 512),
        ] {
            assert_eq!(most_batch_tokens(&captured, &gpu), on_gpu, "{captured:?}");
            assert_eq!(most_batch_tokens(&captured, &Compute::Cpu), 512);
        }
    }
}
