//! Reads files in blocks until somebody interrupts it.

use std::path::PathBuf;

use datasets::{Block, Columns, for_each_block};

use crate::interrupt;

/// As [`for_each_block`]; Ctrl-C ends it between two blocks.
pub(super) fn each_block(
    files: &[PathBuf],
    columns: &Columns,
    mut each: impl FnMut(Block) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for_each_block(files, columns, |block| {
        interrupt::check()?;
        each(block)
    })
}
