//! The forms in which a teacher's answers are stored: what is read back, what is lost, and that students learn from each.

use serde_json::{Value, json};

use crate::support::{CACHE, TRAIN, Workplace};

/// A student of the fixture, trained on a cache in this form.
fn trains(form: &str, flags: &str) -> Workplace {
    let place = Workplace::new();
    place.json(&format!("{CACHE} {form}"));
    place.json(&format!("{TRAIN} --output student {flags}"));
    place
}

/// As [`trains`], long enough to learn the task from the teacher alone.
fn learns(form: &str) {
    let flags = "--learning-rate 2e-3 --epochs 4 --weight-hard 0";
    let place = Workplace::new();
    place.json(&format!("{CACHE} {form}"));
    place.json(&format!("{TRAIN} --output student {flags}").replace("--epochs 1", ""));
    let report = place.json("evaluate --model student --teacher teacher --data test.tsv");
    assert!(report["accuracy"].as_f64() > Some(0.85), "{form}: {report}");
}

#[test]
fn a_student_learns_from_f16() {
    learns("--dtype f16");
}

#[test]
fn a_student_learns_from_bf16() {
    learns("--dtype bf16");
}

#[test]
fn a_student_learns_from_the_largest_logits() {
    learns("--top-k 2 --dtype f16");
}

#[test]
fn a_student_learns_from_a_sample() {
    learns("--sample 16 --sample-temperature 4");
}

#[test]
fn hidden_states_beside_the_logits_change_nothing() {
    let plain = trains("", "");
    for form in ["--hidden-states 4", "--hidden-states 0,2 --all-tokens"] {
        assert!(trains(form, "").files("student") == plain.files("student"), "{form}");
    }
}

#[test]
fn where_rows_stand_changes_nothing() {
    let place = trains("", "");
    place.json(&format!("{CACHE} --overwrite"));
    place.json(&CACHE.replace("train.tsv", "test.tsv"));
    place.json("cache gc cache");
    place.json(&format!("{TRAIN} --output other"));
    assert!(place.files("other") == place.files("student"));
}

#[test]
fn a_temperature_that_is_not_stored_is_refused() {
    for (form, asked, list) in [
        ("--top-k 2", "3", "1, 2, 4"),
        ("--top-k 2 --temperatures 1,8", "2", "1, 8"),
        ("--sample 4", "2", "1"),
        ("--sample 4 --sample-temperature 2.5", "2", "2.5"),
    ] {
        let place = Workplace::new();
        place.json(&format!("{CACHE} {form}"));
        let expected = [format!("temperature {asked}: the cache"), format!("for {list} alone"), "hint: ".to_owned()];
        let expected = expected.each_ref().map(String::as_str);
        place.refuses(&format!("{TRAIN} --output student --temperature {asked}"), &expected);
        assert!(!place.path("student").exists());
        let stored = list.rsplit(", ").next().expect("one");
        place.json(&format!("{TRAIN} --output student --temperature {stored}"));
        // The labels alone ask the teacher nothing.
        place.json(&format!("{TRAIN} --output labels --temperature {asked} --weight-soft 0"));
    }
}

#[test]
fn forms_that_cannot_be_are_refused() {
    let place = Workplace::new();
    for (form, expected) in [
        ("--top-k 4", "the 4 largest of 4 logits: give a number from 1 to 3"),
        ("--hidden-states 5", "--hidden-states 5: the teacher has 4 layers"),
        ("--temperatures 2", "--temperatures goes with --top-k"),
    ] {
        place.refuses(&format!("{CACHE} {form}"), &[expected]);
    }
    for flags in [
        "--top-k 2 --sample 3",
        "--top-k 2 --temperatures 0",
        "--all-tokens",
        "--sample 0",
        "--dtype int8",
        "--refresh --overwrite",
    ] {
        let done = place.run(&format!("{CACHE} {flags}"));
        assert_eq!(done.code, Some(2), "{flags}: {}", done.stderr);
    }
    assert!(!place.path("cache").exists());
}

/// `KL(softmax(logits / T) || softmax(stored / T))`
fn divergence(logits: &[f32], stored: &[f32], temperature: f64) -> f64 {
    let log_softmax = |logits: &[f32]| {
        let scaled = logits.iter().map(|&z| f64::from(z) / temperature).collect::<Vec<_>>();
        let mass = scaled.iter().map(|z| z.exp()).sum::<f64>().ln();
        scaled.into_iter().map(|z| z - mass).collect::<Vec<_>>()
    };
    let (ours, theirs) = (log_softmax(logits), log_softmax(stored));
    ours.iter().zip(&theirs).map(|(a, b)| a.exp() * (a - b)).sum()
}

