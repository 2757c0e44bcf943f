//! The stage `clean` of a recipe: its training rows and texts without labels, cleaned into the run's folder. Validation and test
//! rows stay as they are, as the texts will be that a model meets later.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use datasets::{CleanReport, TextTokenizer};
use serde::{Deserialize, Serialize};

use super::clean::{Cleaning, text};
use super::inputs;
use crate::data::columns_of;
use crate::files::{self, FileError};
use crate::fingerprint;
use crate::recipe::{CleanRecipe, Recipe};
use crate::ui;

/// The folder of cleaned files within a run's.
pub(crate) const CLEAN: &str = "clean";

/// The record among them.
const RECORD: &str = "clean.json";

/// Version of the record's fields.
const SCHEMA_VERSION: u32 = 1;

/// What was cleaned, and how.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    schema_version: u32,
    inputs: Inputs,
    files: Vec<Cleaned>,
}

/// Everything that determines the result.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Inputs {
    /// The program's version.
    distill: String,
    steps: CleanRecipe,
    /// How files are read.
    columns: String,
    /// Hashes of files: those to clean, those of other splits, dictionaries.
    files: Vec<String>,
    /// Hash of the teacher's tokenizer.
    tokenizer: String,
}

/// One of the files.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Cleaned {
    file: String,
    /// Hash of its content.
    content: String,
    report: CleanReport,
}

/// The recipe with the cleaned files in place of its own, if it asks for cleaning. They are made unless they are there and were
/// made of the same.
pub(crate) fn prepared(
    recipe: &Recipe,
    folder: &Path,
    tokenizer: impl FnOnce() -> anyhow::Result<TextTokenizer>,
) -> anyhow::Result<Recipe> {
    let mut recipe = recipe.clone();
    let Some(steps) = recipe.data.clean.clone() else { return Ok(recipe) };
    prepare(&mut recipe, &steps, folder, &tokenizer()?).context("stage clean")?;
    Ok(recipe)
}

fn prepare(recipe: &mut Recipe, steps: &CleanRecipe, folder: &Path, tokenizer: &TextTokenizer) -> anyhow::Result<()> {
    steps.check()?;
    let reading = format!("{:?}", columns_of(&recipe.data.columns()));
    let columns = inputs::columns(&recipe.data.columns(), steps.skip_bad_rows);
    let of_split =
        |file: &Option<PathBuf>| -> Vec<PathBuf> { file.iter().filter(|_| steps.resolved().shared).cloned().collect() };
    let (validation, test) = (of_split(&recipe.data.validation), of_split(&recipe.data.test));
    let mut sources: Vec<(String, &mut PathBuf)> = vec![("train".to_owned(), &mut recipe.data.train)];
    sources.extend(recipe.data.unlabelled.iter_mut().map(|path| ("unlabelled".to_owned(), path)));
    for stage in &mut recipe.stages {
        let name = format!("unlabelled-{}", stage.name);
        sources.extend(stage.unlabelled.iter_mut().map(|path| (name.clone(), path)));
    }
    let read = sources.iter().map(|(_, path)| &**path).chain(&validation).chain(&test);
    let inputs = Inputs {
        distill: env!("CARGO_PKG_VERSION").to_owned(),
        steps: steps.clone(),
        columns: reading,
        files: read.chain(&steps.chinese).chain(&steps.spelling).map(|path| hash_of(path)).collect::<Result<_, _>>()?,
        tokenizer: fingerprint::of_tokenizer(tokenizer),
    };
    let outputs: Vec<PathBuf> = sources.iter().map(|(name, _)| folder.join(format!("{name}.jsonl"))).collect();
    let record = folder.join(RECORD);
    if !is_there(&record, &inputs, &outputs) {
        fs::create_dir_all(folder).map_err(|source| FileError::writing(folder, source))?;
        let mut cleaned = Vec::new();
        for ((name, path), output) in sources.iter().zip(&outputs) {
            // Labels of texts that have none by intent do not matter.
            let files = [path.to_path_buf()];
            let cleaning = Cleaning {
                files: &files,
                validation: &validation,
                test: &test,
                columns: &columns,
                steps,
                tokenizer: Some(tokenizer),
                output,
            };
            let report = cleaning.run().with_context(|| path.display().to_string())?.report;
            ui::say(format!(
                "cleaned {}\n{}",
                path.display(),
                text(&report, |example| format!("line {}", example.line))
            ));
            cleaned.push(Cleaned { file: format!("{name}.jsonl"), content: hash_of(output)?, report });
        }
        let done = Record { schema_version: SCHEMA_VERSION, inputs, files: cleaned };
        let json = serde_json::to_string_pretty(&done)? + "\n";
        files::write_whole(&record, json.as_bytes())?;
    }
    for ((_, path), output) in sources.into_iter().zip(outputs) {
        *path = output;
    }
    Ok(())
}

/// Whether these outputs were made from these inputs, and nobody has changed them since.
fn is_there(record: &Path, inputs: &Inputs, outputs: &[PathBuf]) -> bool {
    let Some(found) = fs::read(record).ok().and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok()) else {
        return false;
    };
    let same = |output: &PathBuf, cleaned: &Cleaned| hash_of(output).is_ok_and(|hash| hash == cleaned.content);
    found.schema_version == SCHEMA_VERSION
        && found.inputs == *inputs
        && found.files.len() == outputs.len()
        && outputs.iter().zip(&found.files).all(|(output, cleaned)| same(output, cleaned))
}

fn hash_of(path: &Path) -> Result<String, FileError> {
    let read = || -> io::Result<String> {
        let mut hasher = blake3::Hasher::new();
        io::copy(&mut fs::File::open(path)?, &mut hasher)?;
        Ok(hasher.finalize().to_hex().to_string())
    };
    read().map_err(|source| FileError::Read { path: path.to_owned(), source })
}
