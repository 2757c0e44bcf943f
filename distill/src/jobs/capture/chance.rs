//! Whether a teacher is any better than chance: told from a sample of the labelled rows, before all of them are captured.

use cache::CacheReader;
use datasets::{Row, TextTokenizer};
use nn::Model;

use crate::data;
use crate::inference::forward_all;
use crate::scores;
use crate::signal::cached;

/// Rows of a sample: enough to tell a teacher of two classes that is right on 55 of 100 rows from chance.
const SAMPLE_ROWS: usize = 512;

/// Some of the labelled rows, from all over the data: which ones follows from their numbers alone.
pub(crate) struct Sample {
    /// The rows with the lowest draws so far, up to twice as many as are kept in the end.
    drawn: Vec<(u64, Row, u32)>,
    /// What a draw has to be below to be among them.
    below: u64,
    labelled: u64,
}

impl Sample {
    pub(super) fn new() -> Self {
        Self { drawn: Vec::new(), below: u64::MAX, labelled: 0 }
    }

    /// Takes the next row of the data into account.
    pub(super) fn offer(&mut self, row: &Row, label: Option<u32>) {
        let Some(label) = label else { return };
        let draw = draw(self.labelled);
        self.labelled += 1;
        if draw < self.below {
            self.drawn.push((draw, row.clone(), label));
            if self.drawn.len() == 2 * SAMPLE_ROWS {
                self.trim();
            }
        }
    }

    fn trim(&mut self) {
        self.drawn.sort_unstable_by_key(|(draw, ..)| *draw);
        self.drawn.truncate(SAMPLE_ROWS);
        if let (SAMPLE_ROWS, Some((largest, ..))) = (self.drawn.len(), self.drawn.last()) {
            self.below = *largest;
        }
    }

    /// Whether any row has a label.
    pub(super) fn is_empty(&self) -> bool {
        self.labelled == 0
    }

    /// Refuses a teacher that these rows show to be no better than chance. Its answers are read from a cache where that has
    /// them all.
    pub(super) fn refuse_chance(
        &mut self,
        teacher: &mut Model,
        tokenizer: &TextTokenizer,
        max_length: usize,
        batch_tokens: usize,
        cache: Option<&CacheReader>,
    ) -> anyhow::Result<()> {
        self.trim();
        let classes = teacher.config().labels.len();
        let rows: Vec<Row> = self.drawn.iter().map(|(_, row, _)| row.clone()).collect();
        let labels: Vec<Option<u32>> = self.drawn.iter().map(|(.., label)| Some(*label)).collect();
        if rows.len() < data::FEWEST_FOR_CHANCE {
            return Ok(());
        }
        let encodings = tokenizer.encode(&rows, max_length)?;
        let keys = encodings.keys();
        let known = cache.map(|cache| cached::accuracy(cache, &keys, &labels)).transpose()?.flatten();
        let accuracy = match known {
            Some((accuracy, labelled)) if labelled == rows.len() => accuracy,
            _ => {
                let logits = forward_all(teacher, &encodings, batch_tokens, |_| ())?;
                scores::accuracy(&scores::predictions(&logits, classes), &labels)
            }
        };
        data::refuse_chance(accuracy, rows.len(), classes)
    }
}

/// A number drawn for the row of this number.
fn draw(number: u64) -> u64 {
    let hash = blake3::hash(&number.to_le_bytes());
    hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rows: usize) -> Sample {
        let mut sample = Sample::new();
        for line in 0..rows {
            let row = Row { text: "t".into(), text_b: None, label: None, line };
            sample.offer(&row, (line % 2 == 0).then_some(1));
        }
        sample.trim();
        sample
    }

    #[test]
    fn a_sample_is_of_labelled_rows_from_all_over_the_data() {
        let few = sample(100);
        assert_eq!(
            (few.drawn.len(), few.is_empty(), sample(1).is_empty(), sample(0).is_empty()),
            (50, false, false, true)
        );
        let many = sample(100_000);
        assert_eq!(many.drawn.len(), SAMPLE_ROWS);
        let late = many.drawn.iter().filter(|(_, row, _)| row.line >= 50_000).count();
        assert!((200..312).contains(&late), "{late} of {SAMPLE_ROWS} rows from the second half");
        // The lowest draws of all, whatever was thrown away on the way.
        let mut draws: Vec<u64> = (0..50_000).map(draw).collect();
        draws.sort_unstable();
        assert!(many.drawn.iter().map(|(draw, ..)| draw).eq(&draws[..SAMPLE_ROWS]));
    }
}
