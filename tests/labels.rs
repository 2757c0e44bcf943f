//! Labels mean classes by name, wherever they stand; what cannot be matched is refused with the line and the way out.

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
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
    let done = place.run(&format!("{line} --json"));
    done.succeeded();
    assert!(done.stderr.contains("warning: no training row has a label: the student learns from its teacher alone"));
    let trained: Value = serde_json::from_str(&done.stdout).expect("JSON");
    let done = place.run("evaluate --model teacher --data unlabelled.tsv");
    assert!(done.stderr.contains("warning: no row of unlabelled.tsv has a label"), "{}", done.stderr);
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

/// The fixture's rows with these labels in the place of its classes, as TSV, CSV and JSON lines of numbers.
fn in_every_format(place: &Workplace, labels: [i64; 4]) -> [&'static str; 3] {
    let class = |name: &str| CLASSES.iter().position(|class| *class == name).expect("known");
    let rows: Vec<(String, i64)> =
        rows(&place.read("train.tsv")).into_iter().map(|(text, name)| (text, labels[class(&name)])).collect();
    let table = |separator| {
        let lines = rows.iter().map(|(text, label)| format!("{label}{separator}{text}\n"));
        std::iter::once(format!("label{separator}text\n")).chain(lines).collect::<String>()
    };
    place.write("new.tsv", table('\t'));
    place.write("new.csv", table(','));
    let lines = rows.iter().map(|(text, label)| format!("{}\n", json!({"text": text, "label": label})));
    place.write("new.jsonl", lines.collect::<String>());
    ["new.tsv", "new.csv", "new.jsonl"]
}

#[test]
fn numbers_make_as_many_classes_as_occur_whatever_the_format() {
    let place = Workplace::new();
    let mut first = None;
    for file in in_every_format(&place, [10, 2905, 4, 1280]) {
        place.json(&format!("finetune --model teacher --data {file} --epochs 1 --output tuned --overwrite"));
        let config = place.read_json("tuned/config.json");
        assert_eq!(config["id2label"], json!({"0": "4", "1": "10", "2": "1280", "3": "2905"}), "{file}");
        let files = place.files("tuned");
        assert!(*first.get_or_insert_with(|| files.clone()) == files, "{file}");
        let measured = place.json(&format!("evaluate --model tuned --data {file}"));
        assert_eq!(measured["labelled"], 600);
    }
    // A number that names no class is not taken for an id.
    place.write("ids.tsv", tsv(&[("the hedge".into(), "0".into())]));
    place.refuses("evaluate --model tuned --data ids.tsv", &["line 2", "does not know the label `0`", "4, 10"]);
}

#[test]
fn a_head_without_class_names_goes_on_with_its_ids() {
    let place = Workplace::new();
    without_names(&place);
    let [ids, ..] = in_every_format(&place, [0, 1, 2, 3]);
    let done = place.run(&format!("finetune --model teacher --data {ids} --epochs 1 --output tuned"));
    done.succeeded();
    assert!(!done.stderr.contains("starts at random"), "{}", done.stderr);
    assert_eq!(place.read_json("tuned/config.json")["id2label"]["3"], "LABEL_3");
    // Other numbers are other classes.
    let [stars, ..] = in_every_format(&place, [1, 2, 3, 4]);
    let done = place.run(&format!("finetune --model teacher --data {stars} --epochs 1 --output stars"));
    assert!(done.stderr.contains("a new classification head for 4 classes starts at random"), "{}", done.stderr);
    // Those of which the head has one that never occurs are too.
    let [some, ..] = in_every_format(&place, [0, 1, 1, 3]);
    place.json(&format!("finetune --model teacher --data {some} --epochs 1 --output some"));
    assert_eq!(place.read_json("some/config.json")["id2label"], json!({"0": "0", "1": "1", "2": "3"}));
}

#[test]
fn minus_one_is_no_class_but_may_be_no_label() {
    let place = Workplace::new();
    for file in in_every_format(&place, [0, 1, 2, -1]) {
        let finetune = format!("finetune --model teacher --data {file} --epochs 1 --output tuned --overwrite");
        place.refuses(&finetune, &[file, "the label is -1", "--unlabelled-value -1"]);
        place.json(&format!("{finetune} --unlabelled-value -1"));
        assert_eq!(place.read_json("tuned/config.json")["id2label"], json!({"0": "0", "1": "1", "2": "2"}));
        let measured = place.json(&format!("evaluate --model tuned --data {file} --unlabelled-value -1"));
        assert_eq!((&measured["rows"], &measured["labelled"]), (&json!(600), &json!(450)));
        place.json(&format!("{finetune} --label-names=-1,0,1,2"));
        assert_eq!(place.read_json("tuned/config.json")["id2label"]["0"], "-1");
    }
}

#[test]
fn classes_come_from_all_rows_and_rare_ones_are_learned() {
    let place = Workplace::new();
    for seed in 0..12 {
        let mut with_rare = rows(&place.read("train.tsv"))[..60].to_vec();
        with_rare.push((format!("the {seed} of a kind"), "rare".into()));
        place.write("rare.tsv", tsv(&with_rare));
        place.json("finetune --model teacher --data rare.tsv --epochs 1 --output tuned --overwrite");
        let names = place.read_json("tuned/config.json")["id2label"].clone();
        assert_eq!(names.as_object().expect("an object").len(), 5, "{names}");
    }
    // A class that only the validation file has is none.
    place.write("new.tsv", tsv(&[("the hedge".into(), "garden".into()), ("a fork".into(), "kitchen".into())]));
    let line = "finetune --model teacher --data train.tsv --validation new.tsv --output other";
    place.refuses(line, &["new.tsv", "line 3", "`kitchen`", "the classes are those of train.tsv"]);
}

