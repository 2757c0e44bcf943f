//! A masked-language model is made from texts alone, and what it says of every token is captured.

use serde_json::{Value, json};

use crate::support::{CACHE, TRAIN, Workplace, rows};

/// Makes `mlm` of the fixture's teacher.
const FINETUNE: &str =
    "finetune --task masked-lm --model teacher --data texts.txt --epochs 4 --learning-rate 1e-2 --dropout 0";

/// Captures what `mlm` says.
const CAPTURE: &str = "cache --task masked-lm --teacher mlm --data texts.txt --top-k 8";

/// A workplace with the texts of the fixture's training rows.
fn with_texts() -> Workplace {
    let place = Workplace::new();
    let texts: String = rows(&place.read("train.tsv")).into_iter().map(|(text, _)| text + "\n").collect();
    place.write("texts.txt", texts);
    place
}

/// With the model as well.
fn with_model() -> Workplace {
    let place = with_texts();
    place.json(&format!("{FINETUNE} --output mlm"));
    place
}

fn event(line: &str) -> Value {
    serde_json::from_str(line).expect("JSON")
}

#[test]
fn texts_alone_make_a_masked_language_model() {
    let place = with_texts();
    // Each word has its place, but for a last one.
    let words = place.read("texts.txt");
    let mut words: Vec<&str> = words.split_whitespace().collect();
    words.sort_unstable();
    words.dedup();
    let line = |row: usize| [&words[..4 + row % 20], &words[row % words.len()..][..1]].concat().join(" ");
    place.write("texts.txt", (0..600).map(|row| line(row) + "\n").collect::<String>());
    let done = place.run(&format!("{FINETUNE} --output mlm --json"));
    done.succeeded();
    assert!(done.stderr.contains("a new masked-language-model head starts at random"), "{}", done.stderr);
    let report: Value = serde_json::from_str(&done.stdout).expect("JSON");
    let metrics = place.read("mlm/metrics.jsonl");
    let accuracies: Vec<f64> = metrics.lines().map(event).filter_map(|event| event["accuracy"].as_f64()).collect();
    assert_eq!(accuracies.len(), 4);
    assert_eq!(report["accuracy"].as_f64(), accuracies.iter().copied().reduce(f64::max), "{metrics}");
    // Measured: 0.82 to 0.93, of which the last words are missing. A guess would be right about one in ten.
    assert!(accuracies[3] > accuracies[0] && accuracies[3] > 0.85, "{metrics}");
    let config = place.read_json("mlm/config.json");
    assert_eq!(config["architectures"], json!(["BertForMaskedLM"]));
    let record = place.read_json("mlm/distill.json");
    assert_eq!(record["inputs"]["mask_probability"], 0.15);

    // It goes on where it is, keeping the head.
    let done = place.run(&format!("{FINETUNE} --output further").replace("--model teacher", "--model mlm"));
    done.succeeded();
    assert!(!done.stderr.contains("starts at random"), "{}", done.stderr);
}

#[test]
fn a_masked_language_model_is_the_same_after_a_stop_and_for_any_threads() {
    let place = with_texts();
    let line = FINETUNE.replace("--epochs 4", "--epochs 25");
    let begun = || std::fs::metadata(place.path("out/checkpoint.safetensors")).is_ok_and(|file| file.len() > 0);
    let done = place.start(&format!("{line} --output out --threads 1")).until(begun).signal("INT");
    assert_eq!(done.code, Some(130), "{}", done.stderr);
    place.json(&format!("{line} --output out --resume --threads 2"));
    place.json(&format!("{line} --output undisturbed --threads 3"));
    assert!(place.files("out") == place.files("undisturbed"));
}

