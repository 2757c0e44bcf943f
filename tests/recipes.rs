//! `distill run` and `distill demo`: the whole job in one folder, each stage done once.

use std::fs;

use serde_json::Value;

use crate::support::{Workplace, keys, repository};

const RECIPE: &str = r#"
output = "out"

[teacher]
model = "teacher"

[data]
train = "train.tsv"
test = "test.tsv"

[student]
layers = "0,2"

[train]
epochs = 2
"#;

fn with_recipe() -> Workplace {
    let place = Workplace::new();
    place.write("recipe.toml", RECIPE);
    place
}

/// The files of every stage, but for the figures that differ from run to run.
fn stages(place: &Workplace, output: &str) -> Vec<std::collections::BTreeMap<String, Vec<u8>>> {
    ["cache", "student", "export"].iter().map(|stage| place.files(&format!("{output}/{stage}"))).collect()
}

/// What the figures of each model are called.
fn has_figures(model: &Value, name: &str) {
    for key in ["accuracy", "macro_f1", "parameters", "bytes", "rows_per_second"] {
        assert!(model[key].is_number(), "{name}: no {key} in {model}");
    }
}

/// New texts are answered by the teacher, learned from without labels, and are none of what is measured on.
#[test]
fn a_recipe_makes_new_texts_of_those_it_has() {
    let place = Workplace::new();
    place.write_texts(20);
    place.write("rules.toml", "rules = [[\"the\", \"a\"], [\"is\", \"was\"]]\n");
    place.write(
        "templates.toml",
        "templates = [\"the {thing} is {how}\"]\n[slots]\nthing = [\"sun\", \"soil\"]\nhow = [\"dry\", \"warm\"]\n",
    );
    let ways = "unlabelled = \"texts.tsv\"\n[[data.augment]]\nmethod = \"recombine\"\ncopies = 2\n[[data.augment]]\nmethod = \"mask\"\n\
                rate = 0.2\n[[data.augment]]\nmethod = \"rules\"\nfile = \"rules.toml\"\n[[data.augment]]\nmethod = \"templates\"\n\
                file = \"templates.toml\"\n[student]";
    place.write("recipe.toml", RECIPE.replace("[student]", ways));
    let ran = place.run("run recipe.toml --json");
    ran.succeeded();
    assert!(ran.stderr.contains(" by recombine, mask, rules; "), "{}", ran.stderr);
    assert!(ran.stderr.contains("4 texts made of the templates in templates.toml"), "{}", ran.stderr);
    let rows =
        serde_json::from_str::<Value>(&ran.stdout).expect("a report")["cache"]["rows"].as_u64().expect("a count");
    let labelled = place.read("train.tsv").lines().count() as u64 - 1;
    assert!((2 * (labelled + 20)..5 * (labelled + 20)).contains(&rows), "{rows} rows of {labelled}");
    let record = place.read_json("out/student/distill.json");
    let validated = record["figures"]["validation"]["rows"].as_u64().expect("a count");
    assert!((labelled / 20..labelled / 7).contains(&validated), "{validated} of {labelled}: no new text is among them");
    assert_eq!(record["figures"]["steps"].as_u64(), Some(2 * (rows - validated).div_ceil(32)));
    // The same again: nothing is new.
    let before = place.files("out/student");
    place.json("run recipe.toml");
    assert!(place.files("out/student") == before);
    // With other texts the answers that are there stay, and the training is another one.
    let other = place.run("run recipe.toml --set data.augment.0.copies=1").failure();
    assert!(other.contains("out/student") && other.contains("another `augment.0.copies` (2, now 1)"), "{other}");
    let alone = place.run("run recipe.toml --set data.augment=[] --set data.dictionary=none.txt").failure();
    assert!(alone.contains("`data.dictionary` goes with `data.augment`"), "{alone}");
    // A seed draws other texts, and they are answered too.
    place.write("other.toml", place.read("recipe.toml") + "seed = 7\n");
    place.json("compare recipe.toml --against other.toml --seeds 1 --output seeds");
    // Both arms of a comparison have them; without a teacher their answers are of no use.
    let compared = place.json("compare recipe.toml --seeds 1 --output compared");
    assert_eq!(compared["arms"][0]["steps"][0].as_u64(), record["figures"]["steps"].as_u64());

    for (setting, expected) in [
        ("data.augment.0.method=combine", "unknown variant `combine`"),
        ("data.augment.1.rate=1.5", "data.augment.rate is 1.5"),
        ("data.augment.1.copies=0", "data.augment.copies is 0"),
        ("data.augment.0.rate=0.5", "unknown field `rate`"),
        ("data.augment.2.file=none.toml", "none.toml"),
        ("data.augment.2.file=templates.toml", "templates.toml: holds other keys or values"),
        ("data.dictionary=none.txt", "none.txt"),
    ] {
        let refused = place.run(&format!("run recipe.toml --output none --set {setting}")).failure();
        assert!(refused.contains(expected), "{setting}: {refused}");
        assert!(!place.path("none").exists(), "{setting}");
    }
}

