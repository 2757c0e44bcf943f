use super::*;
use nn::{LayerSlot, Slot};

/// The trained teacher among the fixtures: no run's record, BERT.
fn classifier() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/e2e/teacher")
}

fn loaded(folder: &Path) -> TextModel {
    Source::load(folder).expect("loads").model
}

fn exported(dtype: ExportDtype) -> (tempfile::TempDir, ExportReport) {
    let output = tempfile::tempdir().expect("folder");
    let source = Source::load(&classifier()).expect("loads");
    let report = write(source, output.path(), dtype, None).expect("exports");
    (output, report)
}

#[test]
fn f32_gives_the_same_weights_and_logits() {
    let (output, report) = exported(ExportDtype::F32);
    assert_eq!((report.largest_difference, report.label_changes, report.compared_rows), (0.0, 0, 64));
    assert_eq!(loaded(output.path()).parameters.flat(), loaded(&classifier()).parameters.flat());
    let record = ExportRecord::read(output.path()).expect("reads").expect("is there");
    assert!(record.verified && record.run.is_none() && record.bytes == Some(report.bytes));
}

#[test]
fn half_the_bytes_cost_little() {
    let (_, whole) = exported(ExportDtype::F32);
    // Measured: 0.0041 and 0.0503, of logits up to 4.8.
    for (dtype, most) in [(ExportDtype::F16, 0.012), (ExportDtype::Bf16, 0.15)] {
        let (_, report) = exported(dtype);
        assert!(report.largest_difference > 0.0 && report.largest_difference < most, "{report:?}");
        assert!(report.bytes < whole.bytes * 6 / 10, "{report:?}");
    }
}

#[test]
fn two_exports_are_the_same_to_the_byte() {
    let (a, _) = exported(ExportDtype::Bf16);
    let (b, _) = exported(ExportDtype::Bf16);
    for name in [CARD, RECORD].into_iter().chain(MODEL_FILES) {
        let read = |folder: &tempfile::TempDir| std::fs::read(folder.path().join(name)).expect(name);
        assert_eq!(read(&a), read(&b), "{name}");
    }
}

#[test]
fn the_same_export_is_renewed_and_another_is_refused() {
    let (output, _) = exported(ExportDtype::F16);
    export(&classifier(), output.path(), ExportDtype::F16, None).expect("the same");
    let error = export(&classifier(), output.path(), ExportDtype::F32, None).expect_err("another");
    assert!(error.chain().any(|cause| cause.to_string().contains("the export of another model")), "{error:?}");
    let error = export(output.path(), output.path(), ExportDtype::F16, None).expect_err("itself");
    assert!(error.to_string().contains("would replace the model it is made of"), "{error}");
}

#[test]
fn a_weight_beyond_f16_is_named() {
    let mut parameters = loaded(&classifier()).parameters;
    parameters.get_mut(Slot::Layer(1, LayerSlot::OutputWeight))[7] = -70_000.0;
    let message = |parameters: &Parameters, dtype| check_range(parameters, dtype).map_err(|error| error.to_string());
    assert_eq!(
        message(&parameters, ExportDtype::F16).expect_err("too large"),
        "tensor `bert.encoder.layer.1.output.dense.weight` holds -70000, and f16 ends at 65504; \
         export with --dtype bf16 or f32"
    );
    assert!(message(&parameters, ExportDtype::F32).is_ok() && message(&parameters, ExportDtype::Bf16).is_ok());
    parameters.get_mut(Slot::HeadOutputBias)[0] = f32::NAN;
    let damaged = message(&parameters, ExportDtype::F32).expect_err("damaged");
    assert!(damaged.starts_with("tensor `classifier.bias` holds NaN"), "{damaged}");
}
