//! Options of the loss: class weights, focal loss and R-Drop, in `train`, `finetune`, recipes and comparisons.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{CLASSES, TRAIN, Workplace, rows, tsv};

const FINETUNE: &str = "finetune --model teacher --data train.tsv --epochs 1";

/// The line of the last step in a run's `metrics.jsonl`.
fn last_step(place: &Workplace, run: &str) -> Value {
    let metrics = place.read(&format!("{run}/metrics.jsonl"));
    let last = metrics.lines().rfind(|line| line.contains(r#""event":"step""#)).expect("a step");
    serde_json::from_str(last).expect("JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn terms(place: &Workplace, run: &str) -> Value {
    place.read_json(&format!("{run}/distill.json"))["inputs"]["objective"].clone()
}

fn same_model(place: &Workplace, one: &str, other: &str) -> bool {
    let weights = |run: &str| place.read_bytes(&format!("{run}/model.safetensors"));
    weights(one) == weights(other)
}

#[test]
fn balanced_classes_are_weighted_by_their_labelled_training_rows() {
    let place = Workplace::with_cache();
    // A third of the bakery's rows, and some rows of the garden without their labels.
    let kept =
        rows(&place.read("train.tsv")).into_iter().enumerate().filter_map(|(row, (text, label))| match &*label {
            "bakery" => (row % 3 == 0).then_some((text, label)),
            "garden" if row % 2 == 0 => Some((text, String::new())),
            _ => Some((text, label)),
        });
    let kept: Vec<(String, String)> = kept.collect();
    place.write("uneven.tsv", tsv(&kept));
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    kept.iter().filter(|(_, label)| !label.is_empty()).for_each(|(_, label)| *count.entry(label).or_default() += 1);
    let all: usize = count.values().sum();
    let weights = CLASSES.map(|class| all as f64 / (4 * count[class]) as f64);
    assert!(weights[0] > 2.0 * weights[1], "{weights:?}");
    let list = weights.map(|weight| weight.to_string()).join(",");

    let line = format!("{TRAIN} --validation test.tsv").replace("train.tsv", "uneven.tsv");
    place.json(&format!("{line} --output balanced --class-weights balanced"));
    place.json(&format!("{line} --output listed --class-weights {list}"));
    place.json(&format!("{line} --output drawn --class-temperature 100"));
    assert!(place.read_bytes("drawn/model.safetensors") != place.read_bytes("balanced/model.safetensors"));
    let steps = |run: &str| place.read_json(&format!("{run}/distill.json"))["figures"]["steps"].clone();
    assert_eq!(steps("drawn"), steps("balanced"));
    place.json(&format!("{line} --output ones --class-weights 1,1,1,1"));
    place.json(&format!("{line} --output plain"));
    assert!(same_model(&place, "balanced", "listed"));
    assert!(same_model(&place, "ones", "plain"));
    assert!(!same_model(&place, "balanced", "plain"));
    assert_eq!(terms(&place, "balanced")[1], json!({"term": "hard_label", "weight": 0.1, "class_weights": "balanced"}));
    assert_eq!(terms(&place, "listed")[1]["class_weights"], json!(weights));
    assert_eq!(terms(&place, "plain")[1], json!({"term": "hard_label", "weight": 0.1}));
}

#[test]
fn the_focal_loss_is_below_the_cross_entropy() {
    let place = Workplace::with_cache();
    for line in [TRAIN, FINETUNE] {
        place.json(&format!("{line} --max-steps 1 --output plain --overwrite"));
        place.json(&format!("{line} --max-steps 1 --output focal --focal-gamma 2 --overwrite"));
        let [plain, focal] = ["plain", "focal"].map(|run| number(&last_step(&place, run)["hard_label"]));
        assert!(0.0 < focal && focal < plain, "{focal} {plain}");
    }
    assert_eq!(terms(&place, "focal"), json!([{"term": "hard_label", "weight": 1.0, "focal_gamma": 2.0}]));
    place.json("export --model focal --output exported");
    assert!(place.read("exported/README.md").contains("focal loss with the labels at gamma = 2"));
}

#[test]
fn r_drop_is_another_term_over_the_same_steps() {
    let place = Workplace::with_cache();
    for line in [TRAIN, FINETUNE] {
        let plain = place.json(&format!("{line} --output plain --overwrite"));
        let dropped = place.json(&format!("{line} --r-drop 0.5 --output dropped --overwrite"));
        assert_eq!(plain["parameters"], dropped["parameters"]);
        let figures = |run: &str| place.read_json(&format!("{run}/distill.json"))["figures"]["steps"].clone();
        assert_eq!(figures("plain"), figures("dropped"));
        assert!(number(&last_step(&place, "dropped")["r_drop"]) > 0.0);
        assert!(last_step(&place, "plain")["r_drop"].is_null());

        // However a step is cut, both views of a row keep their masks. Measured: at most 1.8e-8, in the norm.
        place.json(&format!("{line} --r-drop 0.5 --max-steps 1 --output whole --overwrite"));
        place.json(&format!("{line} --r-drop 0.5 --max-steps 1 --batch-tokens 50 --output cut --overwrite"));
        for figure in ["loss", "hard_label", "r_drop", "gradient_norm"] {
            let [whole, cut] = ["whole", "cut"].map(|run| number(&last_step(&place, run)[figure]));
            assert!((whole - cut).abs() < 1e-7 * whole, "{figure}: {whole} {cut}");
        }
    }
    assert_eq!(
        terms(&place, "dropped"),
        json!([{"term": "hard_label", "weight": 1.0}, {"term": "r_drop", "weight": 0.5}])
    );
    // Another weight is another run.
    let resumed = format!("{FINETUNE} --output dropped --resume");
    place.json(&format!("{resumed} --r-drop 0.5"));
    place.refuses(&format!("{resumed} --r-drop 1"), &["another `objective.1.weight` (0.5, now 1.0)"]);
    place.refuses(&resumed, &["another `objective`"]);
}

#[test]
fn both_arms_of_a_comparison_have_what_is_not_the_teachers() {
    let place = Workplace::new();
    place.write(
        "recipe.toml",
        "output = \"out\"\n[teacher]\nmodel = \"teacher\"\n[data]\ntrain = \"train.tsv\"\ntest = \"test.tsv\"\n\
         [student]\nlayers = \"0\"\nhead = \"teacher\"\n[train]\nepochs = 1\n[[objective]]\nterm = \"soft_target\"\n\
         weight = 0.5\ntemperature = 2\n[[objective]]\nterm = \"hard_label\"\nweight = 0.5\nclass_weights = [1, 2, 1.5, 1]\n\
         focal_gamma = 1\n[[objective]]\nterm = \"r_drop\"\nweight = 0.3\n",
    );
    place.json("compare recipe.toml --seeds 1");
    let [with, without] = ["with_teacher", "without_teacher"].map(|arm| format!("out/compare/{arm}/seed-42"));
    let hard = |weight: f64| json!({"term": "hard_label", "weight": weight, "class_weights": [1.0, 2.0, 1.5, 1.0], "focal_gamma": 1.0});
    let r_drop = json!({"term": "r_drop", "weight": 0.3});
    assert_eq!(terms(&place, &with).as_array().expect("terms")[1..], [hard(0.5), r_drop.clone()]);
    assert_eq!(terms(&place, &without), json!([hard(1.0), r_drop]));
    for run in [with, without] {
        assert_eq!(place.read_json(&format!("{run}/distill.json"))["inputs"]["student"]["head"], "teacher");
    }
}

#[test]
fn what_makes_no_loss_is_refused() {
    let place = Workplace::with_cache();
    for line in [TRAIN, FINETUNE] {
        let line = format!("{line} --output out");
        place.refuses(
            &format!("{line} --class-weights 1,2,3"),
            &[
                "3 class weights for 4 classes",
                "(bakery, library, station, garden)",
                "--class-weights",
                "`class_weights`",
            ],
        );
        place.refuses(
            &format!("{line} --r-drop 1 --dropout 0"),
            &["the dropout is 0", "--dropout", "leave out --r-drop", "`student.dropout`"],
        );
        for (flags, expected) in [
            ("--class-weights 1,-2,1,1", "class weight 2 is -2"),
            ("--class-weights -1,2,1,1", "class weight 1 is -1"),
            ("--class-weights nan,2,1,1", "class weight 1 is NaN"),
            ("--class-weights 0,0,0,0", "all class weights are 0"),
            ("--class-weights equal", "must be balanced, or a number for each class"),
            ("--focal-gamma=-1", "must be 0 or more"),
            ("--focal-gamma inf", "must be 0 or more"),
            ("--r-drop=-1", "must be 0 or more"),
        ] {
            let done = place.run(&format!("{line} {flags}"));
            assert_eq!(done.code, Some(2), "{flags}: {}", done.stderr);
            assert!(done.stderr.contains(expected), "{flags}: {}", done.stderr);
        }
    }
    let soft = format!("{TRAIN} --output out --weight-hard 0");
    place.refuses(&format!("{soft} --class-weights balanced"), &["--class-weights", "--weight-hard 0", "leave out"]);
    place.refuses(&format!("{soft} --focal-gamma 2"), &["--focal-gamma", "--weight-hard 0"]);
    place.refuses(&format!("{soft} --weight-soft 0 --r-drop 1"), &["`r_drop` alone teaches nothing"]);
    let masked = format!("{FINETUNE} --task masked-lm --output out");
    for flags in ["--class-weights balanced", "--focal-gamma 2", "--r-drop 1"] {
        let flag = flags.split(' ').next().expect("a flag");
        place.refuses(&format!("{masked} {flags}"), &[flag, "goes with --task single-label"]);
    }
    place.write(
        "recipe.toml",
        "[teacher]\nmodel = \"teacher\"\n[data]\ntrain = \"train.tsv\"\n[[objective]]\nterm = \"hard_label\"\nweight = 1\n",
    );
    let run = "run recipe.toml --output out --set";
    place.refuses(
        &format!("{run} objective.0.class_weights=[1,-1]"),
        &["recipe.toml", "`class_weights`: class weight 2 is -1"],
    );
    place.refuses(&format!("{run} objective.0.focal_gamma=-1"), &["focal_gamma of `hard_label` is -1"]);
    place.refuses(
        &format!("{run} objective.0.class_weight=balanced"),
        &["unknown field `class_weight`", "class_weights"],
    );
    assert!(!place.path("out").exists());
}

#[test]
fn other_terms_on_logits_are_flags_and_parts_of_a_recipe() {
    let place = Workplace::with_cache();
    for (flags, expected) in [
        ("--divergence reverse", json!({"divergence": "reverse"})),
        ("--divergence jensen-shannon", json!({"divergence": "jensen_shannon"})),
        ("--standardize", json!({"standardize": true})),
        ("--correct-teacher", json!({"correct_teacher": true})),
    ] {
        place.json(&format!("{TRAIN} {flags} --max-steps 2 --output out --overwrite"));
        let mut soft = json!({"term": "soft_target", "weight": 0.9, "temperature": 4.0});
        soft.as_object_mut().expect("a table").extend(expected.as_object().expect("a table").clone());
        assert_eq!(terms(&place, "out")[0], soft, "{flags}");
    }
    let line = format!("{TRAIN} --max-steps 2 --label-smoothing 0.1 --output");
    let more = ["logits_mse,weight=0.1", "decoupled,weight=0.2,temperature=4,beta=2", "dist,weight=0.3"];
    let flags: String = more.iter().map(|term| format!(" --term {term}")).collect();
    place.json(&format!("{line} flags{flags}"));
    let last = last_step(&place, "flags");
    for name in ["soft_target", "logits_mse", "decoupled", "dist", "hard_label"] {
        assert!(number(&last[name]) > 0.0, "{name}: {last}");
    }
    place.json("export --model flags --output exported");
    let card = place.read("exported/README.md");
    assert!(card.contains("0.3 × T² DIST (1 × across classes, 1 × across rows) at T = 1"), "{card}");
    assert!(card.contains("cross-entropy with the labels, smoothed by 0.1"), "{card}");

    place.write(
        "recipe.toml",
        "[teacher]\nmodel = \"teacher\"\n[data]\ntrain = \"train.tsv\"\n[train]\nepochs = 1\nmax_steps = 2\n\
         [[objective]]\nterm = \"soft_target\"\nweight = 0.9\ntemperature = 4\n\
         [[objective]]\nterm = \"logits_mse\"\nweight = 0.1\n\
         [[objective]]\nterm = \"decoupled\"\nweight = 0.2\ntemperature = 4\nbeta = 2\n\
         [[objective]]\nterm = \"dist\"\nweight = 0.3\n\
         [[objective]]\nterm = \"hard_label\"\nweight = 0.1\nlabel_smoothing = 0.1\n",
    );
    place.json("run recipe.toml --output out-of-recipe");
    assert_eq!(terms(&place, "out-of-recipe/student"), terms(&place, "flags"));
    assert!(same_model(&place, "out-of-recipe/student", "flags"));

    // Between rows: a step in parts does not have them.
    let dist = format!("{TRAIN} --term dist,weight=1 --output none");
    place.refuses(&format!("{dist} --batch-tokens 50"), &["`dist` is between the rows", "--batch-tokens", "is enough"]);
    assert!(!place.path("none").exists());
    place.refuses(&format!("{dist} --r-drop 1"), &["`dist` takes each row of a step once", "`r_drop`"]);
    place.refuses(
        &format!("{TRAIN} --weight-soft 0 --standardize --output none"),
        &["--standardize", "--weight-soft 0"],
    );
    let unknown = place.run(&format!("{TRAIN} --term dits,weight=1 --output none"));
    assert!(unknown.code == Some(2) && unknown.stderr.contains("unknown variant `dits`"), "{}", unknown.stderr);
    place.json("cache --teacher teacher --data train.tsv --output largest --top-k 2");
    let largest = TRAIN.replace("--cache cache", "--cache largest");
    place.refuses(&format!("{largest} --standardize --output none"), &["needs all of the teacher's logits", "--top-k"]);
    assert!(!place.path("none/distill.json").exists());
}