#[test]
fn every_token_is_captured_with_its_largest_logits() {
    let place = with_model();
    let estimate = place.json(&format!("{CAPTURE} --probe-seconds 0.01").replacen("cache ", "cache estimate ", 1));
    let report = place.json(&format!("{CAPTURE} --output cache"));
    assert_eq!((&report["rows"], &report["forwarded"]), (&json!(600), &json!(600)));
    let (expected, bytes) = (estimate["bytes"].as_f64().expect("bytes"), report["bytes"].as_f64().expect("bytes"));
    assert!((bytes / expected - 1.0).abs() < 0.05, "{bytes} of {expected}");
    let inspected = place.json("cache inspect cache --data texts.txt");
    assert_eq!(inspected["outputs"], estimate["tokens"]);
    assert_eq!(inspected["data"]["cached"], 600);
    let print = &inspected["fingerprint"];
    let vocabulary = place.read_json("mlm/config.json")["vocab_size"].clone();
    assert_eq!((&print["task"], &print["captured"]["width"]), (&json!("masked_lm"), &vocabulary));
    assert_eq!(print["preprocessing"], json!({"masked": {"probability": 0.15, "seed": 42}}));
    // 8 logits and indices in two bytes each and three tails a token; measured: 45 and 58 bytes with the index.
    assert_eq!(print["captured"]["logits"]["dtype"], "f16");
    // The more is stored, the less is lost, at each temperature.
    place.json(&format!("{CAPTURE} --output wider").replace("--top-k 8", "--top-k 32"));
    let wider = place.json("cache inspect wider");
    for at in 0..3 {
        let lost = |report: &Value| report["recorded_error"]["divergences"][at]["sum"].as_f64().expect("a sum");
        assert!(0.0 < lost(&wider) && lost(&wider) < 0.8 * lost(&inspected), "{inspected} {wider}");
    }

    // Later rows alone are run, a stop costs no row, and gc keeps what the data masks to.
    let again = place.json(&format!("{CAPTURE} --output cache"));
    assert_eq!((&again["forwarded"], &again["skipped"]), (&json!(0), &json!(600)));
    place.json("cache gc cache --data texts.txt");
    assert_eq!(place.json("cache inspect cache")["content"], inspected["content"]);
    place.json("cache export cache --output cache.parquet");
    place.json("cache verify cache");
}

#[test]
fn a_capture_of_every_token_is_the_same_for_any_threads_and_after_a_kill() {
    let place = with_model();
    let texts = place.read("texts.txt");
    place.write("texts.txt", (0..10).map(|round| texts.replace('\n', &format!(" {round}\n"))).collect::<String>());
    let line = format!("{CAPTURE} --batch-tokens 32");
    place.json(&format!("{line} --output undisturbed --threads 1"));
    let begun = || place.path("cache/shard-00000.safetensors").exists();
    let done = place.start(&format!("{line} --output cache --threads 1")).until(begun).signal("KILL");
    assert_eq!(done.code, None);
    place.json(&format!("{line} --output cache --threads 3"));
    let content = |folder: &str| place.json(&format!("cache inspect {folder}"))["content"].clone();
    assert_eq!(content("cache"), content("undisturbed"));
}

#[test]
fn the_two_kinds_of_teacher_are_told_apart() {
    let place = with_model();
    place.refuses(
        &format!("{CAPTURE} --output cache").replace("--teacher mlm", "--teacher teacher"),
        &["teacher: no tensor `cls.predictions.transform.dense.weight`", "finetune --task masked-lm --model teacher"],
    );
    assert!(!place.path("cache").exists());
    place.json(&format!("{CAPTURE} --output words"));
    place.json(CACHE);
    place.refuses(&format!("{TRAIN} --output student").replace("--cache cache", "--cache words"), &["words", "its "]);
    place.refuses(
        &format!("{CAPTURE} --seed 7 --output words"),
        &["its preprocessing is `masked with probability 0.15 and seed 42`", "seed 7"],
    );
    place.refuses("finetune --model teacher --data texts.txt --output out", &["no row has a label", "masked-lm"]);
}

#[test]
fn a_mobilebert_is_made_and_captured_as_a_masked_language_model() {
    let place = with_texts();
    place.json(CACHE);
    let sizes = "--num-layers 1 --hidden-size 128 --bottleneck-size 16 --num-heads 2 --intermediate-size 20 --stacks 2";
    place.json(&format!("{TRAIN} --model-type mobilebert --layers random {sizes} --output thin"));
    place.json(&format!("{FINETUNE} --output mlm").replace("--model teacher", "--model thin"));
    let config = place.read_json("mlm/config.json");
    assert_eq!(config["architectures"], json!(["MobileBertForMaskedLM"]));
    let report = place.json(&format!("{CAPTURE} --output answers"));
    assert!(report["rows"].as_u64().expect("a count") > 100, "{report}");
    place.json("cache verify answers");
}

/// Trains a student of `mlm` with it beside, in DistilBERT's way.
const DISTIL: &str = "train --task masked-lm --live --teacher mlm --data texts.txt --temperature 2 --weight-soft 5 \
                      --weight-hard 2 --term hidden_cosine,weight=1 --epochs 4";

/// Where it starts from, and how fast it goes on.
const FROM_TEACHER: &str = "--layers 0,2 --head teacher --learning-rate 3e-3";

