//! The manifest: every field of the fingerprint is held, and every edit by hand is refused with its field.

use std::fs;

use cache::{
    Average, CacheReader, CacheWriter, Dtype, Error, Fingerprint, LogitForm, Masks, Member, Preprocessing, Quantity,
    verify,
};

use crate::support::*;

type Change = fn(&mut Fingerprint);

/// A change to each field, and whether a reader minds.
const CHANGES: [(&str, Change, bool); 13] = [
    ("teacher", |f| f.teacher = "other".to_owned(), true),
    ("head", |f| f.head[1] = "other".to_owned(), true),
    ("head", |f| f.head.clear(), true),
    ("config", |f| f.config = "other".to_owned(), true),
    ("tokenizer", |f| f.tokenizer = "other".to_owned(), true),
    ("labels", |f| f.labels.swap(0, 2), true),
    ("max_length", |f| f.max_length = 64, true),
    ("preprocessing", |f| f.preprocessing = Preprocessing::Words("other".to_owned()), true),
    ("task", |f| f.task = "other".to_owned(), true),
    ("captured.width", |f| f.captured.width = 4, true),
    ("captured.logits", |f| f.captured.logits = LogitForm::Dense { dtype: Dtype::Bf16 }, false),
    ("captured.outputs", |f| f.captured.outputs = cache::Outputs::Token, false),
    ("precision", |f| f.precision = "bf16".to_owned(), false),
];

#[test]
fn every_field_of_the_fingerprint_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let captured = dense(Dtype::F16);
    drop(fill(dir.path(), &captured, 0..2));
    let own = fingerprint(&captured);
    for (field, change, minded) in CHANGES {
        let mut other = own.clone();
        change(&mut other);
        assert_eq!(own.difference(&other).unwrap().field, field);
        assert_eq!(own.difference_for_reading(&other).is_some(), minded, "{field}");
        let refused = |error: Option<Error>| {
            let error = error.unwrap();
            assert!(matches!(&error, Error::Fingerprint { difference, .. } if difference.field == field), "{error}");
            assert!(error.to_string().contains(&format!("its {field} is ")), "{error}");
        };
        refused(CacheWriter::create_or_resume(dir.path(), &new_cache(&other)).err());
        let read = CacheReader::open(dir.path(), Some(&other));
        if minded { refused(read.err()) } else { assert_eq!(read.unwrap().len(), 2) }
    }
    assert_eq!(own.difference(&own), None);
    assert_eq!(CacheReader::open(dir.path(), Some(&own)).unwrap().len(), 2);
}

#[test]
fn a_precision_counts_by_what_it_computes_and_not_by_its_spelling() {
    let of = |precision: &str| Fingerprint { precision: precision.to_owned(), ..fingerprint(&dense(Dtype::F16)) };
    for same in [
        &["f32", "F32", "fp32", "float32", "torch.float32", "f32 and float32"][..],
        &["tf32", "TF32"],
        &["bf16", "bfloat16", "torch.bfloat16"],
        &["bf16 and f32", "f32 and bf16"],
        &["f16"],
        &["unknown"],
    ] {
        for other in ["f32", "tf32", "bf16", "bf16 and f32", "f16", "unknown"] {
            for &found in same {
                let difference = of(found).difference(&of(other));
                assert_eq!(difference.is_none(), same.contains(&other), "{found}, {other}");
                if let Some(difference) = difference {
                    let expected = format!("its precision is `{found}`, asked for is `{other}`");
                    assert_eq!(difference.to_string(), expected);
                }
            }
        }
    }
    // Going on in another spelling leaves the manifest as it was.
    let dir = tempfile::tempdir().unwrap();
    drop(fill(dir.path(), &dense(Dtype::F16), 0..2));
    let writer = CacheWriter::create_or_resume(dir.path(), &new_cache(&of("float32"))).unwrap();
    assert_eq!(writer.reader().fingerprint().precision, "f32");
}

#[test]
fn masks_that_an_earlier_build_wrote_in_words_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let captured = dense(Dtype::F16);
    let of_masks = |preprocessing| Fingerprint { preprocessing, ..fingerprint(&captured) };
    let old = of_masks(Preprocessing::Words("masked with probability 0.15 and seed 42".to_owned()));
    let mut writer = CacheWriter::create_or_resume(dir.path(), &new_cache(&old)).unwrap();
    writer.finish().unwrap();
    drop(writer);
    let masked = Masks { probability: 0.15, seed: 42 };
    assert_eq!(old.preprocessing.masks(), Some(masked));
    let new = of_masks(Preprocessing::Masked { masked });
    let json = serde_json::to_value(&new).unwrap();
    assert_eq!(json["preprocessing"], serde_json::json!({"masked": {"probability": 0.15, "seed": 42}}));
    let reader = CacheReader::open(dir.path(), Some(&new)).unwrap();
    // As it was written, so that what is sealed stays sealed.
    assert_eq!(reader.fingerprint().preprocessing, old.preprocessing);
    CacheWriter::create_or_resume(dir.path(), &new_cache(&new)).unwrap();
    let other = of_masks(Preprocessing::Masked { masked: Masks { seed: 7, ..masked } });
    let error = CacheReader::open(dir.path(), Some(&other)).err().unwrap().to_string();
    assert!(error.contains("its preprocessing is `masked with probability 0.15 and seed 42`"), "{error}");
}

