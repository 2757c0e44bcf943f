//! Several values for keys of a recipe (`--sweep`), and the recipes that they make.

use std::str::FromStr;

use anyhow::{Context, bail};
use serde_json::{Map, Value};

use super::Recipe;
use super::read::{Setting, read, read_swept, typed};
use crate::hint::HintExt;

/// More settings are hardly chosen well by the same few rows.
pub(crate) const MOST_SETTINGS: usize = 100;

/// The tables whose keys are settings; the others say what is learned from which rows.
const TABLES: [&str; 3] = ["student", "objective", "train"];

/// Keys of these tables that are no settings either.
const NO_SETTINGS: [(&str, &str); 3] = [
    ("train.seed", "a seed is no setting; `compare --seeds` trains with several"),
    ("train.metric", "it is what settings are compared by; give it with --set"),
    ("train.max_minutes", "trials take parts of the whole training's steps; sweep `train.max_steps`"),
];

/// One `--sweep key=a,b,c`: a dotted key of the recipe, and the values to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sweep {
    key: String,
    values: Vec<String>,
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Setting { key, value } =
            text.parse().map_err(|_| "must be key=a,b,.. with a key such as train.learning_rate".to_owned())?;
        let values = split(&value);
        if values.iter().any(String::is_empty) {
            return Err(format!("{key}: a value is empty; give values with commas between them"));
        }
        if let Some(twice) = values.iter().enumerate().find(|(at, value)| values[..*at].contains(value)) {
            return Err(format!("{key}: {} is there twice", twice.1));
        }
        if values.len() < 2 {
            return Err(format!("{key}: one value leaves nothing to choose; give several, or this one with --set"));
        }
        Ok(Self { key, values })
    }
}

/// Splits at commas, but for those within quotes and brackets.
fn split(text: &str) -> Vec<String> {
    let (mut values, mut quote, mut depth) = (vec![String::new()], None, 0_usize);
    for c in text.chars() {
        match (quote, c) {
            (None, ',') if depth == 0 => {
                values.push(String::new());
                continue;
            }
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if let Some(value) = values.last_mut() {
            value.push(c);
        }
    }
    values.iter().map(|value| value.trim().to_owned()).collect()
}

/// A recipe with one of the values of each key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Swept {
    /// The values, by key.
    pub(crate) settings: Map<String, Value>,
    pub(crate) recipe: Recipe,
}

/// The recipes that the sweeps make of this one: none without sweeps, else all combinations of their values.
pub(crate) fn sweep(name: &str, text: &str, set: &[Setting], sweeps: &[Sweep]) -> anyhow::Result<Vec<Swept>> {
    if sweeps.is_empty() {
        return Ok(Vec::new());
    }
    read(name, text, set)?;
    for (at, Sweep { key, .. }) in sweeps.iter().enumerate() {
        let table = key.split('.').next().unwrap_or_default();
        if let Some((_, reason)) = NO_SETTINGS.iter().find(|(other, _)| other == key) {
            bail!("--sweep {key}: {reason}");
        }
        if !TABLES.contains(&table) {
            return Err(anyhow::anyhow!("--sweep {key}: no setting of a student or its training"))
                .hint(format!("keys in `{}` can be swept; give others with --set", TABLES.join("`, `")));
        }
        if sweeps[..at].iter().any(|other| other.key == *key) || set.iter().any(|other| other.key == *key) {
            bail!("--sweep {key}: the key is given twice; give all its values in one --sweep");
        }
    }
    let count = sweeps.iter().map(|sweep| sweep.values.len()).fold(1, usize::saturating_mul);
    if count > MOST_SETTINGS {
        return Err(anyhow::anyhow!("--sweep: {count} combinations, and at most {MOST_SETTINGS} are tried"))
            .hint("give fewer values, or sweep one key after the other");
    }
    // One by one first, so that it is said which value is wrong.
    for Sweep { key, values } in sweeps {
        for value in values {
            let setting = Setting { key: key.clone(), value: value.clone() };
            let read = read_swept(name, text, set, std::slice::from_ref(&setting));
            read.with_context(|| format!("--sweep {key}={value}"))?;
        }
    }
    let mut all: Vec<Vec<Setting>> = vec![Vec::new()];
    for Sweep { key, values } in sweeps {
        let with = |value: &String| Setting { key: key.clone(), value: value.clone() };
        all =
            all.iter().flat_map(|some| values.iter().map(|value| [some.clone(), vec![with(value)]].concat())).collect();
    }
    all.into_iter().map(|settings| one(name, text, set, &settings)).collect()
}

