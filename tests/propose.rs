//! Students that fit: counted and timed, and made by the flags that are printed.

use serde_json::Value;

use crate::support::Workplace;

const PROPOSE: &str = "propose --teacher teacher --data train.tsv";

/// The smallest ones alone, which are timed at once.
const SMALL: &str = "propose --teacher teacher --data train.tsv --max-parameters 5M";

/// The proposal of this name.
fn proposal<'a>(report: &'a Value, shape: &str) -> &'a Value {
    let all = report["proposals"].as_array().expect("a list");
    all.iter().find(|one| one["shape"] == shape).unwrap_or_else(|| panic!("no {shape} in {report}"))
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|one| one["shape"].as_str().expect("a name")).collect()
}

#[test]
fn every_shape_is_counted_and_what_fits_is_timed() {
    let place = Workplace::new();
    let report = place.json(&format!("{PROPOSE} --max-parameters 15M"));
    let mut all = [names(&report["proposals"]), names(&report["left_out"])].concat();
    all.retain(|name| !name.ends_with("teacher layers"));
    all.sort_unstable();
    let named = [
        "distilbert",
        "medium",
        "mini",
        "minilm-12x384",
        "minilm-6x384",
        "mobilebert",
        "small",
        "tiny",
        "tinybert-4",
        "tinybert-6",
    ];
    assert_eq!(all, named);
    for one in report["proposals"].as_array().expect("a list") {
        let parameters = one["parameters"].as_u64().expect("a count");
        assert_eq!(
            (one["bytes"]["f32"].as_u64(), one["bytes"]["f16"].as_u64()),
            (Some(4 * parameters), Some(2 * parameters))
        );
        assert_eq!(one["format"], "f32");
        assert!(one["milliseconds"]["alone"].as_f64().expect("a time") > 0.0);
        assert!(one["milliseconds"]["in_batch"].as_f64().expect("a time") > 0.0);
    }
    let tiny = proposal(&report, "tiny");
    assert_eq!(
        (&tiny["model_type"], &tiny["num_layers"], &tiny["hidden_size"]),
        (&"bert".into(), &2.into(), &128.into())
    );
    assert!(tiny["flags"].as_str().expect("flags").starts_with("--shape tiny --layers random"), "{tiny}");
}

#[test]
fn the_flags_make_a_student_of_the_size_that_is_printed() {
    let place = Workplace::with_cache();
    let report = place.json(SMALL);
    let names = names(&report["proposals"]);
    let fewer = names.iter().find(|name| name.ends_with("teacher layers")).expect("fewer layers than the teacher");
    let proposal = proposal(&report, fewer);
    let flags = proposal["flags"].as_str().expect("flags");
    place.json(&format!("train --teacher teacher --cache cache --data train.tsv --validation test.tsv --epochs 1 --output student {flags}"));
    let figures = place.json("evaluate --model student --data test.tsv");
    assert_eq!(figures["parameters"], proposal["parameters"]);
    assert_eq!(report["kept_vocabulary"], place.read_json("student/config.json")["vocab_size"]);
}

#[test]
fn what_is_beyond_a_limit_is_left_out_with_the_reason() {
    let place = Workplace::new();
    let all = place.json(SMALL);
    let tiny = proposal(&all, "tiny")["parameters"].as_u64().expect("a count");
    let mini = proposal(&all, "mini")["parameters"].as_u64().expect("a count");
    let report = place.json(&format!("{PROPOSE} --max-parameters {tiny}"));
    assert!(names(&report["proposals"]).contains(&"tiny") && names(&report["left_out"]).contains(&"mini"));
    let reason = report["left_out"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("parameters, more than"), "{reason}");
    // Half the bytes of f32 are those of f16.
    let report = place.json(&format!("{SMALL} --max-bytes {}", 2 * mini));
    assert_eq!(proposal(&report, "mini")["format"], "f16");
    assert_eq!(proposal(&report, "tiny")["format"], if 4 * tiny <= 2 * mini { "f32" } else { "f16" });
    assert!(!names(&report["proposals"]).contains(&"medium"));
    let report = place.json(&format!("{PROPOSE} --max-ms 0.000001 --max-parameters {tiny}"));
    assert_eq!(names(&report["proposals"]), [] as [&str; 0]);
    assert!(report["left_out"][0]["reason"].as_str().expect("a reason").contains("ms a text, more than"));
    let text = place.run(&format!("{PROPOSE} --max-bytes 1kB"));
    text.succeeded();
    assert!(text.stdout.starts_with("nothing fits") && text.stdout.contains("left out: tiny: "), "{}", text.stdout);
}

#[test]
fn weights_of_the_teacher_are_not_asked_for() {
    let place = Workplace::new();
    let before = place.json(SMALL);
    std::fs::remove_file(place.path("teacher/model.safetensors")).expect("is there");
    let report = place.json(SMALL);
    assert_eq!(names(&report["proposals"]), names(&before["proposals"]));
}

#[test]
fn labels_play_no_part() {
    let place = Workplace::new();
    place.write("two.csv", "text,label,labels\nfresh bread,a,b\na late train,c,d\n");
    place.json("propose --teacher teacher --data two.csv --max-parameters 1");
}

#[test]
fn a_teacher_with_one_output_was_taken_without_a_word() {
    let place = Workplace::new();
    place.edit_json("teacher/config.json", |config| {
        config["id2label"] = serde_json::json!({"0": "LABEL_0"});
        config["label2id"] = serde_json::json!({"LABEL_0": 0});
    });
    place.refuses(SMALL, &["one output, a score and no classes", "distill finetune --model teacher"]);
}

#[test]
fn a_teacher_with_a_head_of_another_task_was_taken_without_a_word() {
    let place = Workplace::new();
    for problem in ["multi_label_classification", "regression"] {
        place.edit_json("teacher/config.json", |config| config["problem_type"] = serde_json::json!(problem));
        place.refuses(SMALL, &["cannot load the model `teacher`", "`problem_type` is", problem]);
    }
}
