//! What a clone without Git LFS has in place of weights.

use std::path::Path;

use crate::Error;

/// Refuses a file that begins as a pointer to another one.
pub(super) fn refuse_lfs_pointer(path: &Path, start: &[u8]) -> Result<(), Error> {
    if start.starts_with(b"version https://git-lfs") {
        return Err(Error::LfsPointer { path: path.to_owned() });
    }
    Ok(())
}
