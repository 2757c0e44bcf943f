//! What the tests of caches ask of one: what it holds, whether it is sound, what its Parquet file says.

use std::fs::File;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::support::{Workplace, rows, tsv};

/// Captures `many.tsv`, in windows of 512 rows; to be followed by `--output`.
pub(crate) const MANY: &str = "cache --teacher teacher --data many.tsv --batch-tokens 32";

impl Workplace {
    /// Writes `many.tsv`: the fixture's 600 rows, so many times with other words behind them.
    pub(crate) fn many_rows(&self, times: usize) {
        let days = ["today", "tomorrow", "on monday", "on friday", "at nine"];
        let hours = ["", " please", " thank you", " and you", " sorry"];
        let rows = rows(&self.read("train.tsv"));
        let ends = hours.iter().flat_map(|hour| days.iter().map(move |day| format!("{day}{hour}")));
        let many = ends.take(times).flat_map(|end| {
            rows.iter().map(move |(text, label)| (format!("{text} {end}"), label.clone())).collect::<Vec<_>>()
        });
        self.write("many.tsv", tsv(&many.collect::<Vec<_>>()));
    }

    /// What `inspect` says of a cache.
    pub(crate) fn inspect(&self, cache: &str) -> Value {
        self.json(&format!("cache inspect {cache}"))
    }

    /// The hash over all rows of a cache, however they came about.
    pub(crate) fn content(&self, cache: &str) -> String {
        self.inspect(cache)["content"].as_str().expect("a hash").to_owned()
    }

    /// Asserts that nothing is wrong with a cache.
    pub(crate) fn assert_sound(&self, cache: &str) {
        let report = self.json(&format!("cache verify {cache}"));
        assert_eq!(report["sound"], true, "{report}");
    }

    /// What `verify` finds wrong; it must find something.
    pub(crate) fn damage(&self, cache: &str) -> Vec<String> {
        let done = self.run(&format!("cache verify {cache} --json"));
        assert_eq!(done.code, Some(1), "{}{}", done.stdout, done.stderr);
        assert!(done.stderr.starts_with(&format!("error: {cache}: ")), "{}", done.stderr);
        let report: Value = serde_json::from_str(&done.stdout).expect("JSON");
        assert_eq!(report["sound"], false, "{report}");
        let damage = report["damage"].as_array().expect("a list").iter();
        damage.map(|finding| finding.as_str().expect("text").to_owned()).collect()
    }

    /// Flips a bit of a file.
    pub(crate) fn flip(&self, file: &str, position: usize) {
        let mut bytes = self.read_bytes(file);
        bytes[position] ^= 1;
        self.write(file, bytes);
    }

    /// Changes a tensor of the teacher, in place.
    pub(crate) fn edit_tensor(&self, name: &str, edit: impl FnOnce(&mut [u8])) {
        let mut bytes = self.read_bytes("teacher/model.safetensors");
        let (header, metadata) = SafeTensors::read_metadata(&bytes).expect("readable");
        let (start, end) = metadata.info(name).unwrap_or_else(|| panic!("no {name}")).data_offsets;
        edit(&mut bytes[8 + header + start..8 + header + end]);
        self.write("teacher/model.safetensors", bytes);
    }

    /// Exports a cache and reads the file with a Parquet library.
    pub(crate) fn exported(&self, cache: &str) -> Exported {
        let file = format!("{}.parquet", cache.replace('/', "-"));
        self.json(&format!("cache export {cache} --output {file} --overwrite"));
        Exported::read(self, &file)
    }
}

/// A Parquet file of `cache export`.
#[derive(PartialEq, Debug)]
pub(crate) struct Exported {
    pub(crate) rows: Vec<ExportedRow>,
    /// The file's own metadata.
    pub(crate) labels: Value,
    pub(crate) fingerprint: Value,
}

/// A row of it; lists that the file has not are empty.
#[derive(PartialEq, Debug, Default, Clone)]
pub(crate) struct ExportedRow {
    pub(crate) key: Vec<u8>,
    pub(crate) logits: Vec<f32>,
    pub(crate) indices: Vec<usize>,
    pub(crate) tails: Vec<f32>,
}

impl Exported {
    fn read(place: &Workplace, file: &str) -> Self {
        let reader = SerializedFileReader::new(File::open(place.path(file)).expect("opens")).expect("Parquet");
        let metadata = reader.metadata().file_metadata();
        let value = |name: &str| {
            let entries = metadata.key_value_metadata().expect("metadata");
            let entry = entries.iter().find(|entry| entry.key == name).expect("is there");
            serde_json::from_str(entry.value.as_deref().expect("a value")).expect("JSON")
        };
        let key = metadata.schema_descr().column(0);
        assert_eq!((key.name(), key.physical_type().to_string().as_str()), ("key", "FIXED_LEN_BYTE_ARRAY"));
        assert_eq!(key.type_length(), 16);
        let rows = reader.get_row_iter(None).expect("rows").map(|row| {
            let mut read = ExportedRow::default();
            for (name, field) in row.expect("a row").get_column_iter() {
                match (name.as_str(), field) {
                    ("key", Field::Bytes(bytes)) => read.key = bytes.data().to_vec(),
                    ("logits", list) => read.logits = floats(list),
                    ("tails", list) => read.tails = floats(list),
                    ("indices", Field::ListInternal(list)) => {
                        let index = |field: &Field| match field {
                            Field::Int(index) => *index as usize,
                            other => panic!("{other:?}"),
                        };
                        read.indices = list.elements().iter().map(index).collect();
                    }
                    other => panic!("{other:?}"),
                }
            }
            read
        });
        Self { rows: rows.collect(), labels: value("labels"), fingerprint: value("fingerprint") }
    }

    /// The logits of one class, row by row.
    pub(crate) fn class(&self, class: usize) -> Vec<f32> {
        self.rows.iter().map(|row| row.logits[class]).collect()
    }

    pub(crate) fn keys(&self) -> Vec<&[u8]> {
        self.rows.iter().map(|row| row.key.as_slice()).collect()
    }

    /// The largest difference of a logit to the same row of another file, which must have the same rows.
    pub(crate) fn largest_difference(&self, other: &Self) -> f64 {
        assert_eq!(self.keys(), other.keys());
        let flat = |exported: &Self| exported.rows.iter().flat_map(|row| row.logits.clone()).collect::<Vec<f32>>();
        let (ours, theirs) = (flat(self), flat(other));
        assert_eq!(ours.len(), theirs.len());
        ours.iter().zip(&theirs).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).fold(0.0, f64::max)
    }
}

fn floats(list: &Field) -> Vec<f32> {
    let Field::ListInternal(list) = list else { panic!("{list:?}") };
    let float = |field: &Field| match field {
        Field::Float(float) => *float,
        other => panic!("{other:?}"),
    };
    list.elements().iter().map(float).collect()
}