#[test]
fn a_recipe_does_the_whole_job() {
    let place = with_recipe();
    let report = place.json("run recipe.toml");
    assert_eq!(keys(&report)[0], "schema_version");
    has_figures(&report["teacher"], "teacher");
    has_figures(&report["student"], "student");
    assert!(report["student"]["agreement"].is_f64() && report["student"]["ece"].is_f64(), "{report}");
    assert_eq!(report["teacher"]["accuracy"], 0.965);
    assert!(report["seconds"].is_f64());
    let predicted = place.run_with_input("predict --model out/export --json", "the soil under the hedge is dry\n");
    predicted.succeeded();
    // What the stages are called alone, they are called together.
    assert_eq!(report["student"]["accuracy"], place.json("evaluate --model out/student --data test.tsv")["accuracy"]);
}

#[test]
fn a_recipe_is_its_commands() {
    let place = with_recipe();
    place.json("run recipe.toml");
    place.json("cache --teacher teacher --data train.tsv --output cache");
    place.json("train --teacher teacher --cache cache --data train.tsv --layers 0,2 --epochs 2 --output student");
    assert!(place.files("out/cache") == place.files("cache"));
    assert!(place.files("out/student") == place.files("student"));
}

#[test]
fn a_recipe_that_ran_runs_no_stage_again() {
    let place = with_recipe();
    let first = place.json("run recipe.toml");
    let before = stages(&place, "out");
    let written = || std::fs::metadata(place.path("out/export/model.safetensors")).unwrap().modified().unwrap();
    let exported = written();
    let again = place.json("run recipe.toml");
    assert_eq!(again["cache"]["forwarded"], 0);
    assert_eq!(written(), exported, "the export is not written again");
    assert_eq!(again["student"]["accuracy"], first["student"]["accuracy"]);
    assert!(stages(&place, "out") == before);
    // Another setting is another run, and wants another folder.
    let message = place.run("run recipe.toml --set train.epochs=1").failure();
    assert!(message.contains("another `fit.epochs` (2, now 1)"), "{message}");
    assert!(stages(&place, "out") == before);
    place.json("run recipe.toml --set train.epochs=1 --overwrite");
    assert_eq!(place.read_json("out/student/distill.json")["inputs"]["fit"]["epochs"], 1);
}

#[test]
fn a_recipe_that_was_stopped_goes_on() {
    let place = with_recipe();
    let long = "run recipe.toml --set train.epochs=60 --threads 1";
    let checkpoint = || place.path("out/student/checkpoint.safetensors").exists();
    let done = place.start(long).until(checkpoint).signal("INT");
    assert_eq!(done.code, Some(130), "{}", done.stderr);
    assert!(done.stderr.contains("interrupted\nhint: the same command goes on from here"), "{}", done.stderr);
    assert!(!place.path("out/export").exists());
    place.json(long);
    place.json(&format!("{long} --output undisturbed"));
    assert!(stages(&place, "out") == stages(&place, "undisturbed"));
}

#[test]
fn a_recipe_that_cannot_be_read_is_refused() {
    let place = with_recipe();
    place.refuses("run nowhere.toml", &["nowhere.toml"]);
    let nearest = "did you mean `train.epochs`?";
    place.refuses("run recipe.toml --set train.epoch=3", &["recipe.toml", "unknown field `epoch`", nearest]);
    place.write("wrong.toml", RECIPE.replace("epochs", "epocs"));
    place.refuses("run wrong.toml", &["wrong.toml", "unknown field `epocs`", "did you mean `epochs`?"]);
    place.refuses("run recipe.toml --set student.layers=middle", &["recipe.toml", "uniform, first, last, random"]);
    place.refuses("run recipe.toml --set data.train=nowhere.tsv", &["nowhere.tsv"]);
    place.write("broken.toml", "output = \n");
    place.refuses("run broken.toml", &["broken.toml"]);
    place.write("homeless.toml", RECIPE.replace("output = \"out\"", ""));
    place.refuses("run homeless.toml", &["homeless.toml", "--output"]);
    assert!(!place.path("out").exists());
}

