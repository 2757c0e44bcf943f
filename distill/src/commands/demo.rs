//! `distill demo`: the whole pipeline on the built-in data set and teacher.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use datasets::{Columns, Row, parse_rows};
use serde::Serialize;
use teacher::HubOptions;

use crate::cli::DemoArgs;
use crate::files::{self, FileError, prepare_output};
use crate::jobs::Texts;
use crate::jobs::evaluate::Measured;
use crate::jobs::pipeline::{Pipeline, PipelineReport};
use crate::recipe;
use crate::ui::{self, Ui};

const RECIPE: &str = include_str!("../../demo/recipe.toml");
const TRAIN: &[u8] = include_bytes!("../../demo/banking77/train.jsonl.gz");
const TEST: &[u8] = include_bytes!("../../demo/banking77/test.jsonl.gz");

/// Labels that the demo has of each class, the first ones of the file; its teacher was made from these and no others.
const LABELS_OF_A_CLASS: usize = 10;

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
    recipe.train.epochs = args.epochs.or(recipe.train.epochs);
    let teacher = args.output.join("teacher");
    if args.overwrite && teacher.exists() {
        prepare_output(&teacher, true, &TEACHER.map(|(name, _)| name))?;
    }
    unpack(&teacher)?;
    recipe.teacher.model = teacher.display().to_string();
    let rows = few_labels(parse_rows("train.jsonl.gz", TRAIN, &Columns::default())?);
    let labelled = rows.iter().filter(|row| row.label.is_some()).count();
    let report = Pipeline {
        recipe: &recipe,
        hub: &HubOptions { revision: None, offline: true },
        output: &args.output,
        rows,
        // The last weights are kept: no label is spent on choosing.
        validation: Some(Vec::new()),
        texts: Texts::default(),
        test: Some(parse_rows("test.jsonl.gz", TEST, &Columns::default())?),
        measured_on: "the test rows of Banking77".to_string(),
        baseline: !args.no_baseline,
        tensorboard: args.telemetry.tensorboard,
        overwrite: args.overwrite,
        compute: &compute,
    }
    .run()?;
    let report = DemoReport {
        teacher: report.teacher.clone(),
        student: report.student.clone(),
        baseline: report.baseline.clone(),
        seconds: start.elapsed().as_secs_f64(),
        labelled,
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
    labelled: usize,
    #[serde(skip)]
    report: PipelineReport,
}

impl DemoReport {
    fn text(&self) -> String {
        format!(
            "Banking77: 77 intents of bank customers (Casanueva et al., 2020); {} of its training texts have their label\n\n\
             {}\n{}{} in all; written: {}\n\
             try it: echo \"my card has not arrived\" | distill predict --model {}",
            ui::count(self.labelled as u64),
            self.report.text(),
            self.worth(),
            ui::duration(std::time::Duration::from_secs_f64(self.seconds)),
            self.output,
            Path::new(&self.output).join("export").display()
        )
    }

    /// What the teacher was worth, in a sentence.
    fn worth(&self) -> String {
        let accuracy = |measured: &Measured| measured.scores.accuracy;
        let Some((with, without)) = accuracy(&self.student).zip(self.baseline.as_ref().and_then(accuracy)) else {
            return String::new();
        };
        format!(
            "the teacher was worth {:+.1} points of accuracy: {:.1} % with its answers to all texts, {:.1} % on the labels alone\n",
            100.0 * (with - without),
            100.0 * with,
            100.0 * without
        )
    }
}

/// The rows, with the labels of the first few of each class alone: the others are texts that nobody has labelled.
fn few_labels(mut rows: Vec<Row>) -> Vec<Row> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for row in &mut rows {
        if let Some(label) = &row.label {
            let count = seen.entry(label.clone()).or_default();
            *count += 1;
            if *count > LABELS_OF_A_CLASS {
                row.label = None;
            }
        }
    }
    rows
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
