//! What a student starts from, and which sizes it may have.

use serde_json::{Value, json};

use crate::support::{TRAIN, Workplace, rows, tsv};

/// A student whose training moves nothing: each of its layers must be the teacher's of this number, bit for bit.
fn starts_from(flags: &str, layers: &[usize]) {
    let place = Workplace::with_cache();
    place.json(&format!("{TRAIN} --learning-rate 1e-30 --output student {flags}"));
    let student = |name: &str| place.tensor("student/model.safetensors", &format!("distilbert.{name}"));
    let teacher = |name: &str| place.tensor("teacher/model.safetensors", &format!("bert.{name}"));
    for (to, from) in layers.iter().enumerate() {
        let ours = student(&format!("transformer.layer.{to}.attention.q_lin.weight"));
        let theirs = teacher(&format!("encoder.layer.{from}.attention.self.query.weight"));
        assert!(ours == theirs, "{flags}: student layer {to} is not teacher layer {from}");
    }
    assert_eq!(place.read_json("student/config.json")["n_layers"], layers.len());
    // DistilBERT has no token types: the first, which every token has, goes into the positions.
    let first_type = &teacher("embeddings.token_type_embeddings.weight")[..32];
    let positions = teacher("embeddings.position_embeddings.weight");
    let folded = positions.chunks_exact(32).flat_map(|row| row.iter().zip(first_type).map(|(a, b)| a + b));
    assert!(folded.eq(student("embeddings.position_embeddings.weight")));
}

#[test]
fn uniform_layers_reach_from_the_first_to_the_last() {
    starts_from("", &[0, 3]);
}

#[test]
fn uniform_layers_round_half_up() {
    starts_from("--num-layers 3", &[0, 2, 3]);
}

#[test]
fn first_layers() {
    starts_from("--layers first", &[0, 1]);
}

#[test]
fn last_layers() {
    starts_from("--layers last --num-layers 3", &[1, 2, 3]);
}

#[test]
fn listed_layers_in_their_order() {
    starts_from("--layers 2,0,2", &[2, 0, 2]);
}

#[test]
fn a_random_student_may_have_any_size() {
    let place = Workplace::with_cache();
    let flags = "--layers random --hidden-size 16 --num-layers 5 --num-heads 4 --intermediate-size 24";
    place.json(&format!("{TRAIN} --output student {flags}"));
    let config = place.read_json("student/config.json");
    let sizes = ["dim", "n_layers", "n_heads", "hidden_dim"].map(|key| &config[key]);
    assert_eq!(sizes, [&json!(16), &json!(5), &json!(4), &json!(24)]);
    place.json("evaluate --model student --data test.tsv");
}

#[test]
fn a_student_may_be_a_bert() {
    let place = Workplace::with_cache();
    place.json(&format!("{TRAIN} --output student --model-type bert --layers 1,2"));
    assert_eq!(place.read_json("student/config.json")["model_type"], "bert");
    // And it may teach in its turn.
    place.json("cache --teacher student --data train.tsv --output cache2 --force");
    place.json(
        &format!("{TRAIN} --output student2 --force").replace("r teacher --cache cache", "r student --cache cache2"),
    );
}

#[test]
fn a_mobilebert_starts_at_random_or_from_a_mobilebert() {
    let place = Workplace::with_cache();
    let sizes = "--num-layers 2 --hidden-size 24 --bottleneck-size 16 --num-heads 2 --intermediate-size 20 --stacks 2";
    let train = format!("{TRAIN} --model-type mobilebert");
    place.json(&format!("{train} --output student --layers random {sizes}"));
    let config = place.read_json("student/config.json");
    let found = ["model_type", "intra_bottleneck_size", "num_feedforward_networks", "normalization_type"];
    let expected = [json!("mobilebert"), json!(16), json!(2), json!("no_norm")];
    assert_eq!(found.map(|key| config[key].clone()), expected);
    assert_eq!(config["architectures"], json!(["MobileBertForSequenceClassification"]));
    place.json("evaluate --model student --data test.tsv");
    place.json("export --model student --output exported --dtype f16");

    // It teaches in its turn, and its layers are what another starts from.
    place.json("cache --teacher student --data train.tsv --output cache2 --force");
    let in_turn = train.replace("r teacher --cache cache", "r student --cache cache2");
    place.json(&format!("{in_turn} --output second --force --layers 1 --prune-vocabulary"));
    assert_eq!(place.read_json("second/config.json")["num_hidden_layers"], 1);
    let other = format!("{in_turn} --output other --force");
    place.refuses(&format!("{other} --stacks 3"), &["number of feed-forward parts 3", "teacher with 2", "random"]);
    place.refuses(&format!("{other} --bottleneck-size 20"), &["--bottleneck-size 20", "head width 8", "--num-heads"]);
    place.refuses(&other.replace("mobilebert", "distilbert"), &["a DistilBERT cannot start from", "this MobileBERT"]);
    place.refuses(
        &format!("{train} --output other --num-layers 2"),
        &["a MobileBERT cannot start from", "this BERT", "random"],
    );
    place.refuses(&format!("{TRAIN} --output other --stacks 2"), &["a DistilBERT has no stacked feed-forward parts"]);
    // A configuration that says less than the weights hold.
    place.edit_json("student/config.json", |config| config["num_feedforward_networks"] = json!(1));
    let beyond = "ffn.0.intermediate.dense.weight` belongs to a feed-forward part beyond the 1";
    place.refuses("evaluate --model student --data test.tsv", &["model.safetensors", beyond]);
}

