//! A recipe with stages: trainings one after another, each from what the one before has kept.

use crate::support::Workplace;

const RECIPE: &str = r#"output = "out"
[teacher]
model = "teacher"
[data]
train = "train.tsv"
test = "test.tsv"
[student]
layers = "0,2"
prune_vocabulary = true
[train]
epochs = 2
learning_rate = 3e-4

[[stage]]
name = "layers"
[[stage.objective]]
term = "hidden_mse"
weight = 1.0
[[stage.objective]]
term = "attention_kl"
weight = 1.0
[stage.train]
keep = "last"

[[stage]]
name = "answers"
[[stage.objective]]
term = "soft_target"
weight = 0.9
final_weight = 0.0
temperature = 4.0
[[stage.objective]]
term = "hard_label"
weight = 0.1
final_weight = 1.0
[stage.train]
epochs = 3
learning_rate = 1e-3
freeze = ["embeddings"]
"#;

#[test]
fn each_stage_goes_on_from_the_one_before() {
    let place = Workplace::with_cache();
    place.write("recipe.toml", RECIPE);
    let report = place.json("run recipe.toml");
    assert!(report["student"]["accuracy"].as_f64() > Some(0.4), "{report}");
    let [first, last] = ["out/stages/layers", "out/student"].map(|run| place.read_json(&format!("{run}/distill.json")));
    assert_eq!(first["inputs"]["fit"]["epochs"], 2);
    assert_eq!(last["inputs"]["fit"]["epochs"], 3);
    assert_eq!(last["inputs"]["fit"]["freeze"][0], "embeddings");
    assert_eq!(first["inputs"]["fit"]["freeze"].as_array(), None);

    // The same by command.
    let train = "train --teacher teacher --cache cache --data train.tsv";
    place.json(&format!(
        "{train} --layers 0,2 --prune-vocabulary --epochs 2 --learning-rate 3e-4 --keep last --weight-soft 0 --weight-hard 0 \
         --term hidden_mse,weight=1.0 --term attention_kl,weight=1.0 --output first"
    ));
    place.json(&format!(
        "{train} --student first --epochs 3 --learning-rate 1e-3 --freeze embeddings --weight-soft 0 --weight-hard 0 \
         --term soft_target,weight=0.9,final_weight=0.0,temperature=4.0 --term hard_label,weight=0.1,final_weight=1.0 \
         --output second"
    ));
    let weights = |run: &str| place.read_bytes(&format!("{run}/model.safetensors"));
    assert!(weights("first") == weights("out/stages/layers"));
    assert!(weights("second") == weights("out/student"));
    let words = place.tensor("out/student/model.safetensors", "distilbert.embeddings.word_embeddings.weight");
    assert!(
        words == place.tensor("out/stages/layers/model.safetensors", "distilbert.embeddings.word_embeddings.weight")
    );

    // What is complete is kept, and another stage is another run.
    let before = place.files("out/student");
    let again = place.run("run recipe.toml");
    again.succeeded();
    assert!(again.stderr.contains("layers: complete, kept as it is"), "{}", again.stderr);
    assert!(place.files("out/student") == before);
    let refused = place.run("run recipe.toml --set stage.1.train.epochs=4").failure();
    assert!(refused.contains("stage answers") && refused.contains("another `fit.epochs` (3, now 4)"), "{refused}");
    place.json("run recipe.toml --set stage.1.train.epochs=4 --overwrite");
    assert_eq!(place.read_json("out/student/distill.json")["inputs"]["fit"]["epochs"], 4);
}

#[test]
fn a_run_that_was_killed_between_stages_goes_on_to_the_same_end() {
    let place = Workplace::with_cache();
    place.write("recipe.toml", RECIPE);
    place.json("run recipe.toml --output whole");
    let record = place.path("parts/stages/layers/distill.json");
    let student = place.path("parts/student");
    let killed = place.start("run recipe.toml --output parts").until(|| record.exists()).signal("KILL");
    assert_eq!(killed.code, None);
    assert!(!student.join("distill.json").exists());
    place.json("run recipe.toml --output parts");
    for run in ["stages/layers", "student", "export"] {
        assert!(place.files(&format!("whole/{run}")) == place.files(&format!("parts/{run}")), "{run}");
    }
}

