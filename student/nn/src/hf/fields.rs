//! The fields of a `config.json`, each read with what is expected of it.

use serde_json::{Map, Value};

use crate::{Activation, Error};

/// The nearest number in shortest decimal form: 0.1, not the nearest `f64` of the `f32`.
pub(crate) fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// `a, b or c`
pub(crate) fn one_of(names: &[&str]) -> String {
    match names {
        [] | [_] => names.concat(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The fields of a `config.json`.
pub(crate) struct Fields<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// The field, where it is there and not null.
    fn get(&self, field: &str) -> Option<&'a Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    /// Whether the field is there and not null.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.get(field).is_some()
    }

    pub(crate) fn text(&self, field: &str) -> Result<Option<&'a str>, Error> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(bad(field, other, "a string")),
        }
    }

    pub(crate) fn size(&self, field: &str) -> Result<usize, Error> {
        self.optional_size(field)?.ok_or_else(|| Error::MissingField { field: field.into() })
    }

    pub(crate) fn size_or(&self, field: &str, default: usize) -> Result<usize, Error> {
        Ok(self.optional_size(field)?.unwrap_or(default))
    }

    fn optional_size(&self, field: &str) -> Result<Option<usize>, Error> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_u64().filter(|&n| n <= 1 << 24) {
            Some(n) => Ok(Some(n as usize)),
            None => Err(bad(field, value, "a whole number up to 16,777,216")),
        }
    }

    pub(crate) fn rate(&self, field: &str, default: f32) -> Result<f32, Error> {
        let Some(value) = self.get(field) else { return Ok(default) };
        value.as_f64().map(|rate| rate as f32).ok_or_else(|| bad(field, value, "a number"))
    }

    pub(crate) fn flag(&self, field: &str, default: bool) -> Result<bool, Error> {
        let Some(value) = self.get(field) else { return Ok(default) };
        value.as_bool().ok_or_else(|| bad(field, value, "true or false"))
    }

    pub(crate) fn activation(&self, field: &str, default: Activation) -> Result<Activation, Error> {
        match self.text(field)? {
            None => Ok(default),
            // By the error function, and by tanh, each in the several forms of `transformers`, which differ in rounding alone.
            Some("gelu" | "gelu_python") => Ok(Activation::Gelu),
            Some("gelu_new" | "gelu_fast" | "gelu_accurate" | "gelu_pytorch_tanh" | "gelu_python_tanh") => {
                Ok(Activation::GeluNew)
            }
            Some("relu") => Ok(Activation::Relu),
            Some(other) => Err(bad(field, other, "gelu, gelu_python, gelu_new, gelu_fast, gelu_pytorch_tanh or relu")),
        }
    }

    /// The names of the classes by their ids, or generic ones; whole numbers are names as they are spelled.
    pub(crate) fn labels(&self) -> Result<Vec<String>, Error> {
        let Some(value) = self.get("id2label") else {
            let count = self.size_or("num_labels", 2)?;
            return Ok((0..count).map(|id| format!("LABEL_{id}")).collect());
        };
        let expected = "an object from the ids \"0\", \"1\", ... to distinct class names";
        let map = value.as_object().ok_or_else(|| bad("id2label", value, expected))?;
        let last = map.len().saturating_sub(1);
        let mut names: Vec<String> = Vec::with_capacity(map.len());
        for id in 0..map.len() {
            let name = match map.get(&id.to_string()) {
                Some(Value::String(name)) => name.clone(),
                Some(Value::Number(number)) if number.is_i64() || number.is_u64() => number.to_string(),
                Some(other) => return Err(bad("id2label", format!("{other} for the id {id}"), expected)),
                None => {
                    let keys: Vec<&str> = map.keys().map(String::as_str).take(8).collect();
                    let found = format!("an object with the keys {}, without {id}", keys.join(", "));
                    let expected =
                        format!("the ids 0 to {last}, in the order of the model's outputs; number them anew");
                    return Err(bad("id2label", found, &expected));
                }
            };
            if let Some(first) = names.iter().position(|other| *other == name) {
                let found = format!("twice the name {name:?}, for the ids {first} and {id}");
                return Err(bad("id2label", found, &format!("{expected}; give each class a name of its own there")));
            }
            names.push(name);
        }
        Ok(names)
    }
}

/// Refuses a field, naming what was found and what was expected.
pub(crate) fn bad(field: &str, found: impl ToString, expected: &str) -> Error {
    Error::BadField { field: field.into(), found: found.to_string(), expected: expected.into() }
}
