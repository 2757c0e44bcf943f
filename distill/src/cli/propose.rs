//! The flags of `distill propose`, and numbers as people write them: `5M`, `20MB`.

use std::path::PathBuf;

use clap::Args;

use super::groups::{ColumnArgs, DeviceArgs, HubArgs};
use super::values::number;
use crate::jobs::propose::Limits;
use crate::recipe::{ABOVE_ZERO, Bytes, with_unit};

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
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub(crate) max_bytes: Option<Bytes>,
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
        Limits { parameters: self.max_parameters, bytes: self.max_bytes.map(u64::from), milliseconds: self.max_ms }
    }
}

/// A count with a unit of a thousand, a million or a thousand million.
fn parameters(text: &str) -> Result<u64, String> {
    let units = [("", 1), ("k", 1_000), ("m", 1_000_000), ("b", 1_000_000_000), ("g", 1_000_000_000)];
    with_unit(text, &units).ok_or_else(|| "must be a number such as 5M, 500k or 5000000".to_owned())
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
}