/// The embeddings are cut to their leading directions, and a pruned vocabulary, narrower layers and another training go on
/// from there.
#[test]
fn an_electra_has_narrow_embeddings() {
    let place = Workplace::with_cache();
    let train = format!("{TRAIN} --model-type electra --embedding-size 12");
    let accuracy = |flags: &str, output: &str| {
        place.json(&format!("{train} {flags} --output {output}"))["accuracy"].as_f64().expect("a number")
    };
    // Measured: 0.86 and 0.29 after one epoch.
    assert!(accuracy("", "cut") > accuracy("--layers random", "random") + 0.2);
    let config = place.read_json("cut/config.json");
    assert_eq!([&config["model_type"], &config["embedding_size"]], [&json!("electra"), &json!(12)]);
    place.json("export --model cut --output exported");
    assert_eq!(place.json("evaluate --model exported --data test.tsv")["rows"], 200);
    accuracy("--prune-vocabulary --hidden-size 16", "narrow");
    assert_eq!(place.read_json("narrow/config.json")["hidden_size"], 16);
    // As wide as the hidden states they have no projection, and a teacher of the kind keeps its own width.
    place.json(&format!("{TRAIN} --model-type electra --output wide"));
    assert_eq!(place.read_json("wide/config.json")["embedding_size"], 32);
    place.json("cache --teacher cut --data train.tsv --output cache2 --force");
    let in_turn = TRAIN.replace("r teacher --cache cache", "r cut --cache cache2");
    place.json(&format!("{in_turn} --model-type electra --num-layers 1 --force --output second"));
    assert_eq!(place.read_json("second/config.json")["embedding_size"], 12);

    place.refuses(
        &format!("{TRAIN} --embedding-size 12 --output none"),
        &["the embeddings of a DistilBERT are as wide", "not 12", "--model-type electra"],
    );
    place.refuses(
        &format!("{TRAIN} --student cut --embedding-size 12 --output none"),
        &["--student cut contradicts --embedding-size"],
    );
    let of_other = format!("{in_turn} --model-type electra --embedding-size 20 --force --output none");
    place.refuses(&of_other, &["embedding size 20", "teacher with 12", "random"]);
}

#[test]
fn a_narrower_student_starts_from_its_teacher_and_a_wider_one_does_not() {
    let place = Workplace::with_cache();
    place.json(&format!("{TRAIN} --output student --hidden-size 16"));
    assert_eq!(place.read_json("student/config.json")["dim"], 16);
    let hint = "hint: --layers random starts a student of any size";
    let wider = format!("{TRAIN} --output wider --hidden-size 64");
    place.refuses(&wider, &["hidden size 64", "teacher with 32", hint]);
    place.refuses(&format!("{TRAIN} --output wider --num-heads 4"), &["head width", hint]);
    place.json(&format!("{wider} --layers random"));
}

/// Of a student whose training moves nothing: its classifier is the teacher's, and in a BERT the pooler too.
#[test]
fn a_student_may_start_with_its_teachers_head() {
    let place = Workplace::with_cache();
    let line = format!("{TRAIN} --learning-rate 1e-30");
    let same = |run: &str, name: &str| {
        place.tensor(&format!("{run}/model.safetensors"), name) == place.tensor("teacher/model.safetensors", name)
    };
    place.json(&format!("{line} --output plain"));
    assert!(!same("plain", "classifier.weight"));
    assert_eq!(place.read_json("plain/distill.json")["inputs"]["student"]["head"], Value::Null);
    place.json(&format!("{line} --head teacher --output other-family"));
    assert!(same("other-family", "classifier.weight") && same("other-family", "classifier.bias"));
    assert_eq!(place.read_json("other-family/distill.json")["inputs"]["student"]["head"], "teacher");
    place.json(&format!("{line} --head teacher --layers random --model-type bert --prune-vocabulary --output family"));
    for name in ["classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias"] {
        assert!(same("family", name), "{name}");
    }
    place.json("export --model family --output exported");
    assert!(place.read("exported/README.md").contains("| head started from | the teacher's |"));
}

#[test]
fn a_head_that_does_not_fit_or_is_not_there_is_refused() {
    let place = Workplace::with_cache();
    place.json(&format!("{TRAIN} --output pretrained"));
    let train = format!("{TRAIN} --output student --head teacher");
    place.refuses(
        &format!("{train} --hidden-size 16"),
        &["head has width 32 and 4 outputs", "would have 16 and 4", "leave --head teacher out", "`student.head`"],
    );
    place.refuses(&format!("{train} --student pretrained"), &["--student pretrained contradicts --head teacher"]);
    place.refuses(
        &format!("{train} --layers random --shape tiny").replace("--teacher teacher ", ""),
        &["--head teacher: the teacher's head is not here", "give --teacher"],
    );
    assert!(!place.path("student").exists());
}

