//! Files of the user: written atomically; errors have the path in the message.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tempfile::Builder;

/// Prefix and suffix of files that are being written; one is left behind only if the program is killed.
const PARTIAL: (&str, &str) = (".distill-", ".partial");

/// Writes a file atomically: to a temporary one in the same folder, which is flushed to disk and renamed. So `path`
/// always has either the old content or the new.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_whole_with(path, |file| file.write_all(bytes)).map_err(|source| FileError::writing(path, source))
}

/// As [`write_whole`], with `write` producing the content.
pub(crate) fn write_whole_with<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    replace_whole(path, write, || Ok(()))
}

/// As [`write_whole_with`]; `before` runs when the content is whole and on the disk, right before it takes its place.
pub(crate) fn replace_whole<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<(), E>,
    before: impl FnOnce() -> io::Result<()>,
) -> Result<(), E> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = Builder::new();
    builder.prefix(PARTIAL.0).suffix(PARTIAL.1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any new file: a temporary one would be for its owner alone, and so would the model renamed from it.
        builder.permissions(Permissions::from_mode(0o666));
    }
    // The kind alone, and below the file without its wrapper: the temporary name would only puzzle whoever reads.
    let mut file = builder.tempfile_in(folder).map_err(|error| io::Error::from(error.kind()))?;
    write(file.as_file_mut())?;
    file.as_file_mut().sync_all()?;
    before()?;
    file.persist(path).map_err(io::Error::from)?;
    Ok(())
}

/// Whether a file that can be read starts with these bytes, by which a format of ours is known.
pub(crate) fn starts_with(path: &Path, mark: &[u8]) -> bool {
    let mut start = vec![0; mark.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == mark
}

/// Reads a text file.
pub(crate) fn read_to_string(path: &Path) -> Result<String, FileError> {
    let bytes = fs::read(path).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
        FileError::NotUtf8 { path: path.to_owned(), line }
    })
}

/// Creates the output folder of a command, and refuses one that is not empty.
///
/// With `overwrite`, the files named in `written` (paths in the folder that the command writes) are removed, so that
/// none of an earlier run remains. Nothing else is ever removed, except for subfolders that this leaves empty. Call it
/// after all other checks.
pub(crate) fn prepare_output(folder: &Path, overwrite: bool, written: &[&str]) -> Result<(), FileError> {
    fs::create_dir_all(folder).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => FileError::NotAFolder(folder.to_owned()),
        _ => FileError::writing(folder, source),
    })?;
    let mut held = remove_partial(folder)?;
    held.sort_unstable();
    match held.first() {
        None => Ok(()),
        Some(_) if overwrite => written.iter().try_for_each(|name| remove_within(folder, name)),
        Some(first) => Err(FileError::NotEmpty { folder: folder.to_owned(), first: first.clone(), held: held.len() }),
    }
}

/// Refuses an output folder that the command also reads from, since it would be removed first.
pub(crate) fn refuse_source(source: &Path, output: &Path) -> Result<(), FileError> {
    match (source.canonicalize(), output.canonicalize()) {
        (Ok(source), Ok(folder)) if source == folder => Err(FileError::IsSource(output.to_owned())),
        _ => Ok(()),
    }
}

/// Removes half-written files of a killed program from a folder; returns the names of the other files.
pub(crate) fn remove_partial(folder: &Path) -> Result<Vec<String>, FileError> {
    let unread = |source| FileError::Read { path: folder.to_owned(), source };
    let mut others = Vec::new();
    for entry in fs::read_dir(folder).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(PARTIAL.0) && name.ends_with(PARTIAL.1) {
            remove(&entry.path())?;
        } else {
            others.push(name);
        }
    }
    Ok(others)
}

/// Makes a write beyond the limit on file sizes (`ulimit -f`) an ordinary error. By default it would kill the program
/// silently and leave the temporary file behind. Call it once, before writing any file.
pub(crate) fn report_size_limit() {
    #[cfg(unix)]
    // SAFETY: SIGXFSZ is a signal that may be ignored, no handler of ours is involved, and no other thread has started.
    #[expect(unsafe_code, reason = "signals have no safe interface in the standard library")]
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Why a file or folder could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not valid UTF-8.
    #[error("{}: line {line} is not UTF-8; convert the file, with `iconv -t UTF-8` for example", path.display())]
    NotUtf8 {
        /// Which one.
        path: PathBuf,
        /// The line of the first invalid byte, counted from 1.
        line: usize,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The disk is full, or a limit is exceeded.
    #[error("cannot write {}: {limit}; make room, or choose another folder", path.display())]
    NoSpace {
        /// Which file.
        path: PathBuf,
        /// What is full or exceeded.
        limit: &'static str,
    },
    /// The output is also an input of the command.
    #[error("{}: the result would replace what it is made of; choose another --output", .0.display())]
    IsSource(PathBuf),
    /// The output is a file, not a folder.
    #[error("{} is not a folder; choose another --output", .0.display())]
    NotAFolder(PathBuf),
    /// The output folder is not empty.
    #[error("{} is not empty: it holds {first}{}; choose another --output, or give --overwrite",
        folder.display(), if *held > 1 { format!(" and {} more", held - 1) } else { String::new() })]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
        /// The first name in it.
        first: String,
        /// The number of names in it.
        held: usize,
    },
}