#[test]
fn a_recipe_does_not_mix_with_what_lies_there() {
    let place = with_recipe();
    place.copy("teacher", "out/student");
    let before = place.files("out/student");
    let message = place.run("run recipe.toml").failure();
    assert!(message.contains("out/student is not empty"), "{message}");
    assert!(place.files("out/student") == before);
}

#[test]
fn values_that_no_training_survives_are_refused_before_the_teacher_runs() {
    let place = with_recipe();
    for (setting, expected) in [
        ("train.epochs=0", "train.epochs is 0"),
        ("train.batch_rows=0", "train.batch_rows is 0"),
        ("train.batch_tokens=0", "train.batch_tokens is 0"),
        ("train.evaluate_every=0", "train.evaluate_every is 0"),
        ("train.learning_rate=-1.0", "train.learning_rate is -1"),
        ("train.learning_rate=nan", "train.learning_rate is NaN"),
        ("train.max_gradient_norm=0.0", "train.max_gradient_norm is 0"),
        ("train.weight_decay=-5.0", "train.weight_decay is -5"),
        ("train.warmup_ratio=5.0", "train.warmup_ratio is 5"),
        ("student.dropout=1.0", "student.dropout is 1"),
        ("student.hidden_size=0", "student.hidden_size is 0"),
        ("student.layers=0,9", "layer 9 is not one of the 4"),
        ("student.hidden_size=99999", "hidden"),
        ("objective=[]", "objective"),
        ("train.warmup_steps=3 --set train.warmup_ratio=0.5", "--warmup-steps stands in place of --warmup-ratio"),
        ("train.max_gradient_value=0.1 --set train.max_gradient_norm=0.5", "--max-gradient-value stands in place"),
        ("train.evaluate_steps=3 --set train.evaluate_every=2", "train.evaluate_steps"),
    ] {
        place.refuses(&format!("run recipe.toml --set {setting}"), &[expected]);
        assert!(!place.path("out/cache").exists(), "{setting}");
    }
}

#[test]
fn overwriting_keeps_what_no_stage_wrote_and_refuses_first() {
    let place = with_recipe();
    place.copy("teacher", "out/teacher");
    let line = "run recipe.toml --set teacher.model=out/teacher --set train.epochs=1";
    place.json(line);
    let (teacher, before) = (place.files("out/teacher"), stages(&place, "out"));
    place.refuses(&format!("{line} --overwrite --set data.train=nowhere.tsv"), &["nowhere.tsv"]);
    place.refuses("run recipe.toml --overwrite --set teacher.model=out/student", &["out/student"]);
    assert!(stages(&place, "out") == before);
    place.json(&format!("{line} --overwrite --tensorboard"));
    assert!(place.files("out/teacher") == teacher);
    assert!(stages(&place, "out") == before);
    assert!(!place.files("out/student/tensorboard").is_empty());
    place.json(&format!("{line} --overwrite"));
    assert!(!place.path("out/student/tensorboard").exists());
}

/// On the data and with the teacher that the program carries: one epoch of it.
#[test]
fn the_demo_does_the_whole_job() {
    let place = Workplace::new();
    let report = place.json("demo --epochs 1 --no-baseline --output demo");
    assert_eq!(keys(&report), ["schema_version", "teacher", "student", "baseline", "seconds", "output"]);
    has_figures(&report["teacher"], "teacher");
    // Made from ten labels a class alone: distill/demo/teacher/README.md.
    let teacher = report["teacher"]["accuracy"].as_f64().expect("a number");
    assert!((teacher - 0.8273).abs() < 0.001, "{teacher}");
    has_figures(&report["student"], "student");
    assert!(report["student"]["agreement"].is_f64() && report["student"]["ece"].is_f64(), "{report}");
    assert_eq!(report["baseline"], Value::Null);
    for stage in ["teacher", "student", "export"] {
        assert!(place.path(&format!("demo/{stage}/model.safetensors")).exists(), "{stage}");
    }
    assert!(!place.path("demo/baseline").exists());
}

