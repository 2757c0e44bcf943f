//! Settings that are searched for: what is tried on which rows for how long, what is chosen, and what stays of it.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::support::{Workplace, keys, rows, tsv};

/// Two rungs: 9 settings with a ninth of 204 steps, and 3 of them with a third.
const TUNE: &str =
    "train --teacher teacher --cache cache --data train.tsv --layers 0 --batch-rows 8 --epochs 3 --tune 9";

const RECIPE: &str = r#"
output = "out"

[teacher]
model = "teacher"

[data]
train = "train.tsv"
test = "test.tsv"

[student]
layers = "0"

[[objective]]
term = "soft_target"
weight = 0.5
temperature = 2.0

[[objective]]
term = "hard_label"
weight = 0.5

[train]
epochs = 3
batch_rows = 8
"#;

fn with_recipe() -> Workplace {
    let place = Workplace::new();
    place.write("recipe.toml", RECIPE);
    place
}

/// The trials of one rung, from 1.
fn rung(tuned: &Value, number: u64) -> Vec<&Value> {
    tuned["tried"].as_array().expect("trials").iter().filter(|tried| tried["rung"] == number).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The settings of the best of these trials: by accuracy, then by loss.
fn best<'a>(trials: &[&'a Value], count: usize) -> Vec<&'a Value> {
    let mut trials = trials.to_vec();
    let figures = |trial: &Value| [-number(&trial["accuracy"]), number(&trial["loss"])];
    trials.sort_by(|a, b| figures(a).partial_cmp(&figures(b)).expect("numbers"));
    trials[..count].iter().map(|trial| &trial["settings"]).collect()
}

/// All files of a search, with their bytes.
fn search(place: &Workplace, output: &str) -> BTreeMap<String, Vec<u8>> {
    let folders = |folder: &str| {
        let entries = fs::read_dir(place.path(folder)).expect("a folder").map(|entry| entry.expect("an entry"));
        let names = entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name());
        names.map(|name| format!("{folder}/{}", name.to_str().expect("a name"))).collect::<Vec<_>>()
    };
    let root = format!("{output}/tune");
    let trials = folders(&root).into_iter().flat_map(|rung| folders(&rung)).chain([root]);
    let files = trials.flat_map(|folder| {
        place
            .files(&folder)
            .into_iter()
            .map(move |(name, bytes)| (format!("{folder}/{name}"), bytes))
            .collect::<Vec<_>>()
    });
    files.map(|(name, bytes)| (name.replacen(output, "", 1), bytes)).collect()
}

