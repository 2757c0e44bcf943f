//! What people bring as a classifier: heads of other tasks, weights that are codes.

use std::path::Path;

use nn::{Head, Slot};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use teacher::{Error, HubOptions, LoadedModel, ModelFiles};

/// The fixture with another configuration, and its tensors under other names or of other types.
fn changed(
    config: impl FnOnce(&mut Value),
    tensor: impl Fn(&str) -> (String, Option<Dtype>),
    then: impl FnOnce(&ModelFiles) -> Result<LoadedModel, Error>,
) -> Result<LoadedModel, Error> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-bert");
    let folder = tempfile::tempdir().expect("a folder");
    let mut json: Value =
        serde_json::from_slice(&std::fs::read(from.join("config.json")).expect("reads")).expect("JSON");
    config(&mut json);
    std::fs::write(folder.path().join("config.json"), json.to_string()).expect("writes");
    let bytes = std::fs::read(from.join("model.safetensors")).expect("reads");
    let tensors = SafeTensors::deserialize(&bytes).expect("readable");
    let views = tensors.iter().map(|(name, view)| {
        let (name, dtype) = tensor(name);
        let dtype = dtype.unwrap_or(view.dtype());
        let length = view.shape().iter().product::<usize>() * dtype.bitsize() / 8;
        (name, TensorView::new(dtype, view.shape().to_vec(), &view.data()[..length]).expect("a tensor"))
    });
    let bytes = safetensors::serialize(views, None).expect("serialises");
    std::fs::write(folder.path().join("model.safetensors"), bytes).expect("writes");
    let options = HubOptions { revision: None, offline: true };
    then(&teacher::locate(&folder.path().display().to_string(), &options)?)
}

fn as_it_is(name: &str) -> (String, Option<Dtype>) {
    (name.to_owned(), None)
}

fn load(files: &ModelFiles) -> Result<LoadedModel, Error> {
    teacher::load_for(files, Head::Classification)
}

#[test]
fn a_head_of_another_task_is_left_aside_and_the_encoder_kept() {
    let whole = changed(|_| (), as_it_is, teacher::load_base).expect("loads");
    assert_eq!((whole.other_head, whole.missing_head), (None, Vec::new()));
    let other_tasks: [fn(&mut Value); 4] = [
        |config| config["problem_type"] = json!("multi_label_classification"),
        |config| config["problem_type"] = json!("regression"),
        |config| config["id2label"] = json!({"1": "a", "2": "b", "3": "c", "4": "d", "5": "e"}),
        |config| config["id2label"] = json!({"0": "a", "1": "a", "2": "b", "3": "c", "4": "d"}),
    ];
    for change in other_tasks {
        let error = changed(change, as_it_is, load).expect_err("refused as a classifier").to_string();
        let base = changed(change, as_it_is, teacher::load_base).expect("loads");
        let why = base.other_head.expect("a reason");
        assert!(error.contains(&why), "{error}: {why}");
        assert_eq!(base.missing_head, [Slot::HeadOutputWeight, Slot::HeadOutputBias]);
        let slot = Slot::WordEmbeddings;
        assert!(base.parameters.get(slot) == whole.parameters.get(slot));
    }
}

#[test]
fn quantised_weights_are_named() {
    let query = "bert.encoder.layer.1.attention.self.query.weight";
    let of = |dtype: Dtype| move |name: &str| (name.to_owned(), (name == query).then_some(dtype));
    for (dtype, expected) in [(Dtype::I8, "I8"), (Dtype::U8, "U8"), (Dtype::F8_E4M3, "F8_E4M3")] {
        let error = changed(|_| (), of(dtype), load).expect_err("refused").to_string();
        assert!(error.contains(query) && error.contains(expected) && error.contains("quantised"), "{error}");
    }
    let packed = |name: &str| {
        let name = if name == query { name.replace("weight", "qweight") } else { name.to_owned() };
        let dtype = name.ends_with("qweight").then_some(Dtype::I32);
        (name, dtype)
    };
    let error = changed(|_| (), packed, load).expect_err("refused").to_string();
    assert!(error.contains("query.qweight") && error.contains("quantised"), "{error}");
    let wrapped = |name: &str| {
        let name = if name == query { name.replace("weight", "base_layer.weight") } else { name.to_owned() };
        (name, None)
    };
    let error = changed(|_| (), wrapped, load).expect_err("refused").to_string();
    assert!(error.contains("query.base_layer.weight") && error.contains("merge_and_unload"), "{error}");
    let gone = |name: &str| (if name == query { "elsewhere".to_owned() } else { name.to_owned() }, None);
    let error = changed(|_| (), gone, load).expect_err("refused");
    assert!(matches!(&error, Error::MissingTensor { .. }), "{error}");
    let config = |config: &mut Value| config["quantization_config"] = json!({"quant_method": "bitsandbytes"});
    let error = changed(config, as_it_is, load).expect_err("refused").to_string();
    assert!(error.contains("config.json") && error.contains("by bitsandbytes"), "{error}");
}
