//! Two arms over several seeds: what is trained, what is printed, and what is kept.

use serde_json::Value;

use crate::support::{Workplace, rows, tsv};

/// A recipe of the fixture's, with test rows.
fn with_recipe() -> Workplace {
    let place = Workplace::new();
    place.write(
        "recipe.toml",
        "output = \"out\"\n[teacher]\nmodel = \"teacher\"\n[data]\ntrain = \"train.tsv\"\ntest = \"test.tsv\"\n\
         [student]\nlayers = \"0\"\n[train]\nepochs = 2\n",
    );
    place
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_student_is_compared_with_itself_without_its_teacher() {
    let place = with_recipe();
    let report = place.json("compare recipe.toml --seeds 2");
    assert_eq!(report["seeds"], serde_json::json!([42, 43]));
    let arms = report["arms"].as_array().expect("arms");
    let names: Vec<&str> = arms.iter().filter_map(|arm| arm["name"].as_str()).collect();
    assert_eq!(names, ["with teacher", "without teacher"]);
    for metric in ["accuracy", "macro_f1", "agreement", "ece"] {
        let of = |arm: &Value| -> Vec<f64> {
            arm[metric]["values"].as_array().expect("values").iter().map(number).collect()
        };
        let (first, second) = (of(&arms[0]), of(&arms[1]));
        let mean = |values: &[f64]| values.iter().sum::<f64>() / 2.0;
        assert!((number(&arms[0][metric]["mean"]) - mean(&first)).abs() < 1e-12);
        assert!((number(&arms[0][metric]["spread"]) - (first[0] - first[1]).abs() / 2f64.sqrt()).abs() < 1e-12);
        let difference = &report["difference"][metric];
        assert!((number(&difference["mean"]) - (mean(&first) - mean(&second))).abs() < 1e-12);
        let interval: Vec<f64> = difference["interval"].as_array().expect("two").iter().map(number).collect();
        assert!(interval.len() == 2 && interval[0] <= interval[1], "{interval:?}");
    }
    assert_eq!(arms[0]["steps"], arms[1]["steps"]);
    assert!(!report["claims"].as_array().expect("claims").is_empty());
    assert_eq!(place.names("out/compare"), ["comparison.json", "comparison.md"]);
    assert!(place.path("out/compare/cache/manifest.json").exists());

    // The figures are those of `evaluate`, and the trainings those of `train`.
    let evaluated = place.json("evaluate --model out/compare/with_teacher/seed-43 --teacher teacher --data test.tsv");
    for metric in ["accuracy", "macro_f1", "agreement", "ece"] {
        assert_eq!(evaluated[metric], arms[0][metric]["values"][1], "{metric}");
    }
    place.json("cache --teacher teacher --data train.tsv --output cache");
    place.json("train --teacher teacher --cache cache --data train.tsv --layers 0 --epochs 2 --seed 43 --output alone");
    let weights = |folder: &str| place.read_bytes(&format!("{folder}/model.safetensors"));
    assert!(weights("alone") == weights("out/compare/with_teacher/seed-43"));

    // Again, nothing is trained, and a third seed is added to two.
    let before = place.files("out/compare/with_teacher/seed-42");
    let more = place.json("compare recipe.toml --seeds 3");
    assert_eq!(more["arms"][0]["accuracy"]["values"][1], arms[0]["accuracy"]["values"][1]);
    assert!(place.files("out/compare/with_teacher/seed-42") == before);
    let text = place.run("compare recipe.toml --seeds 3").stdout;
    assert!(text.starts_with("| on "), "{text}");
    assert!(text.contains("| accuracy | "), "{text}");
    assert_eq!(text.trim_end(), place.read("out/compare/comparison.md").trim_end());
}

/// Without a teacher, rows without a label teach nothing, and the arm goes over the others for as many steps.
#[test]
fn an_arm_without_a_teacher_takes_as_many_steps_on_the_labelled_rows() {
    let place = with_recipe();
    let all = rows(&place.read("train.tsv"));
    let some = all
        .into_iter()
        .enumerate()
        .map(|(row, (text, label))| (text, if row % 4 == 0 { label } else { String::new() }));
    place.write("train.tsv", tsv(&some.collect::<Vec<_>>()));
    let report = place.json("compare recipe.toml --seeds 1");
    let arms = report["arms"].as_array().expect("arms");
    assert_eq!(arms[0]["steps"], arms[1]["steps"]);
    let evaluations = |arm: &str| {
        let metrics = place.read(&format!("out/compare/{arm}/seed-42/metrics.jsonl"));
        metrics.lines().filter(|line| line.contains("\"evaluation\"")).count()
    };
    assert_eq!(evaluations("with_teacher"), evaluations("without_teacher"));
    let claim = report["claims"][0].as_str().expect("a claim");
    assert!(claim.contains("with a single seed"), "{claim}");
    assert_eq!(report["difference"]["accuracy"]["interval"], report["difference"]["accuracy"]["interval_over_rows"]);
}

#[test]
fn two_recipes_are_compared_on_the_same_rows() {
    let place = with_recipe();
    place.write("other.toml", place.read("recipe.toml").replace("layers = \"0\"", "layers = \"0\"\nnum_heads = 2"));
    let report = place.json("compare recipe.toml --against other.toml --seeds 1");
    assert_eq!(report["arms"][1]["name"], "against");
    for folder in ["against", "recipe"] {
        assert!(place.path(&format!("out/compare/{folder}/seed-42/model.safetensors")).exists(), "{folder}");
    }
    place.refuses("compare recipe.toml --set train.patience=2 --output other", &["`train.patience`", "leave it out"]);
    place.write("other.toml", place.read("recipe.toml").replace("test = \"test.tsv\"\n", ""));
    place.refuses("compare recipe.toml --against other.toml", &["different test rows"]);
    let hard = format!("{}[[objective]]\nterm = \"hard_label\"\nweight = 1.0\n", place.read("recipe.toml"));
    place.write("hard.toml", hard);
    place.refuses("compare hard.toml --output alone", &["no term that needs its teacher", "--against"]);
}

#[test]
fn an_overwritten_comparison_keeps_what_is_not_its_own() {
    let place = with_recipe();
    let line = "compare recipe.toml --seeds 1 --set train.epochs=1";
    place.json(&format!("{line} --tensorboard"));
    assert!(!place.files("out/compare/with_teacher/seed-42/tensorboard").is_empty());
    place.write("out/compare/without_teacher/notes.txt", "mine");
    let other = format!("{line} --set train.weight_decay=0.1");
    let refused = place.run(&other).failure();
    assert!(refused.contains("another `fit.weight_decay`") && refused.contains("--overwrite"), "{refused}");
    place.json(&format!("{other} --overwrite"));
    assert!(!place.path("out/compare/with_teacher/seed-42/tensorboard").exists());
    assert_eq!(place.read("out/compare/without_teacher/notes.txt"), "mine");
    let record = place.read_json("out/compare/without_teacher/seed-42/distill.json");
    assert_eq!(record["inputs"]["fit"]["weight_decay"], 0.1);
}
