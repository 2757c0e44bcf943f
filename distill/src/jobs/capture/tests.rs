//! A capture on an emulated GPU stores what one on the CPU stores, and copies no more to the host than it has to.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use cache::{CacheReader, CacheWriter, Captured, Dtype, Fingerprint, HiddenStates, HiddenTokens, Key, LogitForm};
use cache::{NewCache, Outputs, Preprocessing};
use datasets::TokenBatch;
use nn::cuda::Precision;
use nn::hf::HfConfig;
use nn::{Compute, EncoderConfig, Family, Head, Layout, Parameters};

use super::Asked;
use super::writing::{Answers, Logits, Published, write};
use crate::emulated::emulated_gpu;

const WIDTH: usize = 24;

fn encoder(head: Head) -> EncoderConfig {
    EncoderConfig {
        head,
        vocab_size: 300,
        num_labels: if head == Head::MaskedLm { 0 } else { 5 },
        ..Family::BERT.small(WIDTH)
    }
}

const TOKENS: usize = 18;

/// Three batches of three rows each.
fn batches() -> impl Iterator<Item = TokenBatch> {
    (0..3).map(|number| TokenBatch {
        input_ids: (0..TOKENS as u32).map(|token| (token * 37 + number * 11) % 300).collect(),
        token_type_ids: (0..TOKENS as u32).map(|token| token % 2).collect(),
        starts: vec![0, 5, 6, TOKENS as u32],
        rows: (3 * number..3 * number + 3).collect(),
    })
}

fn key(row: u32) -> Key {
    u128::from(row).to_be_bytes()
}

/// Captures the batches into a folder; whether the logits came to the host all of them.
fn capture(dir: &Path, compute: &Compute, head: Head, captured: &Captured) -> (Arc<CacheReader>, bool) {
    let encoder = encoder(head);
    let mut parameters = Parameters::random(Layout::new(&encoder), 0, 1);
    parameters.flat_mut().iter_mut().for_each(|value| *value *= 3.0);
    let config = HfConfig { encoder, labels: Vec::new() };
    let mut asked = Asked::new(compute, config, parameters, captured).expect("a teacher");
    let fingerprint = Fingerprint {
        teacher: String::new(),
        head: Vec::new(),
        config: String::new(),
        tokenizer: String::new(),
        labels: Vec::new(),
        max_length: 32,
        preprocessing: Preprocessing::none(),
        task: String::new(),
        precision: String::new(),
        captured: captured.clone(),
        average: None,
    };
    let new = NewCache { fingerprint: &fingerprint, batch_tokens: TOKENS, attachments: &[] };
    let writer = CacheWriter::create_or_resume(dir, &new).expect("a new cache");
    let published = Published::new(writer.reader().clone());
    let (answering, answered) = sync_channel(4);
    let mut all = Vec::new();
    let then = |mut answers: Answers| {
        answers.keys = answers.rows.iter().map(|&row| key(row)).collect();
        all.push(matches!(answers.logits, Logits::All(_)));
        answering.send(answers)?;
        Ok(())
    };
    asked.each(batches(), then).expect("forward passes");
    answering.send(Answers::end_of_window()).expect("room for all");
    drop(answering);
    let writer = write(writer, answered, &published).expect("a cache");
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|one| *one == all[0]));
    (writer.reader().clone(), all[0])
}

#[test]
fn a_gpu_finds_the_largest_logits_itself_and_stores_what_the_cpu_does() {
    let Some(device) = emulated_gpu() else { return };
    let gpu = Compute::Cuda { device: device.clone(), precision: Precision::F32 };
    let temperatures = vec![1.0, 2.0, 4.0];
    let hidden = HiddenStates { layers: vec![0, 1], tokens: HiddenTokens::All, width: WIDTH };
    let (token, row) = ((Head::MaskedLm, Outputs::Token, 300), (Head::Classification, Outputs::Row, 5));
    for ((head, outputs, width), k, hidden_states) in [
        (token, 64, None),
        (token, 8, Some(hidden.clone())),
        (row, 2, None),
        (row, 3, Some(hidden)),
        // More than the device sorts.
        (token, 280, None),
    ] {
        let logits = LogitForm::TopK { k, dtype: Dtype::F32, temperatures: temperatures.clone() };
        let captured = Captured { width, outputs, logits, hidden_states };
        let case = format!("{head:?}, the {k} largest, {:?}", captured.hidden_states);
        let [one, other] = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
        let (expected, all) = capture(one.path(), &Compute::Cpu, head, &captured);
        assert!(all, "{case}");
        let before = device.downloaded_bytes();
        let (found, all) = capture(other.path(), &gpu, head, &captured);
        assert_eq!(all, k == 280, "{case}");
        let numbers = if all { width } else { 2 * k + 1 + 2 * temperatures.len() };
        let outputs = 3 * if outputs == Outputs::Token { TOKENS } else { 3 };
        let states = captured.hidden_states.as_ref().map_or(0, |form| 3 * TOKENS * form.layers.len() * form.width);
        assert_eq!(device.downloaded_bytes() - before, 4 * (outputs * numbers + states), "{case}");

        if all {
            // The host selects, and so many lie so close that another rounding may put them in another order.
            continue;
        }
        for number in 0..9 {
            let [expected, found] =
                [&expected, &found].map(|reader| reader.get(&key(number)).expect("sound").expect("a row"));
            assert!(expected.indices().eq(found.indices()), "{case}");
            let largest = |worst: f32, (a, b): (f32, f32)| worst.max((a - b).abs());
            let logits = expected.logits().zip(found.logits()).fold(0.0, largest);
            let tails = expected.tails().zip(found.tails()).fold(0.0, largest);
            // Measured: at most 1.3e-6 and 4.8e-7.
            assert!(logits < 3.9e-6 && tails < 1.5e-6, "{case}: {logits} {tails}");
        }
    }
}
