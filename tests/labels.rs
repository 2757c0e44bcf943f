//! Labels mean classes by name, wherever they stand; what cannot be matched is refused with the line and the way out.

use serde_json::{Value, json};

use crate::support::{CACHE, CLASSES, TRAIN, Workplace, rows, tsv};

/// The option that says which generic class is which.
const NAMES: &str = "--label-names bakery,library,station,garden";

/// Leaves the teacher's classes without names, as a model saved without any has them.
fn without_names(place: &Workplace) {
    place.edit_json("teacher/config.json", |config| {
        config["id2label"] = json!({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2", "3": "LABEL_3"});
        config["label2id"] = json!({"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2, "LABEL_3": 3});
    });
}

/// The fixture's rows with other labels.
fn relabelled(place: &Workplace, label: impl Fn(usize, &str) -> String) -> String {
    let rows = rows(&place.read("train.tsv")).into_iter().enumerate();
    tsv(&rows.map(|(row, (text, name))| (text, label(row, &name))).collect::<Vec<_>>())
}

#[test]
fn a_teacher_without_class_names_is_refused_with_the_way_out() {
    let place = Workplace::new();
    without_names(&place);
    let hint = "LABEL_0 to LABEL_3; say which is which with --label-names a,b,c";
    place.refuses(CACHE, &["line 2: the label is `garden`", hint]);
    place.refuses("evaluate --model teacher --data test.tsv", &[hint]);
    assert!(!place.path("cache").exists());
}

#[test]
fn label_names_tell_which_class_is_which() {
    let place = Workplace::new();
    without_names(&place);
    let report = place.json(&format!("{CACHE} {NAMES}"));
    assert!(report["accuracy"].as_f64() > Some(0.99), "{report}");
    place.json(&format!("{TRAIN} --output student {NAMES}"));
    // The student's own configuration has the names, and nobody need say them again.
    assert_eq!(place.read_json("student/config.json")["id2label"]["3"], "garden");
    place.json("evaluate --model student --data test.tsv");
}

#[test]
fn label_names_must_fit_the_model() {
    let place = Workplace::new();
    let evaluate = "evaluate --model teacher --data test.tsv --label-names";
    place.refuses(&format!("{evaluate} a,b,c"), &["--label-names has 3 names, the model has 4 classes"]);
    place.refuses(&format!("{evaluate} a,b,c,d"), &["the model's own class names are bakery,library,station,garden"]);
    place.json(&format!("{evaluate} {}", CLASSES.join(",")));
}

#[test]
fn an_unknown_label_is_refused_with_its_line() {
    let place = Workplace::new();
    place.write("data.tsv", relabelled(&place, |row, name| if row == 41 { "butcher".into() } else { name.into() }));
    let expected = ["line 43", "the model does not know the label `butcher`", "bakery, library, station, garden"];
    place.refuses(&CACHE.replace("train.tsv", "data.tsv"), &expected);
    place.refuses("evaluate --model teacher --data data.tsv", &expected);
}

#[test]
fn whole_numbers_are_class_ids() {
    let place = Workplace::new();
    let id = |name: &str| CLASSES.iter().position(|class| *class == name).expect("known").to_string();
    place.write("ids.tsv", relabelled(&place, |_, name| id(name)));
    let expected = place.json("evaluate --model teacher --data train.tsv")["accuracy"].clone();
    assert_eq!(place.json("evaluate --model teacher --data ids.tsv")["accuracy"], expected);
    without_names(&place);
    assert_eq!(place.json("evaluate --model teacher --data ids.tsv")["accuracy"], expected);
    place.write("ids.tsv", relabelled(&place, |_, _| "4".into()));
    place.refuses("evaluate --model teacher --data ids.tsv", &["line 2", "does not know the label `4`"]);
}

#[test]
fn a_file_without_labels_is_learned_from_the_teacher_alone() {
    let place = Workplace::new();
    let texts: String = rows(&place.read("train.tsv")).iter().map(|(text, _)| format!("{text}\n")).collect();
    place.write("unlabelled.tsv", format!("text\n{texts}"));
    let cached = place.json(&CACHE.replace("train.tsv", "unlabelled.tsv"));
    assert_eq!(cached["accuracy"], Value::Null);
    let line = format!("{TRAIN} --output student").replace("train.tsv", "unlabelled.tsv");
    let line = line.replace("--epochs 1", "--epochs 3");
    let trained = place.json(&line);
    assert_eq!(trained["accuracy"], Value::Null);
    assert!(trained["agreement"].as_f64() > Some(0.5), "{trained}");
    // There is nothing else to learn from without the teacher.
    place.refuses(&line.replace("student", "other --weight-soft 0"), &["no row has a label"]);
    place.refuses("finetune --model teacher --data unlabelled.tsv --output tuned", &["no row has a label"]);
}

#[test]
fn a_file_with_some_labels_is_learned_from_both() {
    let place = Workplace::with_cache();
    place.write("half.tsv", relabelled(&place, |row, name| if row % 2 == 0 { String::new() } else { name.into() }));
    let half = format!("{TRAIN} --output half").replace("train.tsv", "half.tsv");
    assert!(place.json(&half)["accuracy"].is_f64());
    place.json(&format!("{TRAIN} --output whole"));
    assert!(place.read_bytes("half/model.safetensors") != place.read_bytes("whole/model.safetensors"));
    let measured = place.json("evaluate --model half --data half.tsv");
    assert_eq!((&measured["rows"], &measured["labelled"]), (&json!(600), &json!(300)));
}

#[test]
fn one_single_class_makes_no_classifier() {
    let place = Workplace::new();
    place.write("one.tsv", relabelled(&place, |_, _| "garden".into()));
    let finetune = "finetune --model teacher --data one.tsv --output tuned";
    place.refuses(finetune, &["every label is `garden`", "at least two classes"]);
    assert!(!place.path("tuned").exists());
    // For a teacher that knows more classes it is data like any other.
    assert!(place.json("evaluate --model teacher --data one.tsv")["accuracy"].is_f64());
}
