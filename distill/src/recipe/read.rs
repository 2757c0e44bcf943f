//! Reads a recipe from TOML and applies `--set` overrides.

use std::str::FromStr;

use anyhow::Context;
use toml::Value;

use super::{Recipe, stage};
use crate::hint::HintExt;

/// Parses a recipe, with the values of `--set` put in.
pub(crate) fn read(name: &str, text: &str, settings: &[Setting]) -> anyhow::Result<Recipe> {
    read_swept(name, text, settings, &[])
}

/// The same with one value of each `--sweep`.
pub(super) fn read_swept(name: &str, text: &str, settings: &[Setting], swept: &[Setting]) -> anyhow::Result<Recipe> {
    let table: toml::Table = toml::from_str(text).with_context(|| format!("{name}: no TOML"))?;
    let mut recipe = Value::Table(table);
    for (flag, settings) in [("--set", settings), ("--sweep", swept)] {
        for setting in settings {
            set(&mut recipe, setting, flag)?;
        }
    }
    stage::inherit(&mut recipe);
    let read: Result<Recipe, _> = recipe.try_into();
    let nearest = read.as_ref().err().and_then(|error| nearest(&error.to_string(), settings.iter().chain(swept)));
    let read = read.with_context(|| format!("{name}: not a recipe"));
    match nearest {
        Some(nearest) => read.hint(format!("did you mean `{nearest}`?")),
        None => read,
    }
}

/// The key that is nearest to an unknown one, of those that the message of the reader lists; with its table, if it was put in
/// by one of these settings.
fn nearest<'a>(message: &str, mut settings: impl Iterator<Item = &'a Setting>) -> Option<String> {
    let (unknown, known) = message.split_once("unknown field")?.1.split_once("expected")?;
    let unknown = unknown.split('`').nth(1)?;
    let known = known.lines().next()?.split('`').skip(1).step_by(2);
    let (distance, nearest) = known.map(|known| (strsim::levenshtein(unknown, known), known)).min()?;
    if distance > unknown.chars().count().div_ceil(3) {
        return None;
    }
    let table = settings.find_map(|setting| setting.key.strip_suffix(unknown)).unwrap_or_default();
    Some(format!("{table}{nearest}"))
}

/// A value as TOML where it is TOML, else as a string.
pub(super) fn typed(value: &str) -> Value {
    let typed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok();
    typed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(value.to_owned()))
}

/// Puts one value in.
fn set(recipe: &mut Value, Setting { key, value }: &Setting, flag: &str) -> anyhow::Result<()> {
    let typed = typed(value);
    let mut place = recipe;
    let mut path: Vec<&str> = key.split('.').collect();
    let last = path.pop().unwrap_or_default();
    for part in path {
        place = step(place, part).with_context(|| format!("{flag} {key}: `{part}` is no table of the recipe"))?;
    }
    match place {
        Value::Table(table) => {
            table.insert(last.to_string(), typed);
        }
        other => {
            let element = step(other, last).with_context(|| format!("{flag} {key}: there is no element `{last}`"))?;
            *element = typed;
        }
    }
    Ok(())
}

/// The part of a table, made if it is missing, or the element of a list.
fn step<'a>(place: &'a mut Value, part: &str) -> Option<&'a mut Value> {
    match place {
        Value::Table(table) => Some(table.entry(part).or_insert_with(|| Value::Table(toml::Table::new()))),
        Value::Array(list) => list.get_mut(part.parse::<usize>().ok()?),
        _ => None,
    }
}

/// One `--set key=value`: a dotted key of the recipe and the TOML value, or bare string, to put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Dotted path into the recipe, such as `train.learning_rate`.
    pub(crate) key: String,
    /// What to put there, as typed.
    pub(crate) value: String,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("must be key=value")?;
        let (key, value) = (key.trim(), value.trim());
        if key.split('.').any(str::is_empty) {
            return Err("must be key=value with a key such as train.learning_rate".to_owned());
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = "[teacher]\nmodel = \"t\"\n[data]\ntrain = \"a.tsv\"\n[[objective]]\nterm = \"soft_target\"\n\
                          weight = 0.5\ntemperature = 2.0\n";

    fn with(settings: &[&str]) -> anyhow::Result<Recipe> {
        let settings: Vec<Setting> = settings.iter().map(|text| text.parse().unwrap()).collect();
        read("recipe.toml", RECIPE, &settings)
    }

    #[test]
    fn settings_reach_every_depth() {
        let recipe = with(&[
            "train.epochs=7",
            "student.layers=0,2,4",
            "objective.0.temperature=4.0",
            "teacher.model=other/name",
            "train.keep=last",
            "data.quotes=csv",
            "data.unlabelled_value='-1'",
            "data.label_names=a, b",
        ])
        .unwrap();
        let columns = recipe.data.columns();
        assert_eq!(columns.quotes, Some(datasets::Quotes::Csv));
        assert_eq!(columns.unlabelled_value.as_deref(), Some("-1"));
        assert_eq!(columns.label_names, ["a", "b"]);
        assert_eq!(recipe.train.epochs, Some(7));
        assert_eq!(recipe.student.layers.to_string(), "0,2,4");
        assert_eq!(recipe.teacher.model, "other/name");
        assert_eq!(serde_json::to_value(&recipe.objective).unwrap()[0]["temperature"], 4.0);
    }

    #[test]
    fn unknown_keys_and_values_are_named() {
        let error = |settings: &[&str]| format!("{:#}", with(settings).unwrap_err());
        assert!(error(&["train.epoch=7"]).contains("unknown field `epoch`"), "{}", error(&["train.epoch=7"]));
        assert!(error(&["train.epochs=many"]).contains("invalid type"), "{}", error(&["train.epochs=many"]));
        assert!(error(&["objective.3.weight=1"]).contains("--set objective.3.weight"));
        assert!(error(&["teacher.model.x=1"]).contains("--set teacher.model.x"));
    }

    #[test]
    fn a_setting_splits_at_its_first_equals_sign() {
        let setting: Setting = "train.note = a=b".parse().expect("parses");
        assert_eq!((setting.key.as_str(), setting.value.as_str()), ("train.note", "a=b"));
        for text in ["train", "=3", "train..epochs=3", ".=1"] {
            assert!(text.parse::<Setting>().is_err(), "{text}");
        }
    }
}
