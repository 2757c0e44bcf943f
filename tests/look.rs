//! What shows how a run went: plots. None of it changes the run.

use crate::support::{TRAIN, Workplace};

#[test]
fn a_plot_has_a_panel_for_each_quantity_and_the_name_of_each_run() {
    let place = Workplace::with_cache();
    place.json(&format!("{} --output student", TRAIN.replace("--epochs 1", "--epochs 3")));
    place.json(&format!("{TRAIN} --output half&less"));
    let report = place.json("plot student half&less");
    assert_eq!(report["output"], "plot.svg");
    assert_eq!(report["runs"][0]["run"], "student");
    assert_eq!(report["runs"][0]["evaluations"], 3);
    let svg = place.read("plot.svg");
    assert_eq!(report["bytes"], svg.len());
    for text in [
        "student",
        "half&amp;less",
        "loss",
        "loss term soft_target",
        "loss term hard_label",
        "validation loss",
        "validation accuracy",
        "validation macro-F1",
        "agreement with the teacher",
        "learning rate",
        "gradient norm",
    ] {
        assert!(svg.contains(&format!("\n{text}\n")), "no {text}");
    }
    // Whoever opens it needs nothing else.
    assert!(!svg.contains("href") && !svg.contains("url("));
    place.json("plot student half&less --output again.svg");
    assert!(place.read("again.svg") == svg, "another plot of the same runs");
}

#[test]
fn runs_of_one_name_are_told_apart_by_their_folders() {
    let place = Workplace::with_cache();
    place.json(&format!("{TRAIN} --output a/student"));
    place.json(&format!("{TRAIN} --output b/student"));
    place.json("plot a/student b/student");
    let svg = place.read("plot.svg");
    assert!(svg.contains("\na/student\n") && svg.contains("\nb/student\n"));
}

#[test]
fn what_cannot_be_plotted_is_refused_by_name() {
    let place = Workplace::with_cache();
    place.refuses("plot nowhere", &["cannot read nowhere"]);
    place.refuses("plot train.tsv", &["train.tsv is not a folder"]);
    place.refuses("plot cache", &["cache: not a run, there is no metrics.jsonl", "distill train"]);
    place.json(&format!("{TRAIN} --output all/student"));
    place.refuses("plot all", &["all: not a run", "distill plot all/student"]);

    let metrics = place.read("all/student/metrics.jsonl");
    let with = |text: &str| place.write("all/student/metrics.jsonl", text);
    with("");
    place.refuses("plot all/student", &["metrics.jsonl: nothing is logged yet", "every 50 steps"]);
    with(&format!("{metrics}{{\"schema_ver\n{metrics}"));
    place.refuses("plot all/student", &["metrics.jsonl: line 3: damaged", "--resume repairs", "remove the line"]);
    with(&metrics.replace("\"schema_version\":2", "\"schema_version\":3"));
    place.refuses("plot all/student", &["line 1: schema_version is 3, this build reads up to 2"]);
    // A run at work may be in the middle of a line.
    with(&format!("{metrics}{{\"schema_ver"));
    place.json("plot all/student");

    place.write("notes.svg", "<svg/>");
    place.refuses("plot all/student --output notes.svg", &["notes.svg: is there already and no plot", "--output"]);
    place.json("plot all/student");
}
