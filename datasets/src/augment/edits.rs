//! Changes of words: their order, their number, and which ones they are.
//!
//! Deletion, insertion and swapping as Wei and Zou (2019, "EDA"), but upper case and punctuation stay; masking and fragments as
//! Tang et al. (2019, "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks"); replacement by words of the
//! data as Xie et al. (2017, "Data Noising as Smoothing in Neural Network Language Models").

use unicode_segmentation::UnicodeSegmentation;

use super::{Draw, Text, Vary};

/// Exchanges two words, for each of so large a part of them.
#[derive(Debug, Clone, Copy)]
pub struct Swap {
    /// Part of the words.
    pub rate: f64,
}

impl Vary for Swap {
    fn vary(&self, text: &Text<'_>, draw: &mut Draw) -> Option<String> {
        if text.len() < 2 {
            return None;
        }
        let mut order: Vec<usize> = (0..text.len()).collect();
        for _ in 0..text.part(self.rate) {
            let one = draw.below(order.len());
            let other = draw.below(order.len() - 1);
            order.swap(one, if other >= one { other + 1 } else { other });
        }
        Some(text.with(|number| Some(text.word(order[number]))))
    }
}

/// Leaves out so large a part of the words, and never all.
#[derive(Debug, Clone, Copy)]
pub struct Delete {
    /// Part of the words.
    pub rate: f64,
}

impl Vary for Delete {
    fn vary(&self, text: &Text<'_>, draw: &mut Draw) -> Option<String> {
        let count = text.part(self.rate);
        if count >= text.len() {
            return None;
        }
        let gone = chosen(&draw.several(count, text.len()), text.len());
        Some(text.without(|number| gone[number]))
    }
}

/// Puts words of the data, as often as they occur there, before so large a part of the words.
#[derive(Debug, Clone)]
pub struct Insert<'a> {
    /// Part of the words.
    pub rate: f64,
    /// Words to draw from, which are not empty.
    pub words: &'a [&'a str],
}

impl Vary for Insert<'_> {
    fn vary(&self, text: &Text<'_>, draw: &mut Draw) -> Option<String> {
        if text.is_empty() {
            return None;
        }
        let places = draw.several(text.part(self.rate), text.len());
        let mut words: Vec<Option<String>> = vec![None; text.len()];
        for place in places {
            let space = if text.is_dense(place) { "" } else { " " };
            words[place] = Some(format!("{}{space}{}", draw.one(self.words), text.word(place)));
        }
        Some(text.with(|number| words[number].as_deref()))
    }
}

/// Puts words of the data, as often as they occur there, in the place of so large a part of the words.
#[derive(Debug, Clone)]
pub struct Replace<'a> {
    /// Part of the words.
    pub rate: f64,
    /// Words to draw from, which are not empty.
    pub words: &'a [&'a str],
}

impl Vary for Replace<'_> {
    fn vary(&self, text: &Text<'_>, draw: &mut Draw) -> Option<String> {
        // Of a single word nothing would be left.
        if text.len() < 2 {
            return None;
        }
        let places = draw.several(text.part(self.rate).min(text.len() - 1), text.len());
        let mut words = vec![None; text.len()];
        places.into_iter().for_each(|place| words[place] = Some(*draw.one(self.words)));
        Some(text.with(|number| words[number]))
    }
}

/// Hides so large a part of the words behind the token that a masked-language model fills in, and never all.
#[derive(Debug, Clone)]
pub struct Mask {
    /// Part of the words.
    pub rate: f64,
    /// The token as it is written, such as `[MASK]`.
    pub token: String,
}

impl Vary for Mask {
    fn vary(&self, text: &Text<'_>, draw: &mut Draw) -> Option<String> {
        let count = text.part(self.rate);
        if count >= text.len() {
            return None;
        }
        let hidden = chosen(&draw.several(count, text.len()), text.len());
        Some(text.with(|number| hidden[number].then_some(&*self.token)))
    }
}

/// For each of so many words whether it is one of these.
fn chosen(places: &[usize], words: usize) -> Vec<bool> {
    let mut chosen = vec![false; words];
    places.iter().for_each(|place| chosen[*place] = true);
    chosen
}

/// Some words of the text that stand in a row: from two of them to all but one.
#[derive(Debug, Clone, Copy)]
pub struct Fragment;

impl Vary for Fragment {
    fn vary(&self, text: &Text<'_>, draw: &mut Draw) -> Option<String> {
        if text.len() < 3 {
            return None;
        }
        let count = 2 + draw.below(text.len() - 2);
        let first = draw.below(text.len() - count + 1);
        Some(text.text[text.place(first).start..text.place(first + count - 1).end].to_owned())
    }
}

/// The sentences of a text in another order.
#[derive(Debug, Clone, Copy)]
pub struct Sentences;

impl Vary for Sentences {
    fn vary(&self, text: &Text<'_>, draw: &mut Draw) -> Option<String> {
        let sentences: Vec<&str> = text.text.unicode_sentences().map(str::trim).collect();
        if sentences.len() < 2 {
            return None;
        }
        let order = draw.several(sentences.len(), sentences.len());
        let dense = text.is_dense(text.len().checked_sub(1)?) && !text.text.contains(' ');
        Some(order.into_iter().map(|number| sentences[number]).collect::<Vec<_>>().join(if dense { "" } else { " " }))
    }
}
