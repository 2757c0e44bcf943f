//! `distill demo`: the whole pipeline on the built-in data set and teacher.

use std::fs;
use std::path::Path;
use std::time::Instant;

use datasets::{Columns, parse_rows};
use serde::Serialize;
use teacher::HubOptions;

use crate::cli::DemoArgs;
use crate::files::{self, FileError, prepare_output};
use crate::jobs::evaluate::Measured;
use crate::jobs::pipeline::{Pipeline, PipelineReport};
use crate::recipe;
use crate::ui::{self, Ui};

const RECIPE: &str = include_str!("../../demo/recipe.toml");
const TRAIN: &[u8] = include_bytes!("../../demo/banking77/train.jsonl.gz");
const TEST: &[u8] = include_bytes!("../../demo/banking77/test.jsonl.gz");

/// The teacher's files.
const TEACHER: [(&str, &[u8]); 7] = [
    ("README.md", include_bytes!("../../demo/teacher/README.md")),
    ("config.json", include_bytes!("../../demo/teacher/config.json")),
    ("model.safetensors", include_bytes!("../../demo/teacher/model.safetensors")),
    ("special_tokens_map.json", include_bytes!("../../demo/teacher/special_tokens_map.json")),
    ("tokenizer.json", include_bytes!("../../demo/teacher/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../demo/teacher/tokenizer_config.json")),
    ("vocab.txt", include_bytes!("../../demo/teacher/vocab.txt")),
];

/// Runs the demo.
pub(crate) fn run(args: DemoArgs, ui: &Ui) -> anyhow::Result<()> {
    let compute = args.device.resolve()?;
    let start = Instant::now();
    let mut recipe = recipe::read("the demo's recipe", RECIPE, &[])?;
    recipe.train.seed = args.seed;
    recipe.train.epochs = args.epochs.unwrap_or(recipe.train.epochs);
    let teacher = args.output.join("teacher");
    if args.overwrite && teacher.exists() {
        prepare_output(&teacher, true, &TEACHER.map(|(name, _)| name))?;
    }
    unpack(&teacher)?;
    recipe.teacher.model = teacher.display().to_string();
    let report = Pipeline {
        recipe: &recipe,
        hub: &HubOptions { revision: None, offline: true },
        output: &args.output,
        rows: parse_rows("train.jsonl.gz", TRAIN, &Columns::default())?,
        validation: None,
        test: Some(parse_rows("test.jsonl.gz", TEST, &Columns::default())?),
        measured_on: "the test rows of Banking77".to_string(),
        baseline: !args.no_baseline,
        overwrite: args.overwrite,
        compute: &compute,
    }
    .run()?;
    let report = DemoReport {
        teacher: report.teacher.clone(),
        student: report.student.clone(),
        baseline: report.baseline.clone(),
        seconds: start.elapsed().as_secs_f64(),
        output: args.output.display().to_string(),
        report,
    };
    ui.result(&report, DemoReport::text)?;
    Ok(())
}

/// What `demo` prints.
#[derive(Debug, Serialize)]
struct DemoReport {
    teacher: Measured,
    student: Measured,
    baseline: Option<Measured>,
    seconds: f64,
    output: String,
    #[serde(skip)]
    report: PipelineReport,
}

impl DemoReport {
    fn text(&self) -> String {
        format!(
            "Banking77: 77 intents of bank customers (Casanueva et al., 2020)\n\n{}\n{} in all; written: {}\n\
             try it: echo \"my card has not arrived\" | distill predict --model {}",
            self.report.text(),
            ui::duration(std::time::Duration::from_secs_f64(self.seconds)),
            self.output,
            Path::new(&self.output).join("export").display()
        )
    }
}

/// Writes the teacher's files; an error if the folder has other ones.
fn unpack(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).map_err(|source| FileError::writing(folder, source))?;
    for (name, bytes) in TEACHER {
        let path = folder.join(name);
        match fs::read(&path) {
            Ok(found) if found == bytes => {}
            Ok(_) => anyhow::bail!(
                "{}: not the demo's teacher; give another --output, or start afresh with --overwrite",
                path.display()
            ),
            Err(_) => files::write_whole(&path, bytes)?,
        }
    }
    Ok(())
}