#[test]
fn answers_that_were_imported_or_averaged_say_so_and_other_manifests_stay_as_they_were() {
    let own = fingerprint(&dense(Dtype::F32));
    let json = serde_json::to_value(&own).unwrap();
    assert_eq!(json.get("average"), None, "{json}");
    assert!(!own.keyed_by_text());

    let imported =
        Fingerprint { preprocessing: Preprocessing::Imported { imported: Quantity::Probabilities }, ..own.clone() };
    assert_eq!(
        serde_json::to_value(&imported).unwrap()["preprocessing"],
        serde_json::json!({"imported": "probabilities"})
    );
    let members =
        vec![Member { teacher: "a".to_owned(), weight: 0.1 }, Member { teacher: "b".to_owned(), weight: 0.9 }];
    let averaged = Fingerprint { average: Some(Average { of: Quantity::Logits, by: None, members }), ..own.clone() };
    for print in [&imported, &averaged] {
        let dir = tempfile::tempdir().unwrap();
        CacheWriter::create_or_resume(dir.path(), &new_cache(print)).unwrap().finish().unwrap();
        // Read back as it is sealed.
        assert_eq!(CacheReader::open(dir.path(), Some(print)).unwrap().fingerprint(), print);
        assert!(CacheReader::open(dir.path(), Some(&own)).is_err());
    }
    assert_eq!(averaged.difference(&own).unwrap().field, "average");
    assert_eq!(imported.difference(&own).unwrap().field, "preprocessing");
}

#[test]
fn keys_are_alike_by_tokenizer_and_length_or_by_text() {
    let own = fingerprint(&dense(Dtype::F32));
    let field =
        |one: &Fingerprint, other: &Fingerprint| one.difference_of_keys(other).map(|difference| difference.field);
    // Another teacher with the same tokenizer.
    let other = Fingerprint { teacher: "other".to_owned(), config: "other".to_owned(), ..own.clone() };
    assert_eq!(field(&own, &other), None);
    assert_eq!(field(&own, &Fingerprint { tokenizer: "other".to_owned(), ..own.clone() }), Some("tokenizer"));
    assert_eq!(field(&own, &Fingerprint { max_length: 64, ..own.clone() }), Some("max_length"));
    let imported = |imported| Fingerprint { preprocessing: Preprocessing::Imported { imported }, ..own.clone() };
    assert_eq!(field(&own, &imported(Quantity::Logits)), Some("preprocessing"));
    assert_eq!(field(&imported(Quantity::Logits), &own), Some("preprocessing"));
    let elsewhere = Fingerprint { tokenizer: "other".to_owned(), ..imported(Quantity::Probabilities) };
    assert_eq!(field(&imported(Quantity::Logits), &elsewhere), None);
}

#[test]
fn the_label_that_differs_is_named() {
    let own = fingerprint(&dense(Dtype::F32));
    let mut other = own.clone();
    other.labels[1] = "cancel".to_owned();
    let difference = own.difference(&other).unwrap();
    assert_eq!(difference.to_string(), "its labels is `label 1` as label 1, asked for is `cancel` as label 1");
    other.labels.pop();
    let difference = own.difference(&other).unwrap();
    assert_eq!((difference.found.as_str(), difference.expected.as_str()), ("5 of them", "4 of them"));
}

/// The error on opening a cache of two rows whose manifest was edited; `verify` finds the same one.
fn with_manifest(edit: impl Fn(String) -> String) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let captured = top_k(Dtype::F16);
    drop(fill(dir.path(), &captured, 0..2));
    let path = dir.path().join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    let edited = edit(text.clone());
    assert_ne!(text, edited);
    fs::write(&path, edited).unwrap();
    let error = CacheReader::open(dir.path(), None).err().unwrap();
    let of_writer = CacheWriter::create_or_resume(dir.path(), &new_cache(&fingerprint(&captured))).err().unwrap();
    assert_eq!(error.to_string(), of_writer.to_string());
    assert_eq!(error.to_string(), CacheWriter::resume(dir.path()).err().unwrap().to_string());
    assert_eq!(error.to_string(), verify(dir.path()).unwrap().damage[0].to_string());
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    error
}

#[test]
fn a_manifest_of_another_version_is_refused() {
    let error = with_manifest(|text| text.replace("\"schema_version\": 2", "\"schema_version\": 3, \"news\": []"));
    assert!(matches!(&error, Error::SchemaVersion { found, newest: 2, .. } if found == "3"), "{error}");
    let error = with_manifest(|text| text.replace("\"schema_version\": 2", "\"schema_version\": \"2\""));
    assert!(matches!(&error, Error::SchemaVersion { found, .. } if found == "\"2\""), "{error}");
    let error = with_manifest(|_| "{\"schema_version\": 1, \"dtype\": \"f32\", \"width\": 3}\n".to_owned());
    assert!(matches!(&error, Error::SchemaVersion { found, .. } if found == "1"), "{error}");
}

