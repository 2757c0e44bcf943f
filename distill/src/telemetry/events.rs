//! Event files for TensorBoard: what `metrics.jsonl` records, as scalars, in `tensorboard/` of a run's folder.
//!
//! An event file is a series of TFRecords, and each holds one `Event` (`tensorflow/core/util/event.proto`) as a protocol
//! buffer. The few fields in use are encoded here.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crc_fast::crc32_iscsi as crc32c;

use crate::files::FileError;

/// The folder of event files in a run's folder. TensorBoard searches folders for them, so `--logdir` may be either.
pub(crate) const EVENTS: &str = "tensorboard";

/// What the name of an event file starts with, for TensorBoard to find it. The seconds since 1970 follow: TensorBoard
/// reads the files of a folder in the order of their names.
const PREFIX: &str = "events.out.tfevents.";

/// An event file. Each start of a run writes one of its own, since TensorBoard may be reading those of before.
pub(super) struct EventFile {
    file: File,
    path: PathBuf,
}

impl EventFile {
    /// Creates the file of a run that goes on after so many steps. Whatever earlier files have of later ones was lost with
    /// the run's memory, and TensorBoard is told to drop it.
    pub(super) fn create(run: &Path, steps_done: usize) -> Result<Self, FileError> {
        let folder = run.join(EVENTS);
        fs::create_dir_all(&folder).map_err(|source| FileError::writing(&folder, source))?;
        let last = event_files(run).iter().filter_map(|name| seconds_of(name)).max();
        let seconds = (now() as u64).max(last.map_or(0, |last| last + 1));
        let path = folder.join(format!("{PREFIX}{seconds:010}.distill"));
        let file = File::create_new(&path).map_err(|source| FileError::writing(&path, source))?;
        let mut events = Self { file, path };
        events.write(0, &field(FILE_VERSION, b"brain.Event:2"))?;
        events.write(steps_done + 1, &start_of_session())?;
        Ok(events)
    }

    /// Appends the scalars of a step, counted from 1: `loss/total` and its value.
    pub(super) fn scalars(&mut self, step: usize, scalars: &[(String, f64)]) -> Result<(), FileError> {
        self.write(step, &summary(scalars))
    }

    fn write(&mut self, step: usize, what: &[u8]) -> Result<(), FileError> {
        let record = record(&event(now(), step, what));
        self.file.write_all(&record).map_err(|source| FileError::writing(&self.path, source))
    }
}

/// The event files of a run, as paths in its folder.
pub(crate) fn event_files(run: &Path) -> Vec<String> {
    let entries = fs::read_dir(run.join(EVENTS)).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(PREFIX)).map(|name| format!("{EVENTS}/{name}")).collect()
}

fn seconds_of(path: &str) -> Option<u64> {
    path.rsplit_once(PREFIX)?.1.split('.').next()?.parse().ok()
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Bytes as a TFRecord: their number, its checksum, the bytes, their checksum.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    [&length, masked(crc32c(&length)).as_slice(), bytes, &masked(crc32c(bytes))].concat()
}

/// TFRecords keep checksums rotated and shifted, so that one of bytes that hold checksums is as good as any.
fn masked(checksum: u32) -> [u8; 4] {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

// Field numbers of the messages.
const WALL_TIME: u8 = 1;
const STEP: u8 = 2;
const FILE_VERSION: u8 = 3;
const SUMMARY: u8 = 5;
const SESSION_LOG: u8 = 7;
const SUMMARY_VALUE: u8 = 1;
const VALUE_TAG: u8 = 1;
const VALUE_SIMPLE: u8 = 2;
const SESSION_STATUS: u8 = 1;

/// `SessionLog.START`.
const SESSION_START: u64 = 1;

fn event(wall_time: f64, step: usize, what: &[u8]) -> Vec<u8> {
    let wall_time = [&[WALL_TIME << 3 | 1], wall_time.to_le_bytes().as_slice()].concat();
    [wall_time, number(STEP, step as u64), what.to_vec()].concat()
}

fn summary(scalars: &[(String, f64)]) -> Vec<u8> {
    let values = scalars.iter().flat_map(|(tag, value)| {
        let value = [field(VALUE_TAG, tag.as_bytes()), float(VALUE_SIMPLE, *value as f32)].concat();
        field(SUMMARY_VALUE, &value)
    });
    field(SUMMARY, &values.collect::<Vec<_>>())
}

/// On this, TensorBoard drops what it has of the event's step and of later ones.
fn start_of_session() -> Vec<u8> {
    field(SESSION_LOG, &number(SESSION_STATUS, SESSION_START))
}

/// A field of bytes, text or a message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2], varint(bytes.len() as u64).as_slice(), bytes].concat()
}

fn number(number: u8, value: u64) -> Vec<u8> {
    [vec![number << 3], varint(value)].concat()
}

fn float(number: u8, value: f32) -> Vec<u8> {
    [&[number << 3 | 5], value.to_le_bytes().as_slice()].concat()
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn checksums_are_castagnolis() {
        // The vectors of RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_varint_has_seven_bits_a_byte() {
        assert_eq!(varint(0), [0]);
        assert_eq!(varint(300), [0xac, 0x02]);
        assert_eq!(varint(u64::MAX).len(), 10);
    }

    /// Bytes that TensorBoard 2.21 writes by its `RecordWriter` and its `Event`.
    #[test]
    fn records_are_those_of_tensorboard() {
        let scalars = [("loss/total".to_string(), 0.25), ("learning_rate".to_string(), 1e-4)];
        assert_eq!(
            hex(&record(&event(1.5, 300, &summary(&scalars)))),
            "3700000000000000e7e8ca5909000000000000f83f10ac022a290a110a0a6c6f73732f746f74616c150000803e0a140a0d6c\
             6561726e696e675f726174651517b7d138e55ef97a"
        );
        assert_eq!(
            hex(&record(&event(1.5, 301, &start_of_session()))),
            "100000000000000095fbfe1809000000000000f83f10ad023a020801d17949d4"
        );
    }

    #[test]
    fn a_file_of_the_same_second_comes_later_by_name() {
        let run = tempfile::tempdir().expect("a folder");
        for steps in 0..3 {
            EventFile::create(run.path(), steps).expect("created");
        }
        let mut names = event_files(run.path());
        names.sort();
        let seconds: Vec<u64> = names.iter().map(|name| seconds_of(name).expect("seconds")).collect();
        assert_eq!(seconds[1..], [seconds[0] + 1, seconds[0] + 2]);
    }
}
