//! A teacher that runs beside its student, on the same tokens.

use std::collections::HashMap;

use anyhow::anyhow;
use datasets::{Encodings, Row, TextTokenizer};
use nn::{Compute, Model};

use crate::hint::HintExt;
use crate::model::TextModel;

/// The model, without dropout, and the training rows as it reads them.
pub(super) struct Beside {
    pub(super) model: Model,
    pub(super) rows: Encodings,
}

impl Beside {
    /// The teacher of a student that reads these rows as `theirs`. With `same_tokens` an error if it reads other pieces of a
    /// text, so that the values of its tokens are not those of the student's; a vocabulary that was cut is no hindrance if it
    /// still has all pieces of the rows.
    pub(super) fn new(
        teacher: TextModel,
        student: &TextTokenizer,
        rows: &[Row],
        theirs: &Encodings,
        max_length: usize,
        same_tokens: Option<&str>,
        compute: &Compute,
    ) -> anyhow::Result<Self> {
        let TextModel { config, parameters, tokenizer, .. } = teacher;
        let rows = tokenizer.encode(rows, max_length)?;
        if let Some(term) = same_tokens {
            let mut known: HashMap<[u32; 2], bool> = HashMap::new();
            let mut same = |ours: u32, theirs: u32| {
                *known.entry([ours, theirs]).or_insert_with(|| tokenizer.token(ours) == student.token(theirs))
            };
            for row in 0..rows.len() {
                let (ours, theirs) = (rows.ids(row), theirs.ids(row));
                let other = ours.len() != theirs.len() || !ours.iter().zip(theirs).all(|(a, b)| same(*a, *b));
                if other {
                    return Err(anyhow!(
                        "`{term}` compares the values of tokens, and teacher and student read row {} in other pieces",
                        row + 1
                    ))
                    .hint(
                        "give the student its teacher's tokenizer and --max-length, with a vocabulary that has all pieces \
                         of the rows; or learn from logits alone",
                    );
                }
            }
        }
        Ok(Self { model: Model::on(compute, config, parameters)?, rows })
    }
}
