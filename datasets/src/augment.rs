//! Makes new texts of texts, for a teacher to answer: each of its variants gets a soft label of its own.
//!
//! What is drawn for a variant depends on the seed, the texts of its row, the way and its number alone, so that the result is the
//! same for any number of threads. Ways that need a model are not here.

mod draw;
mod edits;
mod noise;
mod recombine;
mod rules;
mod synonyms;
mod templates;
mod words;

use std::collections::HashSet;

use rayon::prelude::*;

use crate::{Key, Row, text_key};
pub use draw::Draw;
pub use edits::{Delete, Fragment, Insert, Mask, Replace, Sentences, Swap};
pub use noise::{Characters, Keyboard, Ocr};
pub use recombine::Recombine;
pub use rules::Rules;
pub use synonyms::{SynonymError, SynonymReplacement, Synonyms};
pub use templates::{TemplateError, Templates};
pub use words::{Text, WordCutter};

/// A way to vary a text.
pub trait Vary: Sync {
    /// A variant, or `None` where the text is too short for one or has nothing that this way could change.
    fn vary(&self, text: &Text<'_>, draw: &mut Draw) -> Option<String>;
}

/// A way, and how many variants it makes of each row.
pub struct Way<'a> {
    /// Its name, for what is drawn and for [`Variant::way`].
    pub name: &'static str,
    /// Variants of each row.
    pub copies: usize,
    /// What makes them: of first texts or single ones, and of second texts.
    pub vary: [&'a dyn Vary; 2],
}

/// A row that was made of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// The texts; the label and the line are those of the row it was made of.
    pub row: Row,
    /// The place of that row among those given, from 0.
    pub origin: usize,
    /// The name of the way.
    pub way: &'static str,
}

/// Rows that are varied at once, between which new texts are compared.
const WINDOW: usize = 1 << 14;

/// Varies rows in every way, and hands each variant out once, in the order of rows, ways and numbers. Left out are variants that
/// are no new text: those among the rows, among those `known` besides, and those that were there before.
///
/// Of a pair one text is varied, drawn by the seed, and its partner stays.
pub fn augment(
    rows: &[Row],
    known: &[&[Row]],
    ways: &[Way<'_>],
    cutter: &WordCutter,
    seed: u64,
    mut take: impl FnMut(Variant),
) {
    let mut seen: HashSet<Key> = rows.par_iter().map(text_key).collect();
    known.iter().for_each(|rows| seen.extend(rows.iter().map(text_key)));
    for (window, chunk) in rows.chunks(WINDOW).enumerate() {
        let variants: Vec<Vec<(Key, Variant)>> = chunk
            .par_iter()
            .enumerate()
            .map(|(place, row)| variants(row, window * WINDOW + place, ways, cutter, seed))
            .collect();
        variants.into_iter().flatten().filter(|(key, _)| seen.insert(*key)).for_each(|(_, variant)| take(variant));
    }
}

/// All variants of a row.
fn variants(row: &Row, origin: usize, ways: &[Way<'_>], cutter: &WordCutter, seed: u64) -> Vec<(Key, Variant)> {
    let first = Text::new(&row.text, cutter);
    let second = row.text_b.as_ref().map(|text| Text::new(text, cutter));
    let of_row = text_key(row);
    let mut variants = Vec::new();
    for way in ways {
        for copy in 0..way.copies {
            let mut draw = Draw::new(seed, &of_row, way.name, copy);
            let [of_first, of_second] = way.vary;
            let varied = match &second {
                Some(second) if draw.below(2) == 1 => of_second.vary(second, &mut draw).map(|text| [None, Some(text)]),
                _ => of_first.vary(&first, &mut draw).map(|text| [Some(text), None]),
            };
            let Some([text, text_b]) = varied else { continue };
            let row = Row {
                text: text.unwrap_or_else(|| row.text.clone()),
                text_b: text_b.or_else(|| row.text_b.clone()),
                label: row.label.clone(),
                line: row.line,
            };
            if !row.text.trim().is_empty() && row.text_b.as_ref().is_none_or(|text| !text.trim().is_empty()) {
                variants.push((text_key(&row), Variant { row, origin, way: way.name }));
            }
        }
    }
    variants
}

#[cfg(test)]
mod tests;
