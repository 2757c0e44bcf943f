//! Reads records ahead of whoever works on them, a block at a time.

use crate::Error;
use crate::record::{Record, for_each_whole};
use crate::rows::Columns;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;

/// A block ends with so many rows, or so many bytes of text. The work on a block is split over threads.
const BLOCK_ROWS: usize = 8192;
const BLOCK_BYTES: usize = 4 << 20;

/// Blocks that are read ahead.
const AHEAD: usize = 2;

/// Records of one file, in its order.
#[derive(Debug)]
pub struct Block {
    /// Which of the files, from 0.
    pub file: usize,
    /// Its records.
    pub records: Vec<Record>,
}

/// Reads files one after another, on a thread of its own, and hands out their records in blocks; how they are cut follows from
/// the files alone. What `each` refuses ends the reading.
///
/// # Errors
/// Those of [`for_each_whole`], and what `each` returns.
pub fn for_each_block<P, E>(
    files: &[P],
    columns: &Columns,
    mut each: impl FnMut(Block) -> Result<(), E>,
) -> Result<(), E>
where
    P: AsRef<Path> + Sync,
    E: From<Error>,
{
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(AHEAD);
        let reader = scope.spawn(move || -> Result<(), Error> {
            for (file, path) in files.iter().enumerate() {
                let (mut records, mut bytes) = (Vec::new(), 0);
                for_each_whole(path.as_ref(), columns, |record| {
                    bytes += record.row.text.len() + record.row.text_b.as_ref().map_or(0, String::len);
                    records.push(record);
                    if records.len() < BLOCK_ROWS && bytes < BLOCK_BYTES {
                        return ControlFlow::Continue(());
                    }
                    bytes = 0;
                    // Nobody listens once `each` has refused.
                    match sender.send(Block { file, records: std::mem::take(&mut records) }) {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(_) => ControlFlow::Break(()),
                    }
                })?;
                if !records.is_empty() && sender.send(Block { file, records }).is_err() {
                    break;
                }
            }
            Ok(())
        });
        // Dropped at the first refusal, so that the reader ends as well.
        for block in receiver {
            each(block)?;
        }
        match reader.join() {
            Ok(read) => Ok(read?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn all_records_come_in_order_and_in_the_same_blocks() {
        let folder = tempfile::tempdir().expect("a folder");
        let files: Vec<_> = ["a.txt", "b.txt"].iter().map(|name| folder.path().join(name)).collect();
        fs::write(&files[0], (0..BLOCK_ROWS + 3).map(|number| format!("{number}\n")).collect::<String>())
            .expect("writes");
        fs::write(&files[1], format!("{}\nz\n", "y".repeat(BLOCK_BYTES))).expect("writes");
        let mut blocks = Vec::new();
        for_each_block::<_, Error>(&files, &Columns::default(), |block| {
            blocks.push((block.file, block.records.len(), block.records[0].row.line));
            Ok(())
        })
        .expect("reads");
        assert_eq!(blocks, [(0, BLOCK_ROWS, 1), (0, 3, BLOCK_ROWS + 1), (1, 1, 1), (1, 1, 2)]);
    }

    #[test]
    fn a_refusal_ends_the_reading_and_an_unreadable_file_is_told_behind_what_was_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.txt");
        fs::write(&file, "x\n".repeat(10 * BLOCK_ROWS)).expect("writes");
        let mut count = 0;
        let refused = for_each_block(&[&file], &Columns::default(), |_| {
            count += 1;
            Err(Error::NoLabels)
        });
        assert!(matches!(refused, Err(Error::NoLabels)));
        assert_eq!(count, 1);
        let missing = folder.path().join("none.txt");
        let mut rows = 0;
        let error = for_each_block::<_, Error>(&[&file, &missing], &Columns::default(), |block| {
            rows += block.records.len();
            Ok(())
        })
        .expect_err("no such file");
        assert!(error.to_string().contains("none.txt: cannot be opened"), "{error}");
        assert_eq!(rows, 10 * BLOCK_ROWS);
    }
}