/// Against the labels alone for as many steps as all stages have together.
#[test]
fn a_recipe_with_stages_is_compared() {
    let place = Workplace::with_cache();
    place.write("recipe.toml", RECIPE);
    let report = place.json("compare recipe.toml --seeds 2");
    place.json("run recipe.toml");
    let steps = |run: &str| place.read_json(&format!("{run}/distill.json"))["figures"]["steps"].as_u64();
    let both = steps("out/stages/layers").zip(steps("out/student")).map(|(first, last)| first + last);
    let arm = |number: usize| &report["arms"][number]["steps"];
    assert_eq!((arm(0)[0].as_u64(), arm(0)), (both, arm(1)));
    let weights = |run: &str| place.read_bytes(&format!("{run}/model.safetensors"));
    let with_teacher = "out/compare/with_teacher";
    assert!(weights(&format!("{with_teacher}/seed-42")) == weights("out/student"));
    assert!(weights(&format!("{with_teacher}/stages/seed-42/layers")) == weights("out/stages/layers"));
    assert!(weights(&format!("{with_teacher}/seed-43")) != weights("out/student"));
    assert_eq!(steps("out/compare/without_teacher/seed-43"), both);

    // Nothing is trained again, and what is overwritten is whole.
    let before = place.files(with_teacher);
    place.json("compare recipe.toml --seeds 2");
    assert!(place.files(with_teacher) == before);
    place.json("compare recipe.toml --seeds 1 --overwrite --set stage.0.train.epochs=1");
    assert!(!place.path(&format!("{with_teacher}/stages/seed-43")).join("layers/distill.json").exists());
    let record = place.read_json(&format!("{with_teacher}/stages/seed-42/layers/distill.json"));
    assert_eq!(record["inputs"]["fit"]["epochs"], 1);
}

#[test]
fn stages_without_sense_are_refused() {
    let place = Workplace::with_cache();
    place.write("recipe.toml", RECIPE);
    for (setting, expected) in [
        ("stage.1.name=layers", "two stages are called `layers`"),
        ("stage.0.name=a/b", "it must be of letters"),
        ("stage.1.objective=[]", "stage answers"),
        ("stage.0.train.epoch=3", "did you mean"),
        ("stage.0.train.epochs=0", "stage layers"),
    ] {
        place.refuses(&format!("run recipe.toml --set {setting}"), &[expected]);
    }
    place.refuses("run recipe.toml --sweep train.learning_rate=1e-4,1e-3", &["--sweep", "stages"]);
    let late = place.run("run recipe.toml --set stage.0.objective.0.layers=0:7").failure();
    assert!(late.contains("stage layers") && late.contains("hidden states of the teacher are 0 to 4"), "{late}");
    place.refuses(
        "compare recipe.toml --sweep train.learning_rate=1e-4,1e-3",
        &["--sweep", "the recipe has stages", "leave out one of the two"],
    );
    place.refuses("compare recipe.toml --set stage.1.train.patience=2", &["`train.patience`"]);
}

#[test]
fn a_stage_may_learn_from_some_of_the_rows() {
    let place = Workplace::with_cache();
    place.write_texts(80);
    place.write("recipe.toml", RECIPE);
    let some = "--set data.unlabelled=texts.tsv --set stage.0.rows=unlabelled --set stage.1.rows=labelled";
    let done = place.run(&format!("run recipe.toml {some}"));
    done.succeeded();
    // 80 texts are 3 steps of 32 rows, and the nine tenths that are not held out have a label.
    let steps =
        |run: &str| place.read_json(&format!("out/{run}/distill.json"))["figures"]["steps"].as_u64().expect("a number");
    let labelled = place.read("train.tsv").lines().count() - 1;
    assert_eq!(steps("stages/layers"), 2 * 80_u64.div_ceil(32));
    assert!(
        (3 * (labelled as u64 * 85 / 100).div_ceil(32)..=3 * (labelled as u64).div_ceil(32))
            .contains(&steps("student"))
    );

    let none = place.run("run recipe.toml --output none --set stage.0.rows=unlabelled").failure();
    assert!(none.contains("no training row has no label") && none.contains("data.unlabelled"), "{none}");
    place.refuses("run recipe.toml --output other --set stage.0.rows=few", &["unknown variant `few`", "`unlabelled`"]);
}

