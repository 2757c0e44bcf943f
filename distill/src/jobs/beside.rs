//! A teacher whose values of tokens are compared with its student's: that runs beside it, or whose hidden states are in the
//! cache.

use std::collections::HashMap;

use anyhow::anyhow;
use cache::{CacheReader, HiddenTokens};
use datasets::{Encodings, Key, Row, TextTokenizer};
use nn::{Compute, Model, Tap};

use crate::hint::HintExt;
use crate::model::TextModel;
use crate::objective::Objective;

/// The training rows as a teacher reads them. With `same_tokens` an error if it reads other pieces of a text than the student,
/// so that the values of its tokens are not those of the student's; a vocabulary that was cut is no hindrance if it still has
/// all pieces of the rows.
pub(super) fn read(
    teacher: &TextTokenizer,
    student: &TextTokenizer,
    rows: &[Row],
    theirs: &Encodings,
    max_length: usize,
    same_tokens: Option<&str>,
) -> anyhow::Result<Encodings> {
    let rows = teacher.encode(rows, max_length)?;
    let Some(term) = same_tokens else { return Ok(rows) };
    let mut known: HashMap<[u32; 2], bool> = HashMap::new();
    let mut same = |ours: u32, theirs: u32| {
        *known.entry([ours, theirs]).or_insert_with(|| teacher.token(ours) == student.token(theirs))
    };
    for row in 0..rows.len() {
        let (ours, theirs) = (rows.ids(row), theirs.ids(row));
        if ours.len() != theirs.len() || !ours.iter().zip(theirs).all(|(a, b)| same(*a, *b)) {
            return Err(anyhow!(
                "`{term}` compares the values of tokens, and teacher and student read row {} in other pieces",
                row + 1
            ))
            .hint(
                "give the student its teacher's tokenizer and --max-length, with a vocabulary that has all pieces of the \
                 rows; or learn from logits alone",
            );
        }
    }
    Ok(rows)
}

/// The teacher as a model that computes, without dropout.
pub(super) fn model(teacher: TextModel, compute: &Compute) -> anyhow::Result<Model> {
    Ok(Model::on(compute, teacher.config, teacher.parameters)?)
}

/// Whether the cache has all hidden states that the terms of a loss compare of these rows, so that the teacher need not run.
pub(super) fn has_hidden_states(cache: &CacheReader, keys: &[Key], objective: &Objective) -> anyhow::Result<bool> {
    let Some(stored) = &cache.captured().hidden_states else { return Ok(false) };
    let [_, taps] = objective.taps();
    let enough = stored.tokens == HiddenTokens::All || objective.compares_first_tokens_alone();
    let known = |tap: &Tap| matches!(tap, Tap::Hidden(layer) if stored.layers.contains(layer));
    if !enough || taps.is_empty() || !taps.iter().all(known) {
        return Ok(false);
    }
    for key in keys {
        if !cache.contains(key)? {
            return Ok(false);
        }
    }
    Ok(true)
}