#[test]
fn a_masked_language_model_teaches_one() {
    let place = with_model();
    let report = place.json(&format!("{DISTIL} {FROM_TEACHER} --output student"));
    let config = place.read_json("student/config.json");
    assert_eq!((&config["architectures"], &config["n_layers"]), (&json!(["DistilBertForMaskedLM"]), &json!(2)));
    let shares = report["gradient_shares"].as_array().expect("three terms").len();
    assert_eq!(shares, 3, "{report}");
    // The head is the teacher's to begin with.
    place.json(&format!("{DISTIL} --layers 0,2 --head teacher --max-steps 1 --learning-rate 1e-12 --output start"));
    let tensor = |run: &str, name: &str| place.tensor(&format!("{run}/model.safetensors"), name);
    let near = |a: Vec<f32>, b: Vec<f32>| a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6);
    for (ours, theirs) in [
        ("vocab_transform.weight", "cls.predictions.transform.dense.weight"),
        ("vocab_layer_norm.bias", "cls.predictions.transform.LayerNorm.bias"),
        ("vocab_projector.bias", "cls.predictions.bias"),
    ] {
        assert!(near(tensor("start", ours), tensor("mlm", theirs)), "{ours}");
    }
    place.json(&format!("{DISTIL} --layers random --num-layers 2 --learning-rate 3e-3 --output random"));
    let accuracy = |run: &str| {
        place.read_json(&format!("{run}/distill.json"))["figures"]["validation"]["accuracy"].as_f64().expect("a score")
    };
    assert!(accuracy("student") > accuracy("random"), "{} {}", accuracy("student"), accuracy("random"));
    // A task begins where it ends.
    place.json("finetune --model student --data train.tsv --epochs 1 --output fine");
    place.json(CACHE);
    place.json("train --teacher teacher --cache cache --data train.tsv --student student --epochs 1 --output answers");
}

#[test]
fn stored_answers_teach_as_the_teacher_beside_the_student_does() {
    let place = with_model();
    // All logits of each token but one, to masks of a seed of their own.
    place.json(&format!("{CAPTURE} --top-k 346 --dtype f32 --seed 7 --output all").replace("--top-k 8 ", ""));
    let stored = DISTIL.replace("--live", "--cache all --seed 7");
    let one = "--layers 0,2 --head teacher --max-steps 12 --epochs 1 --learning-rate 1e-3";
    let run = |line: &str, output: &str| {
        place.json(&format!("{} {one} --output {output}", line.replace(" --epochs 4", "")));
        place.tensor(&format!("{output}/model.safetensors"), "vocab_transform.weight")
    };
    // Live, the first epoch has the same masks.
    let (of_cache, live) = (run(&stored, "stored"), run(&format!("{DISTIL} --seed 7"), "live"));
    let largest = of_cache.iter().zip(&live).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest < 1e-6, "{largest}");
    // Whatever the training's own seed, masks are the cache's, and the same ones in each epoch.
    run(&stored.replace("--seed 7", "--seed 3"), "other");
    assert_eq!(place.read_json("other/distill.json")["inputs"]["mask_seed"], 7);

    // The largest alone, as one would store them; without the teacher's pass.
    place.json(&format!("{CAPTURE} --output cache"));
    let largest = DISTIL.replace("--live", "--cache cache").replace("--term hidden_cosine,weight=1 ", "");
    let report = place.json(&format!("{largest} {FROM_TEACHER} --output student"));
    assert_eq!(report["gradient_shares"].as_array().map(Vec::len), Some(2), "{report}");
    let accuracy = |run: &str| {
        place.read_json(&format!("{run}/distill.json"))["figures"]["validation"]["accuracy"].as_f64().expect("a score")
    };
    place.json(&format!("{largest} {FROM_TEACHER} --output labels").replace("--weight-soft 5", "--weight-soft 0"));
    // Measured: 0.094 and 0.047.
    assert!(accuracy("student") > accuracy("labels"), "{} {}", accuracy("student"), accuracy("labels"));
}

#[test]
fn texts_are_packed_into_rows_of_one_length() {
    let place = with_model();
    let steps = |line: &str, output: &str| {
        place.json(&format!("{line} --epochs 1 --output {output}"));
        place.read_json(&format!("{output}/distill.json"))["figures"]["steps"].as_u64().expect("a number")
    };
    let finetune = "finetune --task masked-lm --model mlm --data texts.txt --max-length 32";
    let (plain, packed) = (steps(finetune, "plain"), steps(&format!("{finetune} --pack"), "packed"));
    // Texts of 11 tokens in the mean, so that a third as many rows hold them; nine tenths are trained on.
    assert!((2 * packed..4 * packed).contains(&plain), "{plain} steps, {packed} packed");
    let live = DISTIL.replace(" --epochs 4", " --max-length 32 --pack");
    assert_eq!(steps(&live, "taught"), packed);
    place.json(&format!("{CAPTURE} --output cache"));
    let cached = live.replace("--live", "--cache cache");
    place.refuses(&format!("{cached} --output none"), &["--pack contradicts --cache", "--live"]);
    // Pairs are cut one text behind the other, like single ones, and a run that was stopped goes on with the same rows.
    let pairs: String = place.read("texts.txt").lines().map(|text| format!("{text}\t{text}\n")).collect();
    place.write("pairs.tsv", format!("text\ttext_b\n{pairs}"));
    let of_pairs = steps(&format!("{finetune} --pack").replace("texts.txt", "pairs.tsv"), "pairs");
    assert!((2 * packed - 2..=2 * packed + 2).contains(&of_pairs), "{of_pairs} steps, {packed} of single texts");
    let long = format!("{live} --epochs 4 --checkpoint-every 3");
    place.json(&format!("{long} --output whole"));
    let checkpoint = place.path("parts/checkpoint.safetensors");
    let killed = place.start(&format!("{long} --output parts")).until(|| checkpoint.exists()).signal("KILL");
    assert_eq!(killed.code, None);
    place.json(&format!("{long} --output parts --resume"));
    assert!(place.read_bytes("whole/model.safetensors") == place.read_bytes("parts/model.safetensors"));
    let of_labels = "finetune --model teacher --data train.tsv --pack --output none";
    place.refuses(of_labels, &["--pack goes with --task masked-lm"]);
}