const LAYER_BY_LAYER: &str = r#"output = "out"
[teacher]
model = "teacher"
[data]
train = "train.tsv"
test = "test.tsv"
[student]
layers = "0,2"
dropout = 0.0

[[stage]]
name = "maps"
layer_by_layer = true
[[stage.objective]]
term = "feature_map"
weight = 1.0
[stage.train]
epochs = 2
learning_rate = 1e-3
layer_decay = 0.1
keep = "last"

[[stage]]
name = "answers"
rows = "unlabelled"
unlabelled = "texts.tsv"
[[stage.objective]]
term = "soft_target"
weight = 1.0
temperature = 4.0
[stage.train]
epochs = 3
"#;

#[test]
fn layers_are_trained_one_after_the_other() {
    let place = Workplace::new();
    place.write_texts(40);
    place.write("recipe.toml", LAYER_BY_LAYER);
    let report = place.json("run recipe.toml");
    let runs = ["out/stages/maps-0", "out/stages/maps-1", "out/student"];
    let [first, second, last] = runs.map(|run| place.read_json(&format!("{run}/distill.json")));
    let stages = [(&first, "1:2", vec!["1-1", "head"]), (&second, "2:4", vec!["head"])];
    for (record, layers, frozen) in stages {
        assert_eq!(record["inputs"]["objective"][0]["layers"], layers);
        assert_eq!(record["inputs"]["fit"]["freeze"], serde_json::json!(frozen));
    }
    // Texts that a stage has for itself are captured with the others, and learned from in no other.
    let labelled = place.read("train.tsv").lines().count() as u64 - 1;
    assert_eq!(report["cache"]["rows"], labelled + 40);
    let steps = |record: &serde_json::Value| record["figures"]["steps"].as_u64().expect("a number");
    assert_eq!(steps(&last), 3 * 40_u64.div_ceil(32));
    assert!(steps(&first) <= 2 * labelled.div_ceil(32) && steps(&first) == steps(&second));

    // What lies above a layer stays as it was; what lies below goes on.
    let names = |layer: u32| format!("distilbert.transformer.layer.{layer}.ffn.lin1.weight");
    let of = |run: &str, layer| place.tensor(&format!("{run}/model.safetensors"), &names(layer));
    let start = place.tensor("teacher/model.safetensors", "bert.encoder.layer.2.intermediate.dense.weight");
    assert!(of(runs[0], 1) == start, "above");
    assert!(of(runs[1], 1) != start);
    assert!(of(runs[0], 0) != of(runs[1], 0), "below");

    let refused = |change: [&str; 2], expected: &[&str]| {
        place.write("other.toml", LAYER_BY_LAYER.replace(change[0], change[1]));
        let message = place.run("run other.toml --output other").failure();
        assert!(expected.iter().all(|words| message.contains(words)), "{message}");
        assert!(!place.path("other").exists(), "{message}");
    };
    refused(["keep = \"last\"", "keep = \"best\""], &["stage maps", "layer_by_layer needs keep = \"last\""]);
    let of_logits = ["term = \"feature_map\"", "temperature = 2.0\nterm = \"soft_target\""];
    refused(of_logits, &["stage maps", "`soft_target` compares no layers"]);
    let of_last = ["term = \"feature_map\"", "layers = \"last\"\nterm = \"hidden_mse\""];
    refused(of_last, &["stage maps", "no term compares layer 0 of the student"]);
    refused(["rows = \"unlabelled\"", "rows = \"labelled\""], &["stage answers", "leaves out the texts"]);
    refused(["\"answers\"", "\"maps-1\""], &["two stages are called `maps-1`"]);
    refused(["texts.tsv", "nowhere.txt"], &["nowhere.txt"]);
    let (alone, _) = LAYER_BY_LAYER.split_once("[[stage]]\nname = \"answers\"").expect("two stages");
    place.write("alone.toml", alone);
    place.refuses("run alone.toml --output other", &["stage maps", "cannot be the last stage"]);
}
