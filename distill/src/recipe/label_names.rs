//! Class names as a person gives them: on the command line, in a recipe, or in a file.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// Class names in the model's order, without the blanks around them: a list, or what a file has, one name a line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct LabelNameList(pub(crate) Vec<String>);

impl FromStr for LabelNameList {
    type Err = String;

    /// `A,B,..`, or `@FILE`; the name of a file that is there, alone, is that file too, since one name makes no list.
    fn from_str(text: &str) -> Result<Self, String> {
        let alone = || Some(text).filter(|text| !text.contains(',') && Path::new(text).is_file());
        let trimmed = |name: &str| name.trim().to_owned();
        match text.strip_prefix('@').or_else(alone) {
            None => Ok(Self(text.split(',').map(trimmed).collect())),
            Some(file) => {
                let text = fs::read_to_string(file).map_err(|error| format!("{file}: cannot be read: {error}"))?;
                let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
                Ok(Self(text.lines().map(trimmed).filter(|name| !name.is_empty()).collect()))
            }
        }
    }
}

impl<'de> Deserialize<'de> for LabelNameList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            List(Vec<String>),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::List(names) => Ok(Self(names.iter().map(|name| name.trim().to_owned()).collect())),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.parse::<LabelNameList>().expect("names").0
    }

    #[test]
    fn names_are_a_list_or_the_lines_of_a_file() {
        assert_eq!(names("neg, pos ,a b"), ["neg", "pos", "a b"]);
        assert_eq!(names("a,,b"), ["a", "", "b"], "refused where the names are used, with the class");
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(&file, "\u{feff}Paris, Texas\r\n  New York \n\nRome").expect("writes");
        let path = file.path().display().to_string();
        assert_eq!(names(&format!("@{path}")), ["Paris, Texas", "New York", "Rome"]);
        assert_eq!(names(&path), ["Paris, Texas", "New York", "Rome"]);
        let error = "@nowhere.txt".parse::<LabelNameList>().expect_err("refused");
        assert!(error.starts_with("nowhere.txt: cannot be read"), "{error}");
        let read = |json: &str| serde_json::from_str::<LabelNameList>(json).map(|names| names.0);
        assert_eq!(read(r#"["Paris, Texas", " b "]"#).expect("a list"), ["Paris, Texas", "b"]);
        assert_eq!(read(r#""a, b""#).expect("a text"), ["a", "b"]);
        assert!(read(r#""@nowhere.txt""#).is_err());
    }
}
