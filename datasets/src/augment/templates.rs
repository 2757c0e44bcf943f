//! Texts made of templates with slots: `fly from {city} to {city}`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Draw;

/// Templates and what may stand in their slots.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Templates {
    /// Texts with the names of slots in braces; `{{` and `}}` are braces themselves.
    pub templates: Vec<String>,
    /// By name.
    #[serde(default)]
    pub slots: BTreeMap<String, Vec<String>>,
}

/// Why templates cannot be filled.
#[allow(missing_docs)]
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("there are no templates")]
    None,
    #[error("template {template:?} has a slot `{slot}`, which is none of {known}")]
    UnknownSlot { template: String, slot: String, known: String },
    #[error("slot `{slot}` has nothing to stand in it")]
    EmptySlot { slot: String },
    #[error("template {template:?}: a brace is never closed, or never opened; `{{{{` and `}}}}` are braces themselves")]
    Brace { template: String },
}

/// A part of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    Text(&'a str),
    Slot(&'a str),
}

/// What is drawn for templates.
const DRAWN_FOR: &str = "templates";

impl Templates {
    /// The texts: all combinations where there are at most so many, else as many different ones, drawn by the seed, each template
    /// as often as it has combinations. An error if a slot is not there.
    pub fn fill(&self, most: usize, seed: u64) -> Result<Vec<String>, TemplateError> {
        if self.templates.is_empty() {
            return Err(TemplateError::None);
        }
        if let Some((slot, _)) = self.slots.iter().find(|(_, words)| words.is_empty()) {
            return Err(TemplateError::EmptySlot { slot: slot.clone() });
        }
        let templates = self.templates.iter().map(|template| self.parts(template)).collect::<Result<Vec<_>, _>>()?;
        let combinations = |parts: &Vec<Part<'_>>| {
            parts.iter().fold(1_usize, |count, part| match part {
                Part::Text(_) => count,
                Part::Slot(slot) => count.saturating_mul(self.slots[*slot].len()),
            })
        };
        let counts: Vec<usize> = templates.iter().map(combinations).collect();
        let all = counts.iter().fold(0_usize, |all, count| all.saturating_add(*count));
        let text = |mut number: usize| {
            let mut template = 0;
            while number >= counts[template] {
                number -= counts[template];
                template += 1;
            }
            self.filled(&templates[template], number)
        };
        if all <= most {
            return Ok((0..all).map(text).collect());
        }
        let mut draw = Draw::new(seed, &Default::default(), DRAWN_FOR, 0);
        let mut drawn = std::collections::BTreeSet::new();
        while drawn.len() < most {
            drawn.insert(draw.below(all));
        }
        Ok(drawn.into_iter().map(text).collect())
    }

    /// A template's combination by its number.
    fn filled(&self, parts: &[Part<'_>], mut number: usize) -> String {
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Slot(slot) => {
                    let words = &self.slots[*slot];
                    text.push_str(&words[number % words.len()]);
                    number /= words.len();
                }
            }
        }
        text
    }

    fn parts<'t>(&self, template: &'t str) -> Result<Vec<Part<'t>>, TemplateError> {
        let brace = || TemplateError::Brace { template: template.to_owned() };
        let (mut parts, mut rest) = (Vec::new(), template);
        while let Some(place) = rest.find(['{', '}']) {
            let doubled = rest[place + 1..].starts_with(&rest[place..=place]);
            let end = place + usize::from(doubled);
            parts.push(Part::Text(&rest[..end]));
            if doubled {
                rest = &rest[place + 2..];
                continue;
            }
            let (slot, after) =
                rest[place..].strip_prefix('{').and_then(|rest| rest.split_once('}')).ok_or_else(brace)?;
            if !self.slots.contains_key(slot) {
                let known: Vec<String> = self.slots.keys().map(|slot| format!("`{slot}`")).collect();
                let known =
                    if known.is_empty() { "the slots, since there are none".to_owned() } else { known.join(", ") };
                return Err(TemplateError::UnknownSlot { template: template.to_owned(), slot: slot.to_owned(), known });
            }
            parts.push(Part::Slot(slot));
            rest = after;
        }
        parts.push(Part::Text(rest));
        Ok(parts)
    }
}