/// Runs a recipe of `recipes/` as it is, but for these settings, and returns the student's accuracy.
fn shipped(name: &str, settings: &[&str]) -> f64 {
    let place = Workplace::new();
    place.write_texts(100);
    let settings: String = settings.iter().map(|setting| format!(" --set {setting}")).collect();
    let run = |name: &str| {
        let recipe = fs::read_to_string(repository().join(format!("recipes/{name}.toml"))).expect("ships");
        place.write("recipe.toml", &recipe);
        (place.json(&format!("run recipe.toml{settings}")), recipe)
    };
    if name == "teacher-assistant-2" {
        run("teacher-assistant-1");
    }
    let (report, recipe) = run(name);
    // Every term is in the trainings, in its order, and has a part in their gradients.
    let value = |key: &str| -> Vec<&str> {
        let key = format!("{key} = ");
        recipe.lines().filter_map(|line| line.strip_prefix(&key)).map(|value| value.trim_matches('"')).collect()
    };
    let output = value("output")[0];
    // A stage that trains layer by layer has a training for each.
    let trainings = |stage: &str| -> Vec<String> {
        let of_layers = (0..).map(|layer| format!("{output}/stages/{stage}-{layer}"));
        let of_layers: Vec<String> = of_layers.take_while(|run| place.path(run).exists()).collect();
        if of_layers.is_empty() { vec![format!("{output}/stages/{stage}")] } else { of_layers }
    };
    let stages = value("name").len().saturating_sub(1);
    let mut of_stages: Vec<Vec<String>> = value("name").into_iter().take(stages).map(trainings).collect();
    of_stages.push(vec![format!("{output}/student")]);
    let mut terms = Vec::new();
    for (run, first) in of_stages.iter().flat_map(|runs| runs.iter().map(move |run| (run, *run == runs[0]))) {
        let record = place.read_json(&format!("{run}/distill.json"));
        let of_training = record["inputs"]["objective"].as_array().expect("terms").clone();
        let shares = record["figures"]["gradient_shares"].as_array().cloned().unwrap_or_default();
        if of_training.len() > 1 {
            assert_eq!(shares.len(), of_training.len(), "{record}");
            assert!(shares.iter().all(|share| share[1].as_f64() > Some(0.0)), "{record}");
        }
        if !first {
            continue;
        }
        terms.extend(of_training.iter().map(|term| term["term"].as_str().expect("a name").to_owned()));
    }
    assert_eq!(terms, value("term"));
    assert!(report["teacher"]["accuracy"].as_f64() > Some(0.95), "{report}");
    report["student"]["accuracy"].as_f64().expect("labelled test rows")
}

// Measured: 0.965, 0.965, 0.965, 0.97, 0.965, 0.965, 0.965, 0.965. From labels that are guessed it would be 0.25.
#[test]
fn distilbert_ships_and_learns() {
    assert!(shipped("distilbert", &[]) > 0.9);
}

#[test]
fn tinybert_ships_and_learns() {
    assert!(shipped("tinybert", &[]) > 0.9);
}

#[test]
fn minilm_ships_and_learns() {
    assert!(shipped("minilm", &[]) > 0.9);
}

#[test]
fn minilm_v2_ships_and_learns() {
    assert!(shipped("minilm-v2", &[]) > 0.9);
}

#[test]
fn pkd_ships_and_learns() {
    assert!(shipped("pkd", &[]) > 0.9);
}

#[test]
fn patient_ships_and_learns() {
    assert!(shipped("patient", &[]) > 0.9);
}

#[test]
fn few_labels_ships_and_learns() {
    assert!(shipped("few-labels", &[]) > 0.9);
}

#[test]
fn teacher_assistant_ships_and_learns() {
    assert!(shipped("teacher-assistant-2", &[]) > 0.9);
}

/// Of the published width it would take minutes to learn here, so that it is smaller and its rate higher.
#[test]
fn mobilebert_ships_and_learns() {
    let settings = [
        "student.num_layers=2",
        "student.hidden_size=64",
        "student.bottleneck_size=32",
        "student.intermediate_size=64",
        "train.epochs=20",
        "train.learning_rate=2e-3",
    ];
    assert!(shipped("mobilebert", &settings) > 0.9);
}

#[test]
fn every_recipe_that_ships_is_tried() {
    let folder = fs::read_dir(repository().join("recipes")).expect("recipes ship");
    let mut names: Vec<String> =
        folder.map(|entry| entry.expect("readable").file_name().into_string().expect("text")).collect();
    names.sort();
    let tried = [
        "distilbert.toml",
        "few-labels.toml",
        "minilm-v2.toml",
        "minilm.toml",
        "mobilebert.toml",
        "patient.toml",
        "pkd.toml",
        "teacher-assistant-1.toml",
        "teacher-assistant-2.toml",
        "tinybert.toml",
    ];
    assert_eq!(names, tried);
}