#[test]
fn layers_that_the_teacher_does_not_have_are_refused() {
    let place = Workplace::with_cache();
    let train = format!("{TRAIN} --output student");
    place.refuses(
        &format!("{train} --layers 0,9"),
        &["layer 9 is not one of the 4 that there are to start from (0 to 3)"],
    );
    place.refuses(&format!("{train} --num-layers 9"), &["9 layers cannot be taken from a model of 4; ask for fewer"]);
    place.refuses(&format!("{train} --layers 0,1 --num-layers 3"), &["2 layers are listed for a student of 3"]);
    place.refuses(&format!("{train} --layers random --hidden-size 20"), &["--hidden-size 20", "--num-heads"]);
    place.refuses(
        &format!("{train} --layers random --shape tiny --num-heads 3"),
        &["--num-heads 3 does not divide --hidden-size 128", "another --hidden-size"],
    );
    assert!(!place.path("student").exists());
}

fn vocabulary(place: &Workplace, model: &str) -> Vec<String> {
    place.read(&format!("{model}/vocab.txt")).lines().map(str::to_owned).collect()
}

/// Some of the rows in `few.tsv`, whose words are not all the teacher knows, cached and learned from.
fn pruned_student() -> Workplace {
    let place = Workplace::new();
    place.write("few.tsv", tsv(&rows(&place.read("train.tsv"))[..60]));
    place.json("cache --teacher teacher --data few.tsv --output cache");
    place.json(&format!("{TRAIN} --output student --prune-vocabulary").replace("train.tsv", "few.tsv"));
    place
}

#[test]
fn a_pruned_student_shares_its_teachers_cache() {
    let place = pruned_student();
    let (pruned, whole) = (vocabulary(&place, "student"), vocabulary(&place, "teacher"));
    assert!(pruned.len() < whole.len(), "{} pieces of {}", pruned.len(), whole.len());
    let characters = |pieces: &[String]| {
        let bare = |piece: &str| piece.strip_prefix("##").unwrap_or(piece).chars().count();
        pieces.iter().filter(|piece| bare(piece) == 1).cloned().collect::<Vec<_>>()
    };
    assert_eq!(characters(&pruned), characters(&whole));
    assert_eq!(place.read_json("student/config.json")["vocab_size"], pruned.len());
    assert_eq!(place.read_json("student/distill.json")["inputs"]["prune_vocabulary"], true);
    // Every row was found in the cache: the teacher, which no student's tokenizer concerns, does not run again.
    let again = place.json("cache --teacher teacher --data few.tsv --output cache");
    assert_eq!(again["forwarded"], 0);
}

#[test]
fn a_pruned_student_reads_words_that_it_never_saw() {
    let place = pruned_student();
    let measured = place.json("evaluate --model student --teacher teacher --data test.tsv");
    assert_eq!(measured["rows"], 200);
    assert!(measured["agreement"].is_f64(), "{measured}");
    let strange = "zyxwvut qponm\n\u{2603} \u{e9}t\u{e9}\n";
    let done = place.run_with_input("predict --model student --json", strange);
    done.succeeded();
    assert_eq!(done.stdout.lines().count(), 2, "{}", done.stdout);
    place.write("strange.tsv", format!("text\n{strange}"));
    assert_eq!(place.json("evaluate --model student --data strange.tsv")["accuracy"], Value::Null);
}

#[test]
fn a_pruned_teacher_teaches() {
    let place = Workplace::new();
    let rows = rows(&place.read("train.tsv"));
    place.write("few.tsv", tsv(&rows[..60]));
    place.json("finetune --model teacher --data few.tsv --output pruned --epochs 1 --prune-vocabulary");
    assert!(vocabulary(&place, "pruned").len() < vocabulary(&place, "teacher").len());
    place.json("cache --teacher pruned --data few.tsv --output cache");
}

#[test]
fn finetuning_keeps_a_head_that_knows_the_classes_in_any_order() {
    let place = Workplace::new();
    let line = "finetune --model teacher --data train.tsv --epochs 1 --learning-rate 1e-30 --output tuned";
    let done = place.run(line);
    done.succeeded();
    assert!(!done.stderr.contains("starts at random"), "{}", done.stderr);
    assert_eq!(
        place.tensor("tuned/model.safetensors", "classifier.weight"),
        place.tensor("teacher/model.safetensors", "classifier.weight")
    );
    assert_eq!(place.read_json("tuned/config.json")["id2label"], place.read_json("teacher/config.json")["id2label"]);
}

#[test]
fn finetuning_on_other_classes_starts_a_new_head() {
    let place = Workplace::new();
    place.write("data.tsv", place.read("train.tsv").replace("\tgarden", "\torchard"));
    let done = place.run("finetune --model teacher --data data.tsv --epochs 1 --output tuned");
    done.succeeded();
    assert!(done.stderr.contains("a new classification head for 4 classes starts at random"), "{}", done.stderr);
    assert_eq!(place.read_json("tuned/config.json")["id2label"]["2"], "orchard");
}
