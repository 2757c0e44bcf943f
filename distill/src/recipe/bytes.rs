//! A number of bytes, as people write it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ui;

/// A number of bytes: `4GiB`, `500MB`, `1000000`; decimal unless the unit has an `i`. In a recipe a text or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "u64")]
pub(crate) struct Bytes(pub(crate) u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const DECIMAL: u64 = 1000;
        const BINARY: u64 = 1024;
        let units = [
            ("", 1),
            ("b", 1),
            ("k", DECIMAL),
            ("kb", DECIMAL),
            ("m", DECIMAL.pow(2)),
            ("mb", DECIMAL.pow(2)),
            ("g", DECIMAL.pow(3)),
            ("gb", DECIMAL.pow(3)),
            ("ki", BINARY),
            ("kib", BINARY),
            ("mi", BINARY.pow(2)),
            ("mib", BINARY.pow(2)),
            ("gi", BINARY.pow(3)),
            ("gib", BINARY.pow(3)),
        ];
        let refused = || "must be a size such as 20MB, 20MiB or 20000000".to_owned();
        with_unit(text, &units).map(Self).ok_or_else(refused)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&ui::bytes(self.0))
    }
}

impl From<Bytes> for u64 {
    fn from(bytes: Bytes) -> Self {
        bytes.0
    }
}

/// As it stands in a recipe or a record.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a size such as 20MB, or a whole number of bytes")]
enum Written {
    Number(u64),
    Text(String),
}

impl TryFrom<Written> for Bytes {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Number(bytes) => bytes.to_string().parse(),
            Written::Text(text) => text.parse(),
        }
    }
}

/// The number that stands before one of the units, in whole ones, at least 1. Capitals do not matter.
pub(crate) fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let value = number.parse::<f64>().ok()? * *factor as f64;
    (1.0..1e18).contains(&value).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal_or_binary_as_they_say() {
        for (text, expected) in [
            ("20MB", 20_000_000),
            ("20M", 20_000_000),
            ("20 mb", 20_000_000),
            ("20MiB", 20 << 20),
            ("1.5GiB", 3 << 29),
            ("512", 512),
            ("512B", 512),
            ("7kB", 7_000),
            ("7KiB", 7_168),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(expected)), "{text}");
        }
        for text in ["", "MB", "5MBB", "-1", "0B", "5T"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_recipe_has_a_size_as_text_or_as_a_number() {
        let read = |text: &str| serde_json::from_str::<Bytes>(text);
        assert_eq!(read("\"4GiB\"").expect("reads"), Bytes(4 << 30));
        assert_eq!(read("4096").expect("reads"), Bytes(4096));
        assert_eq!(serde_json::to_string(&Bytes(4096)).expect("writes"), "4096");
        assert!(read("\"4 gigs\"").expect_err("refused").to_string().contains("such as 20MB"));
        assert!(read("0").is_err() && read("-1").is_err() && read("1.5").is_err());
    }
}
