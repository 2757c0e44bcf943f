//! The folders of a comparison.

use std::fs;
use std::path::Path;

use super::super::capture::TOKENIZER;
use super::super::run_folder::clear_run;
use crate::files::prepare_output;

/// The file with the comparison.
pub(super) const COMPARISON: &str = "comparison.json";

/// The same as a table.
pub(super) const TABLE: &str = "comparison.md";

/// The teachers' answers.
pub(super) const CACHES: [&str; 2] = ["cache", "cache-against"];

/// The cleaned rows.
pub(super) const CLEAN: [&str; 2] = ["clean", "clean-against"];

/// The arms with and without a teacher.
pub(super) const TEACHER: [&str; 2] = ["with_teacher", "without_teacher"];

/// The arms of two recipes.
pub(super) const RECIPES: [&str; 2] = ["recipe", "against"];

/// What the folder of a training is named by, in that of its arm.
const SEED: &str = "seed-";

/// The trainings of earlier stages, in the folder of their arm: a folder a seed.
pub(super) const STAGES: &str = "stages";

/// The folder of a training, in that of its arm.
pub(super) fn of_seed(seed: u64) -> String {
    format!("{SEED}{seed}")
}

/// Removes what an earlier comparison wrote, and nothing else.
pub(super) fn clear(output: &Path) -> anyhow::Result<()> {
    for cache in CACHES {
        cache::remove(&output.join(cache), &[TOKENIZER])?;
    }
    for arm in [TEACHER, RECIPES].as_flattened().iter().map(|arm| output.join(arm)).filter(|arm| arm.exists()) {
        clear_run(&arm)?;
        let of_seeds = |folder: &Path| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(SEED)).map(|entry| entry.path())
        };
        for training in of_seeds(&arm) {
            clear_run(&training)?;
        }
        for seed in of_seeds(&arm.join(STAGES)) {
            for stage in fs::read_dir(&seed).into_iter().flatten().flatten() {
                clear_run(&stage.path())?;
            }
        }
    }
    Ok(prepare_output(output, true, &[COMPARISON, TABLE])?)
}
