//! What a checkpoint of a masked-language model may look like: the output matrix written again or left out, a head that
//! is missing, one that is not tied.

use std::collections::BTreeMap;
use std::path::Path;

use nn::{Head, Model, PackedInput, Slot};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use teacher::{Error, HubOptions, LoadedModel};

const EMBEDDINGS: &str = "bert.embeddings.word_embeddings.weight";
const DECODER: &str = "cls.predictions.decoder.weight";
const BIAS: &str = "cls.predictions.bias";

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn load(folder: &Path) -> Result<LoadedModel, Error> {
    let options = HubOptions { revision: None, offline: true };
    teacher::load_for(&teacher::locate(&folder.display().to_string(), &options)?, Head::MaskedLm)
}

/// A tensor: its shape and its bytes.
type Raw = (Vec<usize>, Vec<u8>);

/// The fixture with other tensors.
fn load_changed(change: impl FnOnce(&mut BTreeMap<String, Raw>)) -> Result<LoadedModel, Error> {
    let from = fixture("tiny-bert-mlm");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(from.join("config.json"), folder.path().join("config.json")).expect("copies");
    let bytes = std::fs::read(from.join("model.safetensors")).expect("reads");
    let tensors = SafeTensors::deserialize(&bytes).expect("readable");
    let mut tensors = tensors
        .iter()
        .map(|(name, tensor)| (name.to_owned(), (tensor.shape().to_vec(), tensor.data().to_vec())))
        .collect();
    change(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, (shape, data))| (name, TensorView::new(Dtype::F32, shape.clone(), data).expect("a tensor")));
    let bytes = safetensors::serialize(views, None).expect("serialises");
    std::fs::write(folder.path().join("model.safetensors"), bytes).expect("writes");
    load(folder.path())
}

#[test]
fn a_head_is_loaded_whole() {
    let loaded = load(&fixture("tiny-bert-mlm")).expect("loads");
    assert!(loaded.missing_head.is_empty() && loaded.unused.is_empty());
    assert!(loaded.config.labels.is_empty());
    let mut teacher = Model::new(loaded.config, loaded.parameters).expect("a model");
    let input =
        PackedInput { input_ids: &[2, 9, 3, 2, 59, 3], token_type_ids: &[0; 6], starts: &[0, 3, 6], positions: None };
    let logits = teacher.logits(PackedInput { positions: Some(&[1, 4]), ..input }).expect("forward");
    assert_eq!(logits.len(), 2 * 60);
    let alone = PackedInput { input_ids: &[2, 59, 3], token_type_ids: &[0; 3], starts: &[0, 3], positions: None };
    assert_eq!(teacher.logits(PackedInput { positions: Some(&[1]), ..alone }).expect("forward"), logits[60..]);
}

#[test]
fn copies_of_what_is_tied_are_accepted() {
    let plain = load(&fixture("tiny-bert-mlm")).expect("loads");
    let same = |loaded: LoadedModel| {
        assert!(
            loaded.missing_head.is_empty() && loaded.unused.is_empty(),
            "{:?} {:?}",
            loaded.missing_head,
            loaded.unused
        );
        assert_eq!(loaded.parameters.flat(), plain.parameters.flat());
    };
    same(
        load_changed(|tensors| {
            tensors.insert(DECODER.to_owned(), tensors[EMBEDDINGS].clone());
            tensors.insert("cls.predictions.decoder.bias".to_owned(), tensors[BIAS].clone());
        })
        .expect("both copies"),
    );
    same(
        load_changed(|tensors| {
            let bias = tensors.remove(BIAS).expect("is there");
            tensors.insert("cls.predictions.decoder.bias".to_owned(), bias);
        })
        .expect("the bias as a copy alone"),
    );
}

#[test]
fn an_output_matrix_of_its_own_is_refused_by_name() {
    let error = load_changed(|tensors| {
        let mut own = tensors[EMBEDDINGS].clone();
        own.1[4] ^= 1;
        tensors.insert(DECODER.to_owned(), own);
    });
    let error = error.expect_err("refused").to_string();
    assert!(error.contains(&format!("tensor `{DECODER}` differs from `{EMBEDDINGS}`")), "{error}");
}

#[test]
fn a_missing_head_is_reported() {
    let loaded = load_changed(|tensors| tensors.retain(|name, _| !name.starts_with("cls."))).expect("loads");
    let head = [Slot::LmDenseWeight, Slot::LmDenseBias, Slot::LmNormWeight, Slot::LmNormBias, Slot::LmOutputBias];
    assert_eq!(loaded.missing_head, head);
    // A classifier's pooler is of no use here, and said to be so.
    let classifier = load(&fixture("tiny-bert")).expect("loads");
    assert_eq!(classifier.missing_head, head);
    assert!(classifier.unused.contains(&"bert.pooler.dense.weight".to_owned()), "{:?}", classifier.unused);
}

#[test]
fn electra_is_refused() {
    let error = load(&fixture("tiny-electra")).expect_err("refused").to_string();
    assert!(error.contains("`model_type` is electra, expected bert, roberta, "), "{error}");
}