#[test]
fn settings_are_tried_for_longer_and_longer_and_the_best_one_is_trained() {
    let place = Workplace::with_cache();
    let report = place.json(&format!("{TUNE} --output tuned"));
    let tuned = &report["tuned"];
    assert_eq!(keys(tuned), ["metric", "tried", "chosen"]);
    assert_eq!(tuned["metric"], "accuracy");
    let (first, second) = (rung(tuned, 1), rung(tuned, 2));
    assert_eq!((first.len(), second.len()), (9, 3));
    assert!(first.iter().all(|tried| tried["steps"] == 22) && second.iter().all(|tried| tried["steps"] == 68));
    assert_eq!(
        keys(first[0]),
        ["settings", "rung", "steps", "accuracy", "macro_f1", "agreement", "ece", "loss", "diverged"]
    );
    assert_eq!(
        first[0]["settings"],
        json!({"learning_rate": 1e-3, "temperature": 4.0, "weight_soft": 0.9, "weight_hard": 0.1}),
        "the given ones come first"
    );
    let mut left = best(&first, 3);
    left.sort_by_key(|settings| first.iter().position(|tried| tried["settings"] == **settings));
    assert_eq!(left, second.iter().map(|tried| &tried["settings"]).collect::<Vec<_>>());
    assert_eq!(tuned["chosen"], *best(&second, 1)[0]);

    // The record says what the flags would have said, and the student is the one that they make.
    let chosen = &tuned["chosen"];
    let record = place.read_json("tuned/distill.json");
    assert_eq!(record["inputs"]["fit"]["learning_rate"], chosen["learning_rate"]);
    assert_eq!(record["inputs"]["objective"][0]["temperature"], chosen["temperature"]);
    assert_eq!(record["figures"]["steps"], 204);
    let plain = TUNE.replace("--tune 9", "");
    place.json(&format!(
        "{plain} --learning-rate {} --temperature {} --weight-soft {} --weight-hard {} --output plain",
        chosen["learning_rate"], chosen["temperature"], chosen["weight_soft"], chosen["weight_hard"]
    ));
    assert!(place.files("plain") == place.files("tuned"));

    // Of a trial there is what can be read, and a trial is a training of its length.
    assert_eq!(place.names("tuned/tune"), ["tune.json"]);
    assert_eq!(place.names("tuned/tune/rung-1/setting-1"), ["distill.json", "metrics.jsonl"]);
    assert_eq!(place.read_json("tuned/tune/tune.json")["tuned"], *tuned);
    place.json(&format!("{plain} --max-steps 22 --output short"));
    assert_eq!(place.read("short/metrics.jsonl"), place.read("tuned/tune/rung-1/setting-1/metrics.jsonl"));

    // Once complete, it is only read again; as text it is a table.
    let again = place.json(&format!("{TUNE} --output tuned --resume"));
    assert_eq!(again["tuned"], *tuned);
    let text = place.run(&format!("{TUNE} --output tuned --resume")).stdout;
    assert!(text.starts_with("accuracy on the validation rows after so many steps:\nlearning_rate"), "{text}");
    assert_eq!(text.lines().filter(|line| line.ends_with("  chosen")).count(), 1, "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn the_same_settings_are_chosen_with_any_number_of_threads() {
    let place = Workplace::with_cache();
    let one = place.json(&format!("{TUNE} --threads 1 --output one"));
    let two = place.json(&format!("{TUNE} --threads 2 --output two"));
    assert_eq!(one["tuned"], two["tuned"]);
    assert!(place.files("one") == place.files("two") && search(&place, "one") == search(&place, "two"));
    let other = place.json(&format!("{TUNE} --seed 7 --output other"));
    assert_ne!(rung(&one["tuned"], 1)[1]["settings"], rung(&other["tuned"], 1)[1]["settings"]);
}

#[test]
fn what_is_given_is_not_searched() {
    let place = Workplace::with_cache();
    let searched = |flags: &str| {
        let report = place.json(
            &format!("{TUNE} --epochs 1 --output out --overwrite {flags}")
                .replace("--epochs 3", "")
                .replace("--tune 9", "--tune 3"),
        );
        keys(&report["tuned"]["chosen"]).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(searched("--temperature 3"), ["learning_rate", "weight_soft", "weight_hard"]);
    assert_eq!(searched("--weight-hard 0.2"), ["learning_rate", "temperature"]);
    assert_eq!(searched("--temperature 3 --weight-soft 0.2"), ["learning_rate"]);
    // A cache of a few temperatures has nothing to say of others.
    place.json("cache --teacher teacher --data train.tsv --output top --top-k 2 --temperatures 2,4");
    let report = place.json(&format!("{} --output few", TUNE.replace("--cache cache", "--cache top")));
    let first = rung(&report["tuned"], 1);
    assert!(first.iter().all(|tried| [json!(2.0), json!(4.0)].contains(&tried["settings"]["temperature"])));
    assert!(first.iter().any(|tried| tried["settings"]["temperature"] == 2.0));
}

#[test]
fn a_search_that_was_stopped_goes_on_to_the_same_choice() {
    let place = Workplace::with_cache();
    let line = TUNE.replace("--epochs 3", "--epochs 12 --threads 1");
    let undisturbed = place.json(&format!("{line} --output undisturbed"));
    let begun = |trial: &str| {
        let metrics = place.path(&format!("out/tune/{trial}/metrics.jsonl"));
        move || metrics.exists()
    };
    let done = place.start(&format!("{line} --output out")).until(begun("rung-1/setting-4")).signal("KILL");
    assert_eq!(done.code, None);
    let record = place.path("out/tune/rung-1/setting-1/distill.json");
    let written = fs::metadata(&record).expect("complete").modified().expect("a time");
    let resumed = format!("{line} --output out --resume");
    let done = place.start(&resumed).until(begun("rung-2/setting-5")).signal("INT");
    assert_eq!(done.code, Some(130), "{}", done.stderr);
    assert!(done.stderr.contains("hint: the same command goes on from here"), "{}", done.stderr);
    assert!(!place.path("out/distill.json").exists());
    let report = place.json(&resumed);
    assert_eq!(report["tuned"], undisturbed["tuned"]);
    assert!(place.files("out") == place.files("undisturbed"));
    assert!(search(&place, "out") == search(&place, "undisturbed"));
    assert_eq!(fs::metadata(&record).expect("kept").modified().expect("a time"), written, "trained again");
    // Another search is not this one's.
    let message = place.run(&resumed.replace("--tune 9", "--tune 8")).failure();
    assert!(message.contains("holds a search of other settings") && message.contains("--overwrite"), "{message}");
}

#[test]
fn a_search_that_ctrl_c_stopped_says_how_to_go_on() {
    let place = Workplace::with_cache();
    let line = TUNE.replace("--epochs 3", "--epochs 60 --threads 1");
    let begun = || place.path("out/tune/rung-1/setting-2/metrics.jsonl").exists();
    let done = place.start(&format!("{line} --output out")).until(begun).signal("INT");
    assert_eq!(done.code, Some(130), "{}", done.stderr);
    assert!(done.stderr.contains("hint: the same command with --resume goes on from here"), "{}", done.stderr);
}

#[test]
fn a_search_has_a_folder_to_itself() {
    let place = Workplace::with_cache();
    fs::create_dir(place.path("out")).expect("a folder");
    place.write("out/notes.txt", "mine");
    let message = place.refusal(&format!("{TUNE} --output out").replace("--tune 9", "--tune 2"));
    assert!(message.contains("out is not empty"), "{message}");
    assert_eq!(fs::read_dir(place.path("out")).expect("a folder").count(), 1);
    // What is refused after all that can be read was read leaves nothing, and removes nothing.
    place.json(&format!("{TUNE} --output earlier"));
    let (student, trials) = (place.files("earlier"), search(&place, "earlier"));
    let wrong = TUNE.replace("--cache cache", "--cache nowhere");
    place.run(&format!("{wrong} --output none")).failure();
    place.run(&format!("{wrong} --output earlier --overwrite")).failure();
    place.json("cache --teacher teacher --data test.tsv --output other");
    let wrong = TUNE.replace("--cache cache", "--cache other");
    let message = place.run(&format!("{wrong} --output earlier --overwrite")).failure();
    assert!(message.contains("training rows are not in the cache"), "{message}");
    place.run(&format!("{wrong} --output none")).failure();
    place.run(&format!("{TUNE} --metric agreement --validation test.tsv --output empty")).failure();
    assert_eq!(fs::read_dir(place.path("empty")).expect("a folder").count(), 0);
    assert!(!place.path("none").exists());
    assert!(place.files("earlier") == student && search(&place, "earlier") == trials);
    // A later training replaces the search, too.
    place.json(&format!("{} --output earlier --overwrite", TUNE.replace("--tune 9", "")));
    assert!(!place.path("earlier/tune").exists());
}

#[test]
fn a_teacher_is_tuned_by_its_learning_rate() {
    let place = Workplace::new();
    let report = place.json("finetune --model teacher --data train.tsv --epochs 2 --tune 3 --metric loss --output out");
    let tuned = &report["tuned"];
    assert_eq!((tuned["metric"].as_str(), rung(tuned, 1).len()), (Some("loss"), 3));
    let losses = rung(tuned, 1).into_iter().map(|tried| tried["loss"].as_f64().expect("a loss"));
    let chosen = rung(tuned, 1).into_iter().find(|tried| tried["settings"] == tuned["chosen"]).expect("one of them");
    assert_eq!(chosen["loss"].as_f64(), losses.min_by(f64::total_cmp));
    let record = place.read_json("out/distill.json");
    assert_eq!(record["inputs"]["fit"]["learning_rate"], tuned["chosen"]["learning_rate"]);
    assert_eq!(keys(&tuned["chosen"]), ["learning_rate"]);
}

#[test]
fn a_recipe_runs_with_the_best_of_its_values() {
    let place = with_recipe();
    let line = "run recipe.toml --sweep train.learning_rate=1e-5,1e-3 --sweep student.intermediate_size=32,64";
    let report = place.json(line);
    let tuned = &report["tuned"];
    assert_eq!(rung(tuned, 1).len(), 4);
    assert_eq!(tuned["chosen"]["train.learning_rate"], 1e-3, "{tuned}");
    let chosen = |key: &str| tuned["chosen"][key].to_string();
    let plain = place.json(&format!(
        "run recipe.toml --output plain --set train.learning_rate={} --set student.intermediate_size={}",
        chosen("train.learning_rate"),
        chosen("student.intermediate_size")
    ));
    assert_eq!(plain.get("tuned"), None);
    assert!(place.files("plain/student") == place.files("out/student"));
    assert_eq!(plain["student"]["accuracy"], report["student"]["accuracy"]);
    assert!(!place.path("out/tune/cache").exists() && place.path("out/cache/manifest.json").exists());
    // Again, nothing is trained; another search wants another folder, or this one.
    let again = place.json(line);
    assert_eq!((&again["tuned"], &again["cache"]["forwarded"]), (tuned, &json!(0)));
    let other = "run recipe.toml --sweep train.learning_rate=1e-4,2e-4";
    let message = place.run(other).failure();
    assert!(message.contains("out/tune: holds a search of other settings"), "{message}");
    let replaced = place.json(&format!("{other} --overwrite"));
    assert_eq!(keys(&replaced["tuned"]["chosen"]), ["train.learning_rate"]);
}

#[test]
fn values_with_which_a_training_diverges_count_as_the_worst() {
    let place = with_recipe();
    let done = place.run("run recipe.toml --sweep train.learning_rate=1e30,1e-3");
    done.succeeded();
    assert!(done.stderr.contains("count as the worst"), "{}", done.stderr);
    let text = &done.stdout;
    assert!(text.lines().any(|line| line.contains("1e+30") && line.contains("diverged")), "{text}");
    let message = place.run("run recipe.toml --sweep train.learning_rate=1e30,1e31 --output none").failure();
    assert!(message.contains("none of the 2 settings") && message.contains("hint: lower"), "{message}");
}

#[test]
fn each_arm_of_a_comparison_has_the_best_values_for_itself() {
    let place = with_recipe();
    let line =
        "compare recipe.toml --seeds 2 --sweep train.learning_rate=1e-5,1e-3 --sweep objective.0.temperature=1,2";
    let report = place.json(line);
    let arms = report["arms"].as_array().expect("arms");
    // Without a teacher, its temperature is no setting.
    assert_eq!((rung(&arms[0]["tuned"], 1).len(), rung(&arms[1]["tuned"], 1).len()), (4, 2));
    for (arm, folder) in arms.iter().zip(["with_teacher", "without_teacher"]) {
        assert_eq!(arm["tuned"]["chosen"]["train.learning_rate"], 1e-3);
        for seed in [42, 43] {
            let record = place.read_json(&format!("out/compare/{folder}/seed-{seed}/distill.json"));
            assert_eq!(record["inputs"]["fit"]["learning_rate"], 1e-3);
        }
        assert!(place.path(&format!("out/compare/{folder}/tune/tune.json")).exists());
    }
    assert_eq!(arms[0]["steps"], arms[1]["steps"]);
    let written = place.read_json("out/compare/comparison.json");
    assert_eq!(written["arms"][0]["tuned"], arms[0]["tuned"]);
    let table = place.read("out/compare/comparison.md");
    assert!(table.contains("| chosen on the validation rows | train.learning_rate 0.001, objective"), "{table}");
    assert_eq!(place.json(line)["arms"][1]["tuned"], arms[1]["tuned"]);

    // What does not matter to an arm leaves it nothing to choose.
    let soft = place.json("compare recipe.toml --seeds 1 --sweep objective.0.temperature=1,2 --output soft");
    assert!(soft["arms"][0]["tuned"].is_object() && soft["arms"][1].get("tuned").is_none());
    assert!(place.read("soft/comparison.md").contains("| no choice |"));

    // The test rows decide nothing: with others, the choice and the students are the same.
    let test: Vec<_> = rows(&place.read("test.tsv")).into_iter().take(40).collect();
    place.write("fewer.tsv", tsv(&test));
    let other = place.json(&format!("{line} --set data.test=fewer.tsv --output other"));
    assert_eq!(other["arms"][0]["tuned"], arms[0]["tuned"]);
    assert!(place.files("other/with_teacher/seed-42") == place.files("out/compare/with_teacher/seed-42"));
}

#[test]
fn a_search_that_cannot_choose_is_refused_before_anything_is_trained() {
    let place = Workplace::with_cache();
    place.write("recipe.toml", RECIPE);
    // So few that none is held out.
    let all = rows(&place.read("train.tsv"));
    let other = all.iter().find(|row| row.1 != all[0].1).expect("two classes");
    place.write("few.tsv", tsv(&[all[0].clone(), other.clone()]));
    let texts = rows(&place.read("test.tsv")).into_iter().map(|(text, _)| (text, String::new()));
    place.write("unlabelled.tsv", tsv(&texts.collect::<Vec<_>>()));
    let few = TUNE.replace("train.tsv", "few.tsv");
    for (line, expected) in [
        (format!("{few} --output none"), vec!["no validation rows", "--validation"]),
        (format!("{TUNE} --max-minutes 1 --output none"), vec!["--max-minutes", "--max-steps"]),
        (
            "finetune --model teacher --data train.tsv --validation unlabelled.tsv --tune 2 --output none".to_owned(),
            vec!["no validation row has a label", "--validation"],
        ),
        (
            "run recipe.toml --output none --sweep train.learnign_rate=1,2".to_owned(),
            vec!["--sweep train.learnign_rate=1", "unknown field", "did you mean `train.learning_rate`?"],
        ),
        (
            "run recipe.toml --output none --sweep train.warmup_ratio=0.1,lots".to_owned(),
            vec!["--sweep train.warmup_ratio=lots", "expected f64"],
        ),
        (
            "run recipe.toml --output none --sweep student.num_layers=1,0".to_owned(),
            vec!["student.num_layers=0", "expected at least 1"],
        ),
        (
            "run recipe.toml --output none --sweep student.num_heads=2,1".to_owned(),
            vec!["head width 32", "--layers random"],
        ),
        (
            "run recipe.toml --output none --sweep data.train=train.tsv,few.tsv".to_owned(),
            vec!["--sweep data.train: no setting", "`student`, `objective`, `train`"],
        ),
        ("run recipe.toml --output none --sweep train.seed=1,2".to_owned(), vec!["--sweep train.seed", "--seeds"]),
        (
            "run recipe.toml --output none --sweep train.epochs=1,2 --set data.train=few.tsv".to_owned(),
            vec!["no validation rows", "`data.validation`"],
        ),
        (
            "run recipe.toml --output none --sweep train.epochs=1,2 --set train.max_minutes=1".to_owned(),
            vec!["--sweep", "`train.max_steps`"],
        ),
        (
            "compare recipe.toml --output none --sweep train.epochs=1,2".to_owned(),
            vec!["different numbers of steps", "distill run"],
        ),
    ] {
        place.refuses(&line, &expected);
        assert!(!place.path("none").exists(), "`{line}` wrote something");
    }
    let message = place.run("finetune --model teacher --data few.tsv --tune 2 --output none").failure();
    assert!(message.contains("no validation rows, and --tune") && !place.path("none").exists(), "{message}");
    for (line, expected) in [
        (format!("{TUNE} --output none").replace("--tune 9", "--tune 1"), "from 2 to 100"),
        (format!("{TUNE} --output none").replace("--tune 9", "--tune 101"), "from 2 to 100"),
        ("run recipe.toml --sweep train.epochs=3".to_owned(), "nothing to choose"),
        ("run recipe.toml --sweep train.epochs".to_owned(), "key=a,b"),
    ] {
        let done = place.run(&line);
        assert!(done.code == Some(2) && done.stderr.contains(expected), "`{line}`: {}", done.stderr);
    }
    let values: Vec<String> = (1..=51).map(|value| format!("{value}e-5")).collect();
    let sweep = format!("--sweep train.learning_rate={} --sweep student.num_heads=1,2", values.join(","));
    place.refuses(&format!("run recipe.toml --output none {sweep}"), &["102 combinations", "fewer values"]);
}