impl FileError {
    /// A failed write; a full disk and exceeded limits get errors of their own.
    pub(crate) fn writing(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull => Self::NoSpace { path, limit: "no space left on the disk" },
            io::ErrorKind::QuotaExceeded => Self::NoSpace { path, limit: "no space left in your disk quota" },
            io::ErrorKind::FileTooLarge => Self::NoSpace { path, limit: "no space left under the limit on file sizes" },
            _ => Self::Write { path, source },
        }
    }
}

fn remove_within(folder: &Path, name: &str) -> Result<(), FileError> {
    let path = folder.join(name);
    remove(&path)?;
    // Not empty, or already gone: either way there is nothing of ours to remove.
    for folder in path.ancestors().skip(1).take_while(|&above| above != folder) {
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(FileError::writing(path, source)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("lists")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_file_is_replaced_and_nothing_stays_beside_it() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("model.json");
        write_whole(&path, b"old").expect("writes");
        write_whole(&path, b"new").expect("replaces");
        assert_eq!(read_to_string(&path).expect("reads"), "new");
        assert_eq!(names(folder.path()), ["model.json"]);
    }

    #[cfg(unix)]
    #[test]
    fn others_can_read_what_the_umask_lets_them_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("folder");
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        write_whole(&ours, b"").expect("writes");
        fs::write(&plain, b"").expect("writes");
        let mode = |path| fs::metadata(path).expect("metadata").permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }

    #[test]
    fn a_failed_write_names_the_file_and_leaves_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let target = folder.path().join("taken");
        fs::create_dir(&target).expect("folder");
        fs::write(target.join("inside"), b"").expect("writes");
        let error = write_whole(&target, b"x").expect_err("a folder is in the way");
        assert!(error.to_string().starts_with(&format!("cannot write {}", target.display())), "{error}");
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    fn no_space_is_said_plainly() {
        let full = FileError::writing(Path::new("out/model"), io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(
            full.to_string(),
            "cannot write out/model: no space left on the disk; make room, or choose another folder"
        );
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_with_its_line() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("recipe.toml");
        fs::write(&path, b"a = 1\nb = \"\xff\"\n").expect("writes");
        let error = read_to_string(&path).expect_err("refused");
        assert!(error.to_string().contains("recipe.toml: line 2 is not UTF-8"), "{error}");
    }

    #[test]
    fn a_missing_or_empty_folder_is_taken() {
        let folder = tempfile::tempdir().expect("folder");
        let output = folder.path().join("a/b");
        prepare_output(&output, false, &[]).expect("made");
        fs::write(output.join(".distill-x1.partial"), b"left by a kill").expect("writes");
        prepare_output(&output, false, &[]).expect("still empty");
        assert_eq!(names(&output), Vec::<String>::new());
    }

    #[test]
    fn a_folder_that_holds_something_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        fs::write(folder.path().join("notes.txt"), b"").expect("writes");
        let error = prepare_output(folder.path(), false, &["config.json"]).expect_err("refused");
        assert!(error.to_string().contains("it holds notes.txt; choose another --output"), "{error}");
        fs::write(folder.path().join("zebra"), b"").expect("writes");
        let error = prepare_output(folder.path(), false, &["config.json"]).expect_err("refused");
        assert!(error.to_string().contains("notes.txt and 1 more"), "{error}");
    }

    #[test]
    fn overwrite_removes_what_we_write_and_nothing_else() {
        let folder = tempfile::tempdir().expect("folder");
        for subfolder in ["checkpoint", "mine"] {
            fs::create_dir(folder.path().join(subfolder)).expect("folder");
        }
        for name in ["config.json", "notes.txt", "checkpoint/step.json", "mine/config.json"] {
            fs::write(folder.path().join(name), b"").expect("writes");
        }
        let written = ["config.json", "model.safetensors", "checkpoint/step.json"];
        prepare_output(folder.path(), true, &written).expect("prepared");
        assert_eq!(names(folder.path()), ["mine", "notes.txt"]);
        assert_eq!(names(&folder.path().join("mine")), ["config.json"]);
    }

    #[test]
    fn a_file_is_no_output_folder() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("file");
        fs::write(&file, b"").expect("writes");
        for output in [file.clone(), file.join("below")] {
            let error = prepare_output(&output, true, &[]).expect_err("refused");
            assert!(error.to_string().contains("is not a folder"), "{error}");
        }
    }
}