#[test]
fn a_student_that_is_its_teacher_has_nothing_to_learn_from_it() {
    let place = with_model();
    let same = "--model-type bert --layers 0,1,2,3 --head teacher --dropout 0 --max-steps 2 --learning-rate 1e-12";
    place.json(&format!("{DISTIL} {same} --output same").replace("--weight-hard 2", "--weight-hard 0"));
    let metrics = place.read("same/metrics.jsonl");
    let losses: Vec<f64> = metrics.lines().map(event).filter_map(|event| event["loss"].as_f64()).collect();
    // Other masks, or answers at other positions, would be a loss of 1 and more. Measured: 1e-9.
    assert!(!losses.is_empty() && losses.iter().all(|loss| *loss < 1e-6), "{metrics}");
}

#[test]
fn a_student_of_masked_tokens_goes_on_with_the_same_bits() {
    let place = with_model();
    let line = format!("{DISTIL} {FROM_TEACHER} --checkpoint-every 3");
    place.json(&format!("{line} --output whole"));
    let checkpoint = place.path("parts/checkpoint.safetensors");
    let killed = place.start(&format!("{line} --output parts")).until(|| checkpoint.exists()).signal("KILL");
    assert_eq!(killed.code, None);
    place.json(&format!("{line} --output parts --resume --threads 1"));
    assert!(place.read_bytes("whole/model.safetensors") == place.read_bytes("parts/model.safetensors"));
}

#[test]
fn what_a_student_of_masked_tokens_cannot_have_is_refused() {
    let place = with_model();
    place.json(&format!("{CAPTURE} --output cache"));
    let train = "train --task masked-lm --teacher mlm --data texts.txt --output student";
    place.refuses(&format!("{train} --live --unlabelled texts.txt"), &["--unlabelled goes with --task single-label"]);
    place.refuses(train, &["no --cache is given", "--live runs"]);
    let alone = train.replace("--teacher mlm ", "");
    place.refuses(&format!("{alone} --cache cache --layers random"), &["--task masked-lm needs its --teacher"]);
    place.refuses(
        &format!("{alone} --cache cache --layers random").replace("--task masked-lm ", ""),
        &["cache: holds the answers of a masked-language model", "--task masked-lm and --teacher"],
    );
    place.refuses(
        &format!("{train} --cache cache --mask-probability 0.3"),
        &["--mask-probability 0.3", "masks of 0.15 of the tokens", "capture anew"],
    );
    place.refuses(&format!("{train} --cache cache --temperature 3"), &["temperature 3", "1, 2, 4 alone"]);
    place.json(&CACHE.replace("--output cache", "--output classes"));
    place.refuses(&format!("{train} --cache classes"), &["classes: holds the answers of a classifier"]);
    place.refuses(&format!("{train} --live --prune-vocabulary"), &["contradicts --prune-vocabulary"]);
    place.refuses(&format!("{train} --live --student mlm"), &["contradicts --student"]);
    place.refuses(
        &format!("{train} --live --layers random --head teacher --hidden-size 16 --num-heads 2"),
        &["the teacher's head has width 32", "--head teacher"],
    );
    place.refuses(
        &format!("{train} --live --layers random --head teacher"),
        &["--head teacher contradicts --layers random"],
    );
    for (flags, flag) in [
        ("--class-weights balanced", "--class-weights"),
        ("--weight-hard 0 --term hard_label,weight=1,focal_gamma=2", "--focal-gamma"),
        ("--focal-gamma 2", "--focal-gamma"),
        ("--r-drop 1", "--r-drop"),
        ("--label-names a,b", "--label-names"),
    ] {
        place.refuses(&format!("{train} --live {flags}"), &[flag, "goes with --task single-label"]);
    }
    assert!(!place.path("student").exists());
    let classifier = format!("{train} --live").replace("--teacher mlm", "--teacher teacher");
    place.refuses(&classifier, &["has no masked-language-model head"]);
}
