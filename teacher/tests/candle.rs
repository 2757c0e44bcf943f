//! An independent oracle: our BERT against the one of candle-transformers, on the same checkpoint.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use nn::{Mode, Model, PackedInput, Tap};
use teacher::{HubOptions, ModelFiles};

/// Measured: 1.7e-6.
const TOLERANCE: f32 = 5e-6;

#[test]
#[expect(clippy::print_stderr, reason = "the differences measured, for --nocapture")]
fn bert_agrees_with_candle_transformers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-bert");
    let files = teacher::locate(&folder.display().to_string(), &HubOptions::default()).expect("is there");
    let rows: [&[u32]; 3] = [&[2, 17, 3], &[2, 9, 58, 31, 3, 40, 7, 3], &[2, 5, 5, 44, 3]];
    let types: [&[u32]; 3] = [&[0; 3], &[0, 0, 0, 0, 0, 1, 1, 1], &[0; 5]];

    let loaded = teacher::load(&files).expect("loads");
    let mut ours = Model::new(loaded.config, loaded.parameters).expect("a model");
    let input = PackedInput {
        input_ids: &rows.concat(),
        token_type_ids: &types.concat(),
        starts: &[0, 3, 11, 16],
        positions: None,
    };
    let last = Tap::Hidden(ours.config().encoder.num_layers);
    let mut pass = ours.forward(input, &[last], Mode::Eval).expect("forward");
    let found = ours.read(&mut pass, last).expect("asked for");
    let expected = candles(&files, &rows, &types).expect("candle's forward");
    assert_eq!(found.len(), expected.len());
    let largest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    eprintln!("largest difference: {largest:e}");
    assert!(largest <= TOLERANCE, "differs by {largest:e}, tolerance {TOLERANCE:e}");
}

/// The last hidden states of candle's model, one row after the other, each without padding.
fn candles(files: &ModelFiles, rows: &[&[u32]], types: &[&[u32]]) -> candle_core::Result<Vec<f32>> {
    let config = std::fs::read(&files.config)?;
    let config: Config = serde_json::from_slice(&config).map_err(candle_core::Error::wrap)?;
    let tensors = candle_core::safetensors::load(&files.weights[0], &Device::Cpu)?;
    let model = BertModel::load(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu), &config)?;
    let mut states = Vec::new();
    for (ids, types) in rows.iter().zip(types) {
        let row = |numbers: &[u32]| Tensor::new(numbers, &Device::Cpu)?.unsqueeze(0);
        states.extend(model.forward(&row(ids)?, &row(types)?, None)?.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(states)
}
