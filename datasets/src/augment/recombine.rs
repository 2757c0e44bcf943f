//! The beginning of a text with the end of another one, cut at the same part of their lengths: what data sets for transfer lack
//! (Mukherjee et al., 2021, "XtremeDistilTransformers").

use super::{Draw, Text, Vary, WordCutter};

/// Puts the end of another text behind the beginning.
#[derive(Debug)]
pub struct Recombine<'a> {
    /// Texts to draw from, which are not empty.
    pub texts: &'a [&'a str],
    /// Cuts them into words.
    pub cutter: &'a WordCutter,
}

impl Vary for Recombine<'_> {
    fn vary(&self, text: &Text<'_>, draw: &mut Draw) -> Option<String> {
        let other = Text::new(draw.one::<&str>(self.texts), self.cutter);
        if text.len() < 2 || other.len() < 2 {
            return None;
        }
        let kept = 1 + draw.below(text.len() - 1);
        let skipped = (kept * other.len()).div_ceil(text.len()).clamp(1, other.len() - 1);
        let beginning = &text.text[..text.place(kept - 1).end];
        let space = if text.is_dense(kept - 1) { "" } else { " " };
        Some(format!("{beginning}{space}{}", &other.text[other.place(skipped).start..]))
    }
}
