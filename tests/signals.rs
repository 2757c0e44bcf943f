//! A teacher that runs beside its student: terms on the values of tokens, and its logits without a cache.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{TRAIN, Workplace, rows, tsv};

fn last_step(place: &Workplace, run: &str) -> Value {
    let metrics = place.read(&format!("{run}/metrics.jsonl"));
    let last = metrics.lines().rfind(|line| line.contains(r#""event":"step""#)).expect("a step");
    serde_json::from_str(last).expect("JSON")
}

const ON_TOKENS: [&str; 9] = [
    "rkd",
    "feature_map",
    "hidden_mse",
    "hidden_cosine",
    "pkd",
    "attention_scores_mse",
    "attention_kl",
    "value_relation",
    "qkv_relations",
];

#[test]
fn a_live_teacher_says_what_its_cache_says() {
    let place = Workplace::with_cache();
    place.json(&format!("{TRAIN} --output cached"));
    let live = TRAIN.replace("--cache cache", "--live");
    place.json(&format!("{live} --output live"));
    let weights = |run: &str| place.read_bytes(&format!("{run}/model.safetensors"));
    // The cache stores f32, and a row's logits do not depend on the rows beside it.
    assert!(weights("live") == weights("cached"));
    assert_eq!(place.read_json("live/distill.json")["inputs"].get("teacher_logits"), None);
    assert_eq!(place.run(&format!("{TRAIN} --live --output none")).code, Some(2), "one of --cache and --live");
    place.refuses(&format!("{} --output none", TRAIN.replace("--cache cache", "")), &["no --cache is given", "--live"]);
}

#[test]
fn terms_on_tokens_learn_from_a_teacher_beside_the_student() {
    let place = Workplace::with_cache();
    let terms: String = ON_TOKENS.iter().map(|name| format!(" --term {name},weight=0.1")).collect();
    let line = format!("{TRAIN} --layers 0,2 --epochs 3{terms} --output");
    let report = place.json(&format!("{} out", line.replace("--epochs 1 ", "")));
    let last = last_step(&place, "out");
    let first: Value = {
        let metrics = place.read("out/metrics.jsonl");
        let line = metrics.lines().find(|line| line.contains(r#""event":"gradient""#)).expect("shares");
        serde_json::from_str(line).expect("JSON")
    };
    assert_eq!(first["step"], 1);
    let shares = report["gradient_shares"].as_array().expect("shares");
    assert_eq!(shares.len(), 2 + ON_TOKENS.len());
    for name in ON_TOKENS {
        assert!(last[name].as_f64().expect("a number") > 0.0, "{name}: {last}");
        assert!(first["shares"][name].as_f64().expect("a number") > 0.0, "{name}: {first}");
    }
    let record = place.read_json("out/distill.json");
    assert_eq!(record["figures"]["gradient_shares"], report["gradient_shares"]);
    assert_eq!(
        record["inputs"]["objective"][1],
        json!({"term": "rkd", "weight": 0.1, "angle": 2.0, "layers": "last"}),
        "terms of --term stand between the soft and the hard one"
    );
    let text = place.run(&format!("{} out --resume", line.replace("--epochs 1 ", ""))).stdout;
    assert!(text.contains("share of the gradient"), "{text}");

    place.json("export --model out --output exported");
    assert!(place.read("exported/README.md").contains("0.1 × KL divergence of attention (last)"));
}

#[test]
fn a_student_that_imitates_hidden_states_comes_nearer_to_them() {
    let place = Workplace::with_cache();
    let line = "train --teacher teacher --data train.tsv --layers random --num-layers 2 --weight-soft 0 --weight-hard 0 \
                --term hidden_mse,weight=1 --epochs 15 --learning-rate 3e-3 --keep last --output out";
    place.json(line);
    let metrics = place.read("out/metrics.jsonl");
    let steps: Vec<Value> = metrics
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|line: &Value| line["event"] == "step")
        .collect();
    let of = |line: &Value| line["hidden_mse"].as_f64().expect("a number");
    assert!(steps.len() > 1, "{metrics}");
    // The teacher's hidden states are about 1 in size.
    assert!(of(&steps[steps.len() - 1]) < 0.8 * of(&steps[0]), "{metrics}");
}

#[test]
fn what_cannot_be_compared_is_told_before_the_first_step() {
    let place = Workplace::with_cache();
    let refused = |flags: &str, expected: &[&str]| {
        place.refuses(&format!("{TRAIN} {flags} --output none"), expected);
        assert!(!place.path("none").exists());
    };
    refused("--term hidden_mse,weight=1,layers=\"0:9\"", &["hidden states of the teacher are 0 to 4", "says 9"]);
    refused(
        "--term attention_kl,weight=1 --layers random --num-layers 2 --num-heads 4",
        &["the student has 4 attention heads, the teacher 2", "--num-heads 2"],
    );
    refused("--term hidden_mse,weight=1 --r-drop 1", &["`hidden_mse`", "`r_drop`"]);
    place.refuses(
        "train --cache cache --data train.tsv --shape tiny --layers random --term qkv_relations,weight=1 --output none",
        &["`qkv_relations` needs the teacher beside the student", "--teacher"],
    );
}

/// Projections may be trained before the student is, and the training that goes on from there begins with them.
#[test]
fn projections_go_from_one_training_to_the_next() {
    let place = Workplace::with_cache();
    let term = "--weight-soft 0 --weight-hard 0 --term hidden_mse,weight=1";
    let train = "train --teacher teacher --cache cache --data train.tsv";
    let first = |epochs: u32, output: &str| {
        place.json(&format!(
            "{train} --layers random --num-layers 2 --hidden-size 16 --freeze all --keep last {term} --epochs {epochs} \
             --projection-learning-rate 1e-2 --output {output}"
        ));
        place.read_bytes(&format!("{output}/model.safetensors"))
    };
    assert!(first(1, "short") == first(6, "long"), "the student stays as it is");
    let loss = |run: &str| last_step(&place, run)["hidden_mse"].as_f64().expect("a number");
    assert!(loss("long") < 0.8 * loss("short"), "{} {}", loss("long"), loss("short"));

    let next = |output: &str| {
        place.json(&format!("{train} --student long {term} --max-steps 1 --learning-rate 1e-9 --output {output}"));
        (loss(output), place.read_json(&format!("{output}/distill.json"))["inputs"]["student_projections"].clone())
    };
    let (with, hash) = next("with");
    std::fs::remove_file(place.path("long/projections.safetensors")).expect("it was written");
    let (without, none) = next("without");
    assert!(with < 0.8 * without && hash.is_string() && none.is_null(), "{with} {without} {hash} {none}");

    let refused = place.run(&format!("{TRAIN} --freeze all --output none")).failure();
    assert!(
        refused.contains("--freeze all leaves the projections") && refused.contains("no term compares"),
        "{refused}"
    );
}

/// The map to the teacher's width is trained with the student, survives a kill, and is not part of the model.
#[test]
fn a_projection_is_trained_and_resumed_and_never_exported() {
    let place = Workplace::with_cache();
    let line = "train --teacher teacher --cache cache --data train.tsv --layers random --num-layers 2 --hidden-size 16 \
                --term hidden_mse,weight=1 --term pkd,weight=10 --epochs 12 --checkpoint-every 5 --output";
    place.json(&format!("{line} whole"));
    let checkpoint = place.path("parts/checkpoint.safetensors");
    let killed = place.start(&format!("{line} parts")).until(|| checkpoint.exists()).signal("KILL");
    assert_eq!(killed.code, None);
    place.json(&format!("{line} parts --resume"));
    assert!(place.files("whole") == place.files("parts"));
    let model = place.read_bytes("whole/model.safetensors");
    let names = safetensors::SafeTensors::deserialize(&model).expect("safetensors");
    assert!(names.names().iter().all(|name| !name.contains("projection")), "{:?}", names.names());

    let rates = |rate: &str| place.json(&format!("{line} rate --projection-learning-rate {rate} --overwrite"));
    rates("1e-30");
    let still = last_step(&place, "rate");
    rates("1e-2");
    let moved = last_step(&place, "rate");
    let of = |line: &Value| line["hidden_mse"].as_f64().expect("a number");
    assert!(of(&moved) < of(&still), "{moved} {still}");
    let said = place.run(&format!("{TRAIN} --projection-learning-rate 1e-3 --max-steps 1 --output none")).stderr;
    assert!(said.contains("--projection-learning-rate is left out"), "{said}");
}

/// Texts without labels: answered, learned from, and kept apart from what is measured on.
#[test]
fn texts_without_labels_are_learned_from_and_never_measured_on() {
    let place = Workplace::new();
    let all = rows(&place.read("train.tsv"));
    let (labelled, others) = all.split_at(200);
    place.write("labelled.tsv", tsv(labelled));
    let tested = rows(&place.read("test.tsv"));
    // Of these, 20 are labelled rows, 30 are test rows and 5 are there twice.
    let texts: Vec<String> =
        [&labelled[..20], &tested[..30], others, &others[..5]].concat().into_iter().map(|row| row.0).collect();
    let distinct = |rows: &[(String, String)]| rows.iter().map(|row| &row.0).collect::<BTreeSet<_>>().len();
    let known: BTreeSet<&String> = labelled.iter().chain(&tested).map(|row| &row.0).collect();
    let new = texts.iter().filter(|text| !known.contains(text)).collect::<BTreeSet<_>>().len();
    assert!(new > 300 && distinct(others) >= new);
    place.write("texts.txt", texts.join("\n") + "\n");
    place.write(
        "recipe.toml",
        "output = \"out\"\n[teacher]\nmodel = \"teacher\"\n[data]\ntrain = \"labelled.tsv\"\ntest = \"test.tsv\"\n\
         unlabelled = \"texts.txt\"\n[train]\nepochs = 1\n",
    );
    let ran = place.run("run recipe.toml");
    ran.succeeded();
    let said = format!("texts.txt: {new} texts to learn from, {} left out", texts.len() - new);
    assert!(ran.stderr.contains(&said), "{said}: {}", ran.stderr);
    let record = place.read_json("out/student/distill.json");
    // A tenth of the labelled rows is held out, and of the others none.
    let validated = record["figures"]["validation"]["rows"].as_u64().expect("a number");
    assert!((10..=30).contains(&validated), "{validated}");
    assert_eq!(record["figures"]["validation"]["labelled"].as_u64(), Some(validated));
    let steps = record["figures"]["steps"].as_u64().expect("a number");
    assert_eq!(steps, (200 - validated + new as u64).div_ceil(32));

    // The same by command, with the same rows: the tested ones are not known to `train`.
    place.json("cache --teacher teacher --data labelled.tsv --output cache");
    let train =
        "train --teacher teacher --cache cache --data labelled.tsv --epochs 1 --unlabelled texts.txt --output trained";
    let missing = place.run(train).failure();
    assert!(missing.contains("training rows are not in the cache"), "{missing}");
    place.json("cache --teacher teacher --data texts.txt --output cache");
    place.json(train);
    // Mixed at a rate.
    let mixed = train.replace("--output trained", "--unlabelled-rate 0.5 --epochs 3 --output mixed");
    place.json(&mixed.replace("--epochs 1", ""));
    let learned = 200 - validated;
    let of_epoch = (learned + (learned as f64 * 0.5).round() as u64).div_ceil(32);
    assert_eq!(place.read_json("mixed/distill.json")["figures"]["steps"].as_u64(), Some(3 * of_epoch));
    place.json("run recipe.toml --set train.unlabelled_rate=0.5 --set train.epochs=3 --output by-recipe");
    let steps_by_recipe = &place.read_json("by-recipe/student/distill.json")["figures"]["steps"];
    assert_eq!(steps_by_recipe.as_u64(), Some(3 * of_epoch));
    let alone = train.replace("--unlabelled texts.txt", "--unlabelled-rate 0.5").replace("trained", "alone");
    let none = place.run(&alone).failure();
    assert!(none.contains("there is none without a label") && none.contains("--unlabelled FILE"), "{none}");
    // Once ended with a capacity overflow.
    let often = mixed.replace("--epochs 1", "").replace("--unlabelled-rate 0.5", "--unlabelled-rate 1e12 --overwrite");
    let often = place.run(&often).failure();
    assert!(often.contains("--unlabelled-rate 1000000000000.0: ") && often.contains("more than 100 times"), "{often}");
    assert!(!place.path("alone").exists());

    let compared = place.json("compare recipe.toml --seeds 1");
    assert_eq!(compared["arms"][0]["steps"][0].as_u64(), Some(steps));
    let with_rate = place.read("recipe.toml").replace("epochs = 1", "epochs = 3\nunlabelled_rate = 0.5");
    place.write("recipe.toml", with_rate.replace("\"out\"", "\"rate\""));
    let compared = place.json("compare recipe.toml --seeds 1");
    assert_eq!(compared["arms"][0]["steps"][0].as_u64(), Some(3 * of_epoch));
    assert_eq!(compared["arms"][1]["steps"][0].as_u64(), Some(3 * of_epoch));
}

/// A text was once learned from twice where it stood in both files, and counted twice among the answers.
#[test]
fn a_text_in_two_sources_is_learned_from_once() {
    let place = Workplace::new();
    let all = rows(&place.read("train.tsv"));
    let (labelled, others) = all.split_at(200);
    let known: BTreeSet<_> = labelled.iter().map(|row| &row.0).collect();
    let texts: BTreeSet<&String> = others.iter().map(|row| &row.0).filter(|text| !known.contains(text)).collect();
    let texts: Vec<&str> = texts.into_iter().map(String::as_str).collect();
    let (of_all, of_first) = (&texts[..60], &texts[40..100]);
    place.write("labelled.tsv", tsv(labelled));
    place.write("all.txt", of_all.join("\n") + "\n");
    place.write("stage.txt", of_first.join("\n") + "\n");
    let stage = |name: &str| {
        format!(
            "[[stage]]\nname = \"{name}\"\nrows = \"unlabelled\"\nunlabelled = \"stage.txt\"\n[[stage.objective]]\n\
             term = \"soft_target\"\ntemperature = 2.0\nweight = 1.0\n"
        )
    };
    let recipe = "output = \"out\"\n[teacher]\nmodel = \"teacher\"\n[data]\ntrain = \"labelled.tsv\"\ntest = \"test.tsv\"\n\
                  unlabelled = \"all.txt\"\n[train]\nepochs = 1\nbatch_rows = 1\n";
    place.write("recipe.toml", [recipe, &stage("one"), &stage("two")].concat());
    let report = place.json("run recipe.toml");
    assert_eq!(report["cache"]["rows"].as_u64(), Some(200 + 100));
    for run in ["stages/one", "student"] {
        assert_eq!(
            place.read_json(&format!("out/{run}/distill.json"))["figures"]["steps"].as_u64(),
            Some(100),
            "{run}"
        );
    }
    // Of a stage whose rows do not suit it is told before the teacher answers.
    let inherited = "--set train.unlabelled_rate=0.5 --output none";
    let refused = place.run(&format!("run recipe.toml {inherited}")).failure();
    assert!(refused.contains("stage one") && refused.contains("`train.unlabelled_rate`"), "{refused}");
    assert!(!place.path("none").exists(), "{refused}");
}

#[test]
fn hidden_states_come_from_the_cache_where_it_has_them() {
    let place = Workplace::with_cache();
    let hidden = |output: &str, flags: &str| {
        place.json(&format!("cache --teacher teacher --data train.tsv --output {output} {flags}"));
    };
    hidden("all", "--hidden-states 0,2,4 --all-tokens");
    hidden("first", "--hidden-states 2");
    let train = |cache: &str, term: &str, output: &str| {
        let line = TRAIN.replace("--cache cache", &format!("--cache {cache}"));
        let ran = place.run(&format!("{line} --num-layers 2 --term {term} --output {output}"));
        ran.succeeded();
        ran.stderr.contains("hidden states are those of the cache")
    };
    for (name, cache) in
        [("hidden_mse", "all"), ("feature_map", "all"), ("hidden_cosine", "all"), ("pkd", "all"), ("pkd", "first")]
    {
        let [live, stored] = ["live", "stored"].map(|how| format!("{name}-{cache}-{how}"));
        assert!(!train("cache", &format!("{name},weight=1"), &live));
        assert!(train(cache, &format!("{name},weight=1"), &stored), "{name} with {cache}");
        let of = |run: &str| last_step(&place, run)[name].as_f64().expect("a number");
        // The cache has them in f16.
        let (live, stored) = (of(&live), of(&stored));
        assert!((live - stored).abs() < 2e-3 * live.abs(), "{name} with {cache}: {live} {stored}");
    }
    let record = place.read_json("pkd-first-stored/distill.json");
    assert_eq!(record["inputs"]["stored_hidden_states"], true);
    // Of a masked-language model too: its masks are the cache's.
    let masked = "--task masked-lm --data train.tsv --label-column label";
    place.json(&format!("finetune {masked} --model teacher --epochs 1 --output mlm"));
    place.json(&format!(
        "cache {masked} --teacher mlm --output words --top-k 8 --dtype f16 --seed 42 --hidden-states 2,4 --all-tokens"
    ));
    let of_masked = |flags: &str, output: &str| {
        let line = format!("train {masked} --teacher mlm --num-layers 2 --weight-soft 0 --weight-hard 1 --epochs 1");
        let ran = place.run(&format!("{line} --term hidden_mse,weight=1,layers=\"1:2,2:4\" {flags} --output {output}"));
        ran.succeeded();
        let loss = last_step(&place, output)["hidden_mse"].as_f64().expect("a number");
        (ran.stderr.contains("hidden states are those of the cache"), loss)
    };
    let (stored, live) = (of_masked("--cache words", "words-stored"), of_masked("--live", "words-live"));
    assert!(stored.0 && !live.0, "{stored:?} {live:?}");
    assert!((stored.1 - live.1).abs() < 2e-3 * live.1.abs(), "{stored:?} {live:?}");
    // Of first tokens alone nothing is known of the others, and of attention nothing.
    assert!(!train("first", "hidden_mse,weight=1,layers=\"1:2\"", "others"));
    assert!(!train("all", "attention_kl,weight=1", "attention"));
}
