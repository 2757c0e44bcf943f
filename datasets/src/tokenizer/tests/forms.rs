//! Tokenizers of every form give the ids that `transformers` 5.24 gave, row for row.
//!
//! The folders, the texts and the ids are made by tests/fixtures/make_tokenizers.py, which also says how to compare others.

use crate::{Row, TextTokenizer};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};

/// Texts as `rows.json` has them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Two(String, String),
}

/// `ids.json`.
#[derive(Deserialize)]
struct Expected {
    max_length: usize,
    rows: Vec<ExpectedRow>,
}

#[derive(Deserialize)]
struct ExpectedRow {
    ids: Vec<u32>,
    /// Where not all are 0.
    #[serde(default)]
    types: Vec<u8>,
}

/// The rows of a folder with forms, and the forms.
fn rows_and_forms(root: &Path) -> (Vec<Row>, Vec<PathBuf>) {
    let rows: Vec<Texts> = serde_json::from_slice(&fs::read(root.join("rows.json")).unwrap()).unwrap();
    let row = |text: String, text_b: Option<String>| Row { text, text_b, label: None, line: 1 };
    let rows = rows.into_iter().map(|texts| match texts {
        Texts::One(text) => row(text, None),
        Texts::Two(text, text_b) => row(text, Some(text_b)),
    });
    let folders = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let mut forms: Vec<PathBuf> = folders.filter(|path| path.join("ids.json").exists()).collect();
    forms.sort();
    (rows.collect(), forms)
}

/// The rows whose ids differ from the expected ones, by number.
fn different(form: &Path, rows: &[Row]) -> Vec<usize> {
    let name = form.display();
    let expected: Expected = serde_json::from_slice(&fs::read(form.join("ids.json")).unwrap()).unwrap();
    assert_eq!(expected.rows.len(), rows.len(), "{name}");
    let mut tokenizer = TextTokenizer::from_folder(form).unwrap_or_else(|error| panic!("{name}: {error}"));
    if !tokenizer.passes_token_types() {
        tokenizer = tokenizer.without_segments().unwrap();
    }
    let encodings = tokenizer.encode(rows, expected.max_length).unwrap();
    let differs = |&row: &usize| {
        let ExpectedRow { ids, types } = &expected.rows[row];
        let found = encodings.type_ids(row);
        // Where transformers gives no segments, version 4 does with the same class: see `passes_token_types`.
        encodings.ids(row) != ids || (!types.is_empty() && found != types)
    };
    (0..rows.len()).filter(differs).collect()
}

#[test]
fn all_forms_read_as_transformers_does() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizers");
    let (rows, forms) = rows_and_forms(&root);
    assert!(forms.len() >= 28 && rows.len() >= 60, "{} forms, {} rows", forms.len(), rows.len());
    for form in forms {
        assert_eq!(different(&form, &rows), Vec::<usize>::new(), "{}: these rows differ", form.display());
    }
}

/// What is saved of a tokenizer is read as that tokenizer, whatever form it came from.
#[test]
fn all_forms_are_saved_as_what_they_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizers");
    let (rows, forms) = rows_and_forms(&root);
    for form in forms {
        let tokenizer = TextTokenizer::from_folder(&form).unwrap();
        let folder = tempfile::tempdir().unwrap();
        tokenizer.save(folder.path()).unwrap();
        let again = TextTokenizer::from_folder(folder.path()).unwrap();
        let name = form.display();
        assert_eq!(again.canonical_json(), tokenizer.canonical_json(), "{name}");
        assert_eq!(again.files().unwrap(), tokenizer.files().unwrap(), "{name}");
        assert_eq!(again.encode(&rows, 24).unwrap(), tokenizer.encode(&rows, 24).unwrap(), "{name}");
        assert_eq!((again.pad_id(), again.mask_id()), (tokenizer.pad_id(), tokenizer.mask_id()), "{name}");
    }
}

/// Any vocabulary but one of whole words can be pruned: the rows it is pruned for keep their pieces, and other texts
/// are tokenised without loss where they were.
#[test]
fn all_forms_can_be_pruned() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizers");
    let (rows, forms) = rows_and_forms(&root);
    let (kept, others) = rows.split_at(rows.len() / 2);
    for form in forms {
        let name = form.display();
        let whole = TextTokenizer::from_folder(&form).unwrap();
        let before = whole.encode(kept, 64).unwrap();
        let pruned = crate::prune_vocabulary(&whole, before.used_ids().into_iter()).unwrap();
        assert!(pruned.kept.len() < whole.vocab_size(), "{name}: nothing is pruned");
        let after = pruned.tokenizer.encode(kept, 64).unwrap();
        for row in 0..kept.len() {
            let found: Vec<u32> = after.ids(row).iter().map(|&id| pruned.kept[id as usize]).collect();
            assert_eq!(found, before.ids(row), "{name}: row {row}");
        }
        // Another text has an unknown piece only where it had one.
        let unknown = ["[UNK]", "<unk>"].into_iter().find_map(|token| whole.token_id(token));
        let (before, after) = (whole.encode(others, 512).unwrap(), pruned.tokenizer.encode(others, 512).unwrap());
        for row in 0..others.len() {
            let has = |ids: &[u32]| ids.iter().any(|&id| Some(id) == unknown);
            let found: Vec<u32> = after.ids(row).iter().map(|&id| pruned.kept[id as usize]).collect();
            if !has(&found) {
                continue;
            }
            let cut = before.truncated(row) || after.truncated(row);
            assert!(has(before.ids(row)) || cut, "{name}: row {row} of the others has an unknown piece");
        }
        // What shrinks reads its own files again.
        let folder = tempfile::tempdir().unwrap();
        pruned.tokenizer.save(folder.path()).unwrap();
        let again = TextTokenizer::from_folder(folder.path()).unwrap();
        assert_eq!(again.canonical_json(), pruned.tokenizer.canonical_json(), "{name}");
    }
}

/// Prints the share of equal rows of each form in the folder DISTILL_TOKENIZER_FORMS.
#[test]
#[ignore = "needs a folder that make_tokenizers.py made"]
#[allow(clippy::print_stdout)]
fn shares_of_equal_rows() {
    let root = std::env::var("DISTILL_TOKENIZER_FORMS").expect("DISTILL_TOKENIZER_FORMS names a folder");
    let (rows, forms) = rows_and_forms(Path::new(&root));
    let mut wrong = 0;
    for form in forms {
        let different = different(&form, &rows);
        let name = form.file_name().unwrap_or_default().display();
        println!("{name}: {} of {} rows equal {:?}", rows.len() - different.len(), rows.len(), different.first());
        wrong += different.len();
    }
    assert_eq!(wrong, 0);
}