#[test]
fn the_column_of_labels_is_found_or_missed_aloud() {
    let place = Workplace::new();
    let measured = |name: &str| {
        place.write("renamed.tsv", place.read("test.tsv").replacen("label", name, 1));
        place.run("evaluate --model teacher --data renamed.tsv --json")
    };
    for name in ["labels", "Label"] {
        let done = measured(name);
        let said = format!("renamed.tsv: labels are taken from column `{name}`");
        assert!(done.stdout.contains("\"accuracy\":0.965") && done.stderr.contains(&said), "{}", done.stderr);
    }
    let done = measured("intent");
    assert!(done.stdout.contains("\"accuracy\":null") && done.stderr.contains("warning: no row"), "{}", done.stderr);
}

#[test]
fn label_names_may_come_from_a_file() {
    let place = Workplace::new();
    without_names(&place);
    place.write("names.txt", "bakery\nlibrary, of books\n station \ngarden\n");
    let line = format!("{CACHE} --label-column class --label-names").replace("train.tsv", "data.csv");
    let cells = rows(&place.read("train.tsv"))
        .into_iter()
        .map(|(text, name)| format!("{text},\"{}\"\n", if name == "library" { "library, of books" } else { &name }));
    place.write("data.csv", std::iter::once("text,class\n".to_owned()).chain(cells).collect::<String>());
    for given in ["@names.txt", "names.txt"] {
        let report = place.json(&format!("{line} {given} --overwrite"));
        assert!(report["accuracy"].as_f64() > Some(0.99), "{report}");
    }
    let mut spaced = place.command("evaluate --model teacher --data test.tsv --label-names");
    spaced.arg("bakery, library,station , garden");
    assert!(spaced.output().expect("runs").status.success());
}

/// Makes the teacher's head one of another task.
fn of_another_task(place: &Workplace, problem: &str) {
    place.edit_json("teacher/config.json", |config| config["problem_type"] = json!(problem));
}

#[test]
fn a_head_of_another_task_is_replaced_by_finetuning_and_refused_otherwise() {
    let place = Workplace::new();
    for problem in ["multi_label_classification", "regression"] {
        of_another_task(&place, problem);
        for line in [CACHE, "evaluate --model teacher --data test.tsv", "predict --model teacher texts.txt"] {
            place.refuses(line, &["`problem_type` is", problem]);
        }
        let done = place.run("finetune --model teacher --data train.tsv --epochs 1 --output tuned --overwrite");
        done.succeeded();
        assert!(done.stderr.contains("the head of teacher is of no use here") && done.stderr.contains(problem));
        assert_eq!(place.read_json("tuned/config.json")["problem_type"], "single_label_classification");
        place.json("evaluate --model tuned --data test.tsv");
    }
}

#[test]
fn a_model_with_one_output_is_refused_by_all_alike() {
    let place = Workplace::new();
    let bytes = place.read_bytes("teacher/model.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).expect("readable");
    let one_row = tensors.iter().map(|(name, tensor)| {
        let (mut shape, mut data) = (tensor.shape().to_vec(), tensor.data());
        if name.starts_with("classifier") {
            data = &data[..data.len() / shape[0]];
            shape[0] = 1;
        }
        (name, TensorView::new(tensor.dtype(), shape, data).expect("a tensor"))
    });
    place.write("teacher/model.safetensors", safetensors::serialize(one_row, None).expect("serialises"));
    place.edit_json("teacher/config.json", |config| config["id2label"] = json!({"0": "LABEL_0"}));
    for line in [
        CACHE,
        "evaluate --model teacher --data test.tsv",
        "predict --model teacher texts.txt",
        "export --model teacher --output export",
    ] {
        place.refuses(line, &["teacher: the model has one output", "hint: make a classifier of it: distill finetune"]);
    }
    place.json("finetune --model teacher --data train.tsv --epochs 1 --output tuned");
    assert_eq!(place.read_json("tuned/config.json")["id2label"]["3"], "station");
}

#[test]
fn labels_from_one_were_taken_for_the_next_class_without_a_word() {
    let place = Workplace::new();
    let number = |name: &str, first: usize| first + CLASSES.iter().position(|class| *class == name).expect("a class");
    let warning = "labels are numbers that no class has as its name, and count as ids from 0";
    place.write("ids.tsv", relabelled(&place, |_, name| number(name, 0).to_string()));
    let done = place.run("evaluate --model teacher --data ids.tsv");
    done.succeeded();
    assert!(done.stderr.contains(warning) && done.stderr.contains("0 is bakery, 1 is library"), "{}", done.stderr);
    assert!(!done.stderr.contains("none is 0"), "{}", done.stderr);
    // Three of the classes, counted from 1.
    let three = |place: &Workplace| {
        let rows = rows(&place.read("train.tsv")).into_iter().filter(|(_, name)| number(name, 1) < 4);
        tsv(&rows.map(|(text, name)| (text, number(&name, 1).to_string())).collect::<Vec<_>>())
    };
    place.write("from-one.tsv", three(&place));
    let done = place.run("evaluate --model teacher --data from-one.tsv");
    assert!(done.stderr.contains(warning) && done.stderr.contains("none is 0"), "{}", done.stderr);
    let named = place.run("evaluate --model teacher --data test.tsv");
    assert!(!named.stderr.contains(warning), "{}", named.stderr);
    without_names(&place);
    let generic = place.run("evaluate --model teacher --data ids.tsv");
    assert!(!generic.stderr.contains(warning), "{}", generic.stderr);
    let generic = place.run("evaluate --model teacher --data from-one.tsv");
    assert!(generic.stderr.contains("none is 0"), "{}", generic.stderr);
}
