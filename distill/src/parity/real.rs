//! Parity on published checkpoints, where they are at hand: `DISTILL_REAL_MODELS` names a folder with one folder a
//! model, each with the model's files and the `golden.safetensors` and `rows.jsonl` that
//! `tests/fixtures/make_golden.py --real` wrote.

use std::fs;
use std::path::{Path, PathBuf};

use datasets::{Columns, TextTokenizer, read_rows};
use nn::{Layout, Mode, Model, Parameters, Slot, Tap};
use teacher::LoadedModel;

use super::golden::{Golden, difference, load};
use crate::inference::packed;

const VARIABLE: &str = "DISTILL_REAL_MODELS";

/// Measured: 6.0e-6 in the fifth layer of all-MiniLM-L6-v2, 3.3e-6 in the logits of categorium-tiny-bert-en.
const TOLERANCE: f64 = 2e-5;

#[test]
#[expect(clippy::print_stderr, reason = "why it is skipped, for --nocapture")]
fn real_checkpoints_match_transformers() {
    let Some(root) = std::env::var_os(VARIABLE) else {
        eprintln!("skipped: {VARIABLE} does not name a folder of checkpoints");
        return;
    };
    let entries = fs::read_dir(&root).expect(VARIABLE);
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
    folders.sort();
    assert!(!folders.is_empty(), "{VARIABLE}: no checkpoints");
    folders.iter().for_each(|folder| matches_transformers(folder));
}

#[expect(clippy::print_stderr, reason = "the differences measured, for --nocapture")]
fn matches_transformers(folder: &Path) {
    let name = folder.display();
    let golden = Golden::read(folder);
    let batch = golden.batch();
    let LoadedModel { config, parameters, missing_head, .. } = load(folder).expect("loads");
    let tokenizer = TextTokenizer::from_folder(folder).expect("a tokenizer");
    let rows = read_rows(&folder.join("rows.jsonl"), &Columns::default()).expect("rows");
    let encodings = tokenizer.encode(&rows, config.encoder.max_length().min(128)).expect("encodes");
    let tokens: Vec<u32> = (0..encodings.len()).flat_map(|row| encodings.ids(row)).copied().collect();
    assert_eq!(tokens, batch.tokens.input_ids, "{name}: tokens");

    let hidden = config.encoder.hidden_size;
    let (expected, config, parameters) = if golden.has("logits") {
        assert!(missing_head.is_empty());
        (golden.floats("logits"), config, parameters)
    } else {
        // A body alone: with the identity for its last map the head gives the pooler's output.
        let mut config = config;
        config.encoder.num_labels = hidden;
        config.labels = (0..hidden).map(|id| format!("LABEL_{id}")).collect();
        let mut headed = Parameters::zeros(Layout::new(&config.encoder));
        for entry in headed.layout().clone().entries().iter().filter(|entry| !missing_head.contains(&entry.slot)) {
            headed.get_mut(entry.slot).copy_from_slice(parameters.get(entry.slot));
        }
        for index in 0..hidden {
            headed.get_mut(Slot::HeadOutputWeight)[index * (hidden + 1)] = 1.0;
        }
        (golden.floats("pooler_output"), config, headed)
    };
    let layers = config.encoder.num_layers;
    let mut model = Model::new(config, parameters).expect("a model");
    let taps: Vec<Tap> = Tap::hidden_states(layers).chain([Tap::Logits]).collect();
    let mut pass = model.forward(packed(&batch.tokens), &taps, Mode::Eval).expect("forward");
    let mut read = |tap| model.read(&mut pass, tap).expect("asked for");
    let at_head = difference(&read(Tap::Logits), &expected);
    let states = (0..=layers).map(|layer| {
        let padded = golden.floats(&format!("hidden_states.{layer}"));
        difference(&read(Tap::Hidden(layer)), &batch.pack(&padded, hidden))
    });
    let states: Vec<f64> = states.collect();
    eprintln!("{name}: hidden states {states:?}, head {at_head:e}");
    let largest = states.into_iter().fold(at_head, f64::max);
    assert!(largest <= TOLERANCE, "{name}: differs by {largest:e}, tolerance {TOLERANCE:e}");
}
