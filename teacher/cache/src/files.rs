//! Atomic file writes.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// How the name of a file that is being written starts.
pub(crate) const TEMPORARY_PREFIX: &str = ".tmp-";

/// Writes a file atomically: at any moment, even after a crash, `path` has either the complete old or the complete new
/// content.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new(""));
    let mut file = temporary(dir)?;
    file.write_all(bytes)?;
    persist(file, path)?;
    flush_names(dir)
}

/// A file beside the one that it will become.
pub(crate) fn temporary(dir: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY_PREFIX);
    // A temporary file is private by default; a cache is shared with whoever the umask lets in.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(dir)
}

/// Flushes a file and gives it its name.
pub(crate) fn persist(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Flushes the names in a folder: a new file's is on the disk only then. Windows has no such call.
pub(crate) fn flush_names(dir: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}
