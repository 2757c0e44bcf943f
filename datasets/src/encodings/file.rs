//! Collects encodings in files instead of memory.

use std::env;
use std::fs::File;
use std::io::{BufWriter, Write};

use super::Encodings;
use super::flat::Flat;
use crate::Error;

/// Encodings that are written as they come: to files without a name in the folder for temporary files (`TMPDIR`), which are gone
/// with the last [`Encodings`] of them. Memory holds some bytes a row, and no token.
#[derive(Debug)]
pub struct EncodingsFile {
    ids: BufWriter<File>,
    type_ids: BufWriter<File>,
    tokens: u64,
    /// All but the tokens.
    rest: Encodings,
}

impl EncodingsFile {
    /// Opens the files.
    pub fn new() -> Result<Self, Error> {
        let open = || tempfile::tempfile().map(BufWriter::new).map_err(failed);
        Ok(Self { ids: open()?, type_ids: open()?, tokens: 0, rest: Encodings::new() })
    }

    /// Appends the rows.
    pub fn append(&mut self, encodings: &Encodings) -> Result<(), Error> {
        self.ids.write_all(bytemuck::cast_slice(&encodings.ids)).map_err(failed)?;
        self.type_ids.write_all(&encodings.type_ids).map_err(failed)?;
        self.rest.starts.extend(encodings.starts.iter().skip(1).map(|start| start + self.tokens));
        self.rest.truncated.extend_from_slice(&encodings.truncated);
        self.rest.weighed.extend(&encodings.weighed);
        self.tokens += encodings.tokens() as u64;
        Ok(())
    }

    /// All rows.
    pub fn finish(self) -> Result<Encodings, Error> {
        let [ids, type_ids] =
            [self.ids, self.type_ids].map(|file| file.into_inner().map_err(|error| failed(error.into_error())));
        let (ids, type_ids) = (Flat::of(&ids?).map_err(failed)?, Flat::of(&type_ids?).map_err(failed)?);
        Ok(Encodings { ids, type_ids, ..self.rest })
    }
}

fn failed(cause: std::io::Error) -> Error {
    let folder = env::temp_dir().display().to_string();
    Error::Write {
        file: format!("{folder}, where tokens are kept while they are needed (TMPDIR names another folder)"),
        cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_in_a_file_are_those_in_memory() {
        let parts =
            [Encodings::of_ids(&[vec![5, 6, 7], vec![], vec![8]]), Encodings::new(), Encodings::of_ids(&[[9, 5]])];
        let (mut file, mut memory) = (EncodingsFile::new().expect("files"), Encodings::new());
        for part in &parts {
            file.append(part).expect("written");
            memory.append(part);
        }
        let mut file = file.finish().expect("read");
        assert_eq!(file, memory);
        assert_eq!((file.keys(), file.used_ids()), (memory.keys(), memory.used_ids()));
        assert_eq!(file.clone().packed(2), memory.clone().packed(2));
        file.append(&parts[0]);
        memory.append(&parts[0]);
        assert_eq!(file, memory);
        assert!(EncodingsFile::new().expect("files").finish().expect("read").is_empty());
    }
}