#[test]
fn the_recorded_error_is_the_difference_to_f32() {
    let place = Workplace::with_cache();
    let exact = place.exported("cache");
    for (dtype, limit) in [("f16", 4e-3), ("bf16", 3.2e-2)] {
        place.json(&format!("{CACHE} --dtype {dtype} --overwrite"));
        let stored = place.exported("cache");
        let error = place.inspect("cache")["recorded_error"].clone();
        let largest = stored.largest_difference(&exact);
        assert!(largest > 0.0 && largest < limit, "{dtype}: {largest}");
        assert_eq!(error["largest_logit_error"], json!(largest));
        assert_eq!(error["outputs"], 600);
        for recorded in error["divergences"].as_array().expect("a list") {
            let at = recorded["temperature"].as_f64().expect("a number");
            let pairs = exact.rows.iter().zip(&stored.rows);
            let sum: f64 = pairs.map(|(exact, stored)| divergence(&exact.logits, &stored.logits, at)).sum();
            let said = recorded["sum"].as_f64().expect("a number");
            assert!((said - sum).abs() < 1e-3 * sum, "{dtype} at {at}: {said}, computed {sum}");
        }
    }
}

#[test]
fn nothing_is_lost_in_f32() {
    let place = Workplace::with_cache();
    let error = place.inspect("cache")["recorded_error"].clone();
    assert_eq!((&error["largest_logit_error"], &error["divergences"]), (&json!(0.0), &json!([])));
}

#[test]
fn the_largest_logits_come_with_the_sum_of_the_rest() {
    let place = Workplace::with_cache();
    let exact = place.exported("cache");
    place.json(&format!("{CACHE} --top-k 2 --temperatures 1,3 --overwrite"));
    let stored = place.exported("cache");
    assert_eq!(stored.keys(), exact.keys());
    for (stored, exact) in stored.rows.iter().zip(&exact.rows) {
        let mut order: Vec<usize> = (0..4).collect();
        order.sort_by(|&a, &b| exact.logits[b].total_cmp(&exact.logits[a]));
        assert_eq!(stored.indices, order[..2]);
        assert_eq!(stored.logits, [exact.logits[order[0]], exact.logits[order[1]]]);
        for (tail, temperature) in stored.tails.iter().zip([1.0, 3.0]) {
            let rest =
                order[2..].iter().map(|&class| (f64::from(exact.logits[class]) / temperature).exp()).sum::<f64>();
            assert!((f64::from(*tail) - rest.ln()).abs() < 1e-5, "{tail} is not {}", rest.ln());
        }
    }
}

#[test]
fn a_sample_is_drawn_by_its_seed() {
    let place = Workplace::with_cache();
    let exact = place.exported("cache");
    let draw = |flags: &str| {
        place.json(&format!("{CACHE} --sample 64 {flags} --overwrite"));
        place.exported("cache")
    };
    let (one, again, other) = (draw(""), draw(""), draw("--seed 7"));
    assert!(one == again && one.rows != other.rows);
    assert!(one.rows.iter().all(|row| row.indices.len() == 64 && row.indices.is_sorted() && row.logits.is_empty()));
    // Over 600 rows of 64 draws the share of a class is its mean probability, to within a few standard errors of 0.0026.
    for class in 0..4 {
        let drawn = one.rows.iter().flat_map(|row| &row.indices).filter(|&&index| index == class).count();
        let probability = |logits: &[f32]| {
            let mass: f64 = logits.iter().map(|&z| f64::from(z).exp()).sum();
            f64::from(logits[class]).exp() / mass
        };
        let mean = exact.rows.iter().map(|row| probability(&row.logits)).sum::<f64>() / 600.0;
        let share = drawn as f64 / (600.0 * 64.0);
        assert!((share - mean).abs() < 0.01, "class {class}: {share} of the draws, {mean} of the probability");
    }
}

#[test]
fn a_sample_says_nothing_of_the_teacher_s_first_choice() {
    let place = Workplace::new();
    place.json(&format!("{CACHE} --sample 4 --sample-temperature 4"));
    let report = place.json(&format!("{TRAIN} --output student"));
    assert_eq!(report["agreement"], Value::Null);
    let data = place.json("cache inspect cache --data train.tsv")["data"].clone();
    assert_eq!((&data["cached"], &data["accuracy"]), (&json!(600), &Value::Null));
}
