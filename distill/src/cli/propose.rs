//! The flags of `distill propose`, and numbers as people write them: `5M`, `20MB`.

use std::path::PathBuf;

use clap::Args;

use super::groups::{ColumnArgs, DeviceArgs, HubArgs};
use super::values::number;
use crate::jobs::propose::Limits;
use crate::recipe::ABOVE_ZERO;

/// `distill propose`: list students that fit.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  distill propose --teacher teacher --data train.tsv --max-parameters 5M")]
pub(crate) struct ProposeArgs {
    /// Teacher of the student: a folder, or a name on the Hub; its weights are not needed
    #[arg(long, value_name = "MODEL", help_heading = "Teacher")]
    pub(crate) teacher: String,
    /// Rows that the student is to learn from: they decide its vocabulary, and how long its texts are
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    /// Parameters at most, such as 5M, 500k or 5000000
    #[arg(long, value_name = "N", value_parser = parameters, help_heading = "Limits")]
    pub(crate) max_parameters: Option<u64>,
    /// Bytes of the weights at most, such as 20MB (20,000,000) or 20MiB (20 * 1024 * 1024), in f32 or else in f16
    #[arg(long, value_name = "BYTES", value_parser = bytes, help_heading = "Limits")]
    pub(crate) max_bytes: Option<u64>,
    /// Milliseconds at most for one text of the data alone, measured here
    #[arg(long, value_name = "MS", value_parser = number(ABOVE_ZERO), help_heading = "Limits")]
    pub(crate) max_ms: Option<f64>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

impl ProposeArgs {
    /// What a student may need.
    pub(crate) fn limits(&self) -> Limits {
        Limits { parameters: self.max_parameters, bytes: self.max_bytes, milliseconds: self.max_ms }
    }
}

/// A count with a unit of a thousand, a million or a thousand million.
fn parameters(text: &str) -> Result<u64, String> {
    let units = [("", 1), ("k", 1_000), ("m", 1_000_000), ("b", 1_000_000_000), ("g", 1_000_000_000)];
    with_unit(text, &units).ok_or_else(|| "must be a number such as 5M, 500k or 5000000".to_owned())
}

/// A size with a unit, decimal unless it has an `i`.
fn bytes(text: &str) -> Result<u64, String> {
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
    with_unit(text, &units).ok_or_else(|| "must be a size such as 20MB, 20MiB or 20000000".to_owned())
}

/// The number that stands before one of the units, in whole ones, at least 1. Capitals do not matter.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
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
    fn counts_are_read_as_people_write_them() {
        for (text, expected) in
            [("5M", 5_000_000), ("5m", 5_000_000), ("500k", 500_000), ("5000000", 5_000_000), ("1.5B", 1_500_000_000)]
        {
            assert_eq!(parameters(text), Ok(expected), "{text}");
        }
        for text in ["", "M", "5MB", "-5M", "5 million", "0", "0.4", "1e6", "nan", "5M5"] {
            assert!(parameters(text).is_err(), "{text}");
        }
    }

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
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "MB", "5MBB", "-1", "0B", "5T"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