#[test]
fn an_edit_by_hand_is_refused_with_its_field() {
    let edits: [(&str, &str, &str); 34] = [
        ("\"teacher\": \"weights\"", "\"teacher\": \"weight\"", "`fingerprint.teacher`"),
        ("\"row 3\"", "\"row 4\"", "`fingerprint.head`"),
        ("\"config\": \"config\"", "\"config\": \"confog\"", "`fingerprint.config`"),
        ("\"tokenizer\": \"tokenizer\"", "\"tokenizer\": null", "`fingerprint.tokenizer`"),
        ("\"label 3\"", "\"label 33\"", "`fingerprint.labels`"),
        ("\"max_length\": 128", "\"max_length\": 129", "`fingerprint.max_length`"),
        ("\"preprocessing\": \"none\"", "\"preprocessing\": \"\"", "`fingerprint.preprocessing`"),
        ("\"task\": \"single_label\"", "\"task\": \"tags\"", "`fingerprint.task`"),
        ("\"precision\": \"f32\"", "\"precision\": \"f16\"", "`fingerprint.precision`"),
        ("\"width\": 11", "\"width\": 12", "`fingerprint.captured`"),
        ("\"outputs\": \"row\"", "\"outputs\": \"token\"", "`fingerprint.captured`"),
        ("\"dtype\": \"f16\"", "\"dtype\": \"bf16\"", "`fingerprint.captured`"),
        ("\"k\": 3", "\"k\": 4", "`fingerprint.captured`"),
        ("        2.0,", "        2.5,", "`fingerprint.captured`"),
        ("        2.0,", "        2.00,", "not as it was written"),
        ("\"batch_tokens\": 512", "\"batch_tokens\": 513", "`batch_tokens`"),
        ("\"rows\": 2,\n  \"shards\"", "\"rows\": 3,\n  \"shards\"", "`rows`"),
        ("\"rows\": 2,\n  \"shards\"", "\"rows\": \"two\",\n  \"shards\"", "`rows`"),
        ("\"rows\": 2,\n  \"shards\"", "\"rows\": 18446744073709551615,\n  \"shards\"", "`rows`"),
        ("\"file\": \"shard-00000", "\"file\": \"../shard-00000", "`shards`"),
        ("\"file\": \"index-00000", "\"file\": \"index-00001", "`indexes`"),
        ("\"file\": \"tokenizer", "\"file\": \"tokeniser", "`attachments`"),
        ("\"largest_logit_error\": ", "\"largest_logit_error\": 1", "`recorded_error`"),
        ("\"missed_mass\": 0.0", "\"missed_mass\": 0.5", "`recorded_error`"),
        ("\"schema_version\": 2,", "\"schema_version\": 2,\n  \"colour\": 1,", "`colour`"),
        ("\"teacher\": \"weights\",", "\"teacher\": \"weights\",\n    \"colour\": 1,", "`fingerprint.colour`"),
        ("    \"task\": \"single_label\",\n", "", "missing field `task`"),
        ("  \"batch_tokens\": 512,\n", "", "missing field `batch_tokens`"),
        ("\"rows\": 2,\n  \"shards\"", "\"rows\": 2,\n  \"rows\": 2,\n  \"shards\"", "not as it was written"),
        ("  \"batch_tokens\": 512", "   \"batch_tokens\": 512", "not as it was written"),
        ("\"seals\": {", "\"seals\": {\n    \"x\": \"0\",", "not as it was written"),
        ("\"seals\": {", "\"seal\": {", "no field `seals`"),
        ("\"schema_version\": 2,\n", "", "no field `schema_version`"),
        ("\"width\": 11", "\"width\": 11,,", "line"),
    ];
    for (from, to, named) in edits {
        let error = with_manifest(|text| text.replacen(from, to, 1));
        let named_in = matches!(&error, Error::Manifest { finding, .. } if finding.contains(named));
        assert!(named_in, "{to}: {error}");
    }
}

#[test]
fn a_manifest_that_is_none_is_refused() {
    for text in ["", "{}", "[]", "null", "{\"schema_version\": 2}", "\u{0}", "{\"schema_version\": 2, \"seals\": 3}"] {
        let error = with_manifest(|_| text.to_owned());
        assert!(matches!(&error, Error::Manifest { .. }), "{error}");
    }
    for edit in
        [|text: String| text + "\n", |text: String| text.trim().to_owned(), |text: String| text.replace('\n', "\r\n")]
    {
        let error = with_manifest(edit);
        assert!(error.to_string().contains("not as it was written"), "{error}");
    }
    let error = with_manifest(|text| text[..text.len() / 2].to_owned());
    assert!(error.to_string().contains("line"), "{error}");
}
