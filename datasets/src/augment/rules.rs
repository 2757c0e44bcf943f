//! Phrases that may stand for each other, from a file: one of them in the place of another.

use std::collections::HashSet;

use serde::Deserialize;

use super::{Draw, Text, Vary};

/// Groups of phrases that mean the same.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Rules(pub Vec<Vec<String>>);

impl Vary for Rules {
    /// Replaces one occurrence of a phrase, drawn from all, by another one of its group. Phrases begin and end where
    /// words do, and are found in any case.
    fn vary(&self, text: &Text<'_>, draw: &mut Draw) -> Option<String> {
        let starts: Vec<usize> = (0..text.len()).map(|number| text.place(number).start).collect();
        let ends_of_words: HashSet<usize> = (0..text.len()).map(|number| text.place(number).end).collect();
        let mut found = Vec::new();
        for group in &self.0 {
            for phrase in group {
                for start in &starts {
                    if let Some(end) = ends(&text.text[*start..], phrase).map(|length| start + length)
                        && (ends_of_words.contains(&end) || !phrase.ends_with(char::is_alphanumeric))
                    {
                        found.push((*start..end, group, phrase));
                    }
                }
            }
        }
        if found.is_empty() {
            return None;
        }
        let (place, group, phrase) = draw.one(&found);
        let others: Vec<&String> = group.iter().filter(|other| other != phrase).collect();
        if others.is_empty() {
            return None;
        }
        let [before, after] = [&text.text[..place.start], &text.text[place.end..]];
        let other = draw.one(&others);
        let capital = text.text[place.clone()].chars().next().is_some_and(char::is_uppercase);
        let mut characters = other.chars();
        let other = match (capital, characters.next()) {
            (true, Some(first)) => first.to_uppercase().chain(characters).collect(),
            _ => (*other).clone(),
        };
        Some(format!("{before}{other}{after}"))
    }
}

/// The bytes of a text that a phrase takes, if the text begins with it in any case.
fn ends(text: &str, phrase: &str) -> Option<usize> {
    let mut characters = text.chars();
    let mut length = 0;
    for wanted in phrase.chars() {
        let found = characters.next()?;
        if found != wanted && !found.to_lowercase().eq(wanted.to_lowercase()) {
            return None;
        }
        length += found.len_utf8();
    }
    (length > 0).then_some(length)
}