/// The recipe with these values.
fn one(name: &str, text: &str, set: &[Setting], swept: &[Setting]) -> anyhow::Result<Swept> {
    let words = || swept.iter().map(|of| format!("{}={}", of.key, of.value)).collect::<Vec<_>>().join(" ");
    let checked = || {
        let recipe = read_swept(name, text, set, swept)?;
        recipe.check()?;
        anyhow::Ok(recipe)
    };
    let recipe = checked().with_context(|| format!("--sweep, with {}", words()))?;
    let value = |of: &Setting| Ok((of.key.clone(), serde_json::to_value(typed(&of.value))?));
    Ok(Swept { settings: swept.iter().map(value).collect::<anyhow::Result<_>>()?, recipe })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = "[teacher]\nmodel = \"t\"\n[data]\ntrain = \"a.tsv\"\n[[objective]]\nterm = \"soft_target\"\n\
                          weight = 0.5\ntemperature = 2.0\n";

    fn swept(sweeps: &[&str]) -> anyhow::Result<Vec<Swept>> {
        let sweeps: Vec<Sweep> = sweeps.iter().map(|text| text.parse().unwrap()).collect();
        sweep("recipe.toml", RECIPE, &["train.epochs=7".parse().unwrap()], &sweeps)
    }

    #[test]
    fn all_combinations_are_made() {
        let all = swept(&["train.learning_rate=1e-4,3e-4", "student.layers=\"0,2\",first"]).unwrap();
        let words: Vec<String> = all.iter().map(|of| serde_json::to_string(&of.settings).unwrap()).collect();
        assert_eq!(words[0], r#"{"train.learning_rate":0.0001,"student.layers":"0,2"}"#);
        assert_eq!(words[3], r#"{"train.learning_rate":0.0003,"student.layers":"first"}"#);
        assert_eq!(all.len(), 4);
        assert!(all.iter().all(|of| of.recipe.train.epochs == Some(7)));
        assert_eq!(all[2].recipe.train.learning_rate, Some(3e-4));
        assert_eq!(all[2].recipe.student.layers.to_string(), "0,2");
        assert_eq!(swept(&["objective.0.temperature=1,2.5"]).unwrap().len(), 2);
        assert_eq!(swept(&[]).unwrap(), []);
    }

    #[test]
    fn a_sweep_that_is_none_is_refused_as_it_is_read() {
        let error = |text: &str| text.parse::<Sweep>().unwrap_err();
        assert!(error("train.epochs").contains("key=a,b"));
        assert!(error("train.epochs=3").contains("nothing to choose"));
        assert!(error("train.epochs=3,,4").contains("empty"));
        assert!(error("train.epochs=3,3").contains("3 is there twice"));
    }

    #[test]
    fn keys_and_values_are_named() {
        let error = |sweeps: &[&str]| crate::hint::describe(&swept(sweeps).unwrap_err());
        for (sweep, expected) in [
            ("train.learnign_rate=1,2", vec!["--sweep train.learnign_rate=1", "did you mean `train.learning_rate`?"]),
            ("objective.0.temprature=1,2", vec!["did you mean `objective.0.temperature`?"]),
            ("train.warmup_ratio=0.1,lots", vec!["--sweep train.warmup_ratio=lots", "invalid type"]),
            ("train.learning_rate=1e-4,-1.0", vec!["train.learning_rate=-1.0", "expected a number above 0"]),
            ("objective.3.weight=1,2", vec!["--sweep objective.3.weight"]),
            ("data.train=a,b", vec!["--sweep data.train: no setting", "`student`"]),
            ("train.seed=1,2", vec!["--seeds"]),
            ("train.epochs=1,2", vec!["given twice"]),
        ] {
            for expected in expected {
                assert!(error(&[sweep]).contains(expected), "{}", error(&[sweep]));
            }
        }
        let many: Vec<String> = (1..=101).map(|value| value.to_string()).collect();
        assert!(error(&[&format!("student.num_layers={}", many.join(","))]).contains("101 combinations"));
    }
}
