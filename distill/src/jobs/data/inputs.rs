//! Which files are meant, and how they are read.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use datasets::{Columns, Skipping};

use crate::data::columns_of;
use crate::recipe::ColumnsRecipe;

/// The files in their order, those that a pattern stands for in the order of their names. What is there by the name itself is no
/// pattern; `-` is standard input, of this format.
pub(crate) fn expanded(files: &[PathBuf], stdin_format: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for file in files {
        let name = file.to_string_lossy();
        if name == "-" {
            all.push(format!("-.{stdin_format}").into());
            continue;
        }
        if file.exists() || !name.contains(['*', '?', '[']) {
            all.push(file.clone());
            continue;
        }
        let found = glob::glob(&name).with_context(|| format!("{name}: not a pattern of file names"))?;
        let before = all.len();
        for path in found {
            let path = path?;
            all.extend(path.is_file().then_some(path));
        }
        if all.len() == before {
            bail!("{name}: no file is called so");
        }
    }
    if files.iter().filter(|file| file.as_path() == Path::new("-")).count() > 1 {
        bail!("standard input can be read once alone; give it once");
    }
    Ok(all)
}

/// How data files are read, with rows skipped that cannot be.
pub(crate) fn columns(columns: &ColumnsRecipe, skip_bad_rows: bool) -> Columns {
    let skipping = if skip_bad_rows { Skipping::on() } else { Skipping::default() };
    Columns { skipping, ..columns_of(columns) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn patterns_stand_for_files_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["b.jsonl", "a.jsonl", "c.tsv", "[x].jsonl"] {
            fs::write(folder.path().join(name), "").expect("writes");
        }
        let path = |name: &str| folder.path().join(name);
        let found = expanded(&[path("c.tsv"), path("?.jsonl")], "jsonl").expect("expands");
        assert_eq!(found, [path("c.tsv"), path("a.jsonl"), path("b.jsonl")]);
        assert_eq!(expanded(&[path("[x].jsonl")], "jsonl").expect("a file"), [path("[x].jsonl")]);
        assert_eq!(expanded(&[path("missing.tsv")], "jsonl").expect("told when it is read"), [path("missing.tsv")]);
        let error = expanded(&[path("*.parquet")], "jsonl").expect_err("none").to_string();
        assert!(error.contains("*.parquet: no file is called so"), "{error}");
        assert_eq!(expanded(&["-".into()], "csv.gz").expect("stdin"), [PathBuf::from("-.csv.gz")]);
        let twice = expanded(&["-".into(), "-".into()], "jsonl").expect_err("twice").to_string();
        assert!(twice.contains("standard input can be read once"), "{twice}");
    }
}
