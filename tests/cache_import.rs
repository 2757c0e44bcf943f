//! Caches of answers that something else computed, and the mean of several teachers.

use serde_json::{Value, json};

use crate::support::{CLASSES, Workplace, keys, rows};

/// Imports `answers.jsonl`; to be followed by `--output`.
const IMPORT: &str = "cache import --data answers.jsonl --probabilities answers";

/// Probabilities of each class for a row with this label: the label's own is largest, and no two rows are alike.
fn probabilities(label: &str, row: usize) -> [f64; 4] {
    let low = 0.01 + 0.1 * row as f64 / 1000.0;
    CLASSES.map(|class| if class == label { 1.0 - 3.0 * low } else { low })
}

/// A row of a fixture with what something else made of it.
struct Answered {
    text: String,
    label: String,
    answer: [f64; 4],
}

/// The training rows, each text once, with answers.
fn answered(place: &Workplace) -> Vec<Answered> {
    let mut seen = std::collections::HashSet::new();
    let rows = rows(&place.read("train.tsv")).into_iter().filter(|(text, _)| seen.insert(text.clone()));
    let answered = rows.enumerate().map(|(row, (text, label))| {
        let answer = probabilities(&label, row);
        Answered { text, label, answer }
    });
    answered.collect()
}

/// Writes lines of JSON.
fn write_lines(place: &Workplace, file: &str, lines: impl Iterator<Item = Value>) {
    place.write(file, lines.map(|line| format!("{line}\n")).collect::<String>());
}

/// Answers by class, the last class first.
fn by_class(answer: &[f64; 4]) -> Value {
    CLASSES.iter().zip(answer).rev().map(|(class, number)| ((*class).to_owned(), json!(number))).collect()
}

fn with_answers() -> Workplace {
    let place = Workplace::new();
    let answered = answered(&place);
    write_lines(
        &place,
        "answers.jsonl",
        answered.iter().map(|row| json!({"text": row.text, "answers": by_class(&row.answer)})),
    );
    place
}

#[test]
fn every_format_and_layout_gives_the_same_cache() {
    let place = with_answers();
    let answered = answered(&place);
    let names = CLASSES.join(",");
    place.json(&format!("{IMPORT} --label-names {names} --output objects"));

    write_lines(&place, "lists.jsonl", answered.iter().rev().map(|row| json!({"text": row.text, "p": row.answer})));
    place.json(&format!("cache import --data lists.jsonl --probabilities p --label-names {names} --output lists"));

    let cells = |row: &Answered| row.answer.map(|number| number.to_string());
    let csv = |row: &Answered| format!("\"{}\",{}\n", row.text.replace('"', "\"\""), cells(row).join(","));
    let header = CLASSES.map(|class| format!("p_{class}")).join(",");
    place.write("columns.csv", format!("text,{header}\n{}", answered.iter().map(csv).collect::<String>()));
    place.json("cache import --data columns.csv --probabilities p_* --output stars");
    let header = CLASSES.join("\t");
    let tsv = |row: &Answered| format!("{}\t{}\n", row.text, cells(row).join("\t"));
    place.write("columns.tsv", format!("text\t{header}\n{}", answered.iter().map(tsv).collect::<String>()));
    place.json(&format!("cache import --data columns.tsv --probabilities {names} --output listed"));
    place.json("cache import --data columns.tsv --probabilities * --output all");
    let one = |row: &Answered| format!("{}\t{}\n", row.text, by_class(&row.answer));
    place.write("cells.tsv", format!("text\tp\n{}", answered.iter().map(one).collect::<String>()));
    place.json(&format!("cache import --data cells.tsv --probabilities p --label-names {names} --output cells"));
    let logs = |row: &Answered| json!({"text": row.text, "z": row.answer.map(f64::ln)});
    write_lines(&place, "logits.jsonl", answered.iter().map(logs));
    place.json(&format!("cache import --data logits.jsonl --logits z --label-names {names} --output logits"));

    let expected = place.inspect("objects");
    assert_eq!(expected["rows"], answered.len());
    assert_eq!(expected["fingerprint"]["labels"], json!(CLASSES));
    assert_eq!(expected["fingerprint"]["preprocessing"], json!({"imported": "probabilities"}));
    for cache in ["lists", "stars", "listed", "all", "cells"] {
        let found = place.inspect(cache);
        assert_eq!(found["fingerprint"], expected["fingerprint"], "{cache}");
        assert_eq!(found["content"], expected["content"], "{cache}");
        place.assert_sound(cache);
    }
    let logits = place.inspect("logits");
    assert_eq!(logits["content"], expected["content"]);
    assert_eq!(logits["fingerprint"]["preprocessing"], json!({"imported": "logits"}));
}

#[test]
fn an_imported_cache_is_looked_after_as_any_other() {
    let place = with_answers();
    let answered = answered(&place);
    let report = place.json(&format!("{IMPORT} --output cache"));
    assert_eq!((&report["unique"], &report["new"]), (&json!(answered.len()), &json!(answered.len())));
    // In the order of their names, where nobody gave another.
    let mut names = CLASSES;
    names.sort_unstable();
    assert_eq!(report["labels"], json!(names));
    // The logarithms of what was given.
    let exported = place.exported("cache");
    assert_eq!(exported.labels, json!(names));
    let mut found: Vec<f32> = exported.rows.iter().flat_map(|row| row.logits.clone()).collect();
    let mut given: Vec<f32> = answered.iter().flat_map(|row| row.answer.map(|p| p.ln() as f32)).collect();
    found.sort_unstable_by(f32::total_cmp);
    given.sort_unstable_by(f32::total_cmp);
    assert_eq!(found, given);
    // Rows are found by their texts, in any file.
    let inspected = place.json("cache inspect cache --data train.tsv");
    assert_eq!(inspected["data"]["cached"], inspected["data"]["rows"]);
    assert_eq!(inspected["data"]["accuracy"], 1.0);
    place
        .refuses("cache inspect cache --data train.tsv --max-length 64", &["cache: holds whole texts", "--max-length"]);
    let text = place.run("cache inspect cache");
    assert!(text.stdout.contains("imported as") && text.stdout.contains("of the texts themselves"), "{}", text.stdout);
    let few: String = answered.iter().take(20).map(|row| format!("{}\t{}\n", row.text, row.label)).collect();
    place.write("few.tsv", format!("text\tlabel\n{few}"));
    assert_eq!(place.json("cache gc cache --data few.tsv")["rows"], 20);
    assert_eq!(place.inspect("cache")["rows"], 20);
}

#[test]
fn importing_again_adds_what_is_missing_and_other_answers_go_elsewhere() {
    let place = with_answers();
    place.json(&format!("{IMPORT} --output cache"));
    let content = place.content("cache");
    let again = place.json(&format!("{IMPORT} --output cache"));
    assert_eq!(again["new"], 0);
    let text = place.read("answers.jsonl");
    place.write("fewer.jsonl", text.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>());
    let fewer = "cache import --data fewer.jsonl --probabilities answers --output cache";
    place.refuses(fewer, &["cache: a cache of other answers is there", "--overwrite"]);
    assert_eq!(place.content("cache"), content);
    place.json(&format!("{fewer} --overwrite"));
    assert_ne!(place.content("cache"), content);
    // Two files are one import.
    let (first, rest) = text.split_at(text.find('\n').expect("lines") + 1);
    place.write("one.jsonl", first);
    place.write("rest.jsonl", rest);
    place.json("cache import --data one.jsonl --data rest.jsonl --probabilities answers --output both");
    assert_eq!(place.content("both"), content);
}

#[test]
fn a_teacher_s_capture_leaves_imported_answers_alone() {
    let place = with_answers();
    place.json(&format!("{IMPORT} --output cache"));
    let content = place.content("cache");
    let capture = "cache --teacher teacher --data train.tsv --output cache";
    place.refuses(capture, &["cache: this cache was made otherwise"]);
    let refused = place.run(&format!("{capture} --refresh")).failure();
    assert!(refused.contains("cache: its answers were imported; --refresh would replace them"), "{refused}");
    assert_eq!(place.content("cache"), content);
}

#[test]
fn what_is_wrong_with_an_import_is_named_with_its_line() {
    let place = Workplace::new();
    let refuses = |lines: &[&str], flags: &str, expected: &[&str]| {
        place.write("wrong.jsonl", lines.iter().map(|line| format!("{line}\n")).collect::<String>());
        place.refuses(&format!("cache import --data wrong.jsonl {flags} --output cache"), expected);
        assert!(!place.path("cache/manifest.json").exists(), "{flags}");
    };
    let good = r#"{"text": "one", "p": {"a": 0.25, "b": 0.75}}"#;
    let by_name = "--probabilities p";
    refuses(&[good, r#"{"text": "two", "p": null}"#], by_name, &["wrong.jsonl, line 2", "nothing in column `p`"]);
    refuses(&[good, r#"{"text": "two"}"#], by_name, &["wrong.jsonl, line 2", "nothing in column `p`"]);
    refuses(&[good, r#"{"text": "two", "p": {"a": NaN, "b": 1}}"#], by_name, &["line 2", "NaN at column"]);
    refuses(&[good, r#"{"text": "two", "p": {"a": -0.5, "b": 1.5}}"#], by_name, &["line 2", "class `a` is -0.5"]);
    refuses(&[good, r#"{"text": "two", "p": {"a": 0.5, "b": 0.4}}"#], by_name, &["line 2", "sum to 0.900000"]);
    refuses(&[good, r#"{"text": "two", "p": {"a": 0.5, "c": 0.5}}"#], by_name, &["line 2", "class `c`", "a, b"]);
    refuses(&[good, r#"{"text": "two", "p": {"a": 1}}"#], by_name, &["line 2", "no answer for the class `b`"]);
    refuses(&[good, r#"{"text": "one", "p": {"a": 0.5, "b": 0.5}}"#], by_name, &["line 2", "wrong.jsonl, line 1"]);
    refuses(&[good, r#"{"text": " ", "p": {"a": 0.5, "b": 0.5}}"#], by_name, &["line 2", "nothing in column `text`"]);
    refuses(&[r#"{"text": "one", "p": {"a": 1}}"#], by_name, &["line 1", "at least two"]);
    refuses(&[r#"{"text": "one", "p": [0.5, 0.5]}"#], by_name, &["line 1", "--label-names"]);
    refuses(
        &[r#"{"text": "one", "p": [0.5, 0.25, 0.25]}"#],
        &format!("{by_name} --label-names a,b"),
        &["3 numbers for the 2 classes a, b"],
    );
    refuses(&[good], "--probabilities q", &["line 1: no column `q`; there are `p`"]);
    refuses(&[good], "--logits p", &["sum to 1", "--probabilities"]);
    refuses(&[good], &format!("{by_name} --max-length 64"), &["--max-length"]);
    // The same text with the same answer is no contradiction.
    place.write("twice.jsonl", format!("{good}\n{good}\n"));
    let twice = place.json("cache import --data twice.jsonl --probabilities p --output twice");
    assert_eq!((&twice["rows"], &twice["unique"]), (&json!(2), &json!(1)));
    let neither = place.run("cache import --data twice.jsonl --output none");
    assert_eq!(neither.code, Some(2));
    assert!(neither.stderr.contains("--probabilities") && neither.stderr.contains("--logits"), "{}", neither.stderr);
}

#[test]
fn answers_that_the_labels_show_to_be_chance_are_refused() {
    let place = Workplace::new();
    // The answers of the classes, one further than they should be.
    let shifted = |row: &Answered| {
        let mut answer = row.answer;
        answer.rotate_right(1);
        json!({"text": row.text, "label": row.label, "p": answer})
    };
    write_lines(&place, "shifted.jsonl", answered(&place).iter().map(shifted));
    let import = format!("cache import --data shifted.jsonl --probabilities p --label-names {}", CLASSES.join(","));
    place.refuses(&format!("{import} --output cache"), &["accuracy on", "is 0.000", "no better than chance"]);
    let report = place.json(&format!("{import} --output cache --force"));
    assert_eq!(report["accuracy"], 0.0);
}

#[test]
fn an_average_is_of_probabilities_or_of_logits_with_classes_by_name() {
    let place = with_answers();
    let names = CLASSES.join(",");
    place.json(&format!("{IMPORT} --label-names {names} --output one"));
    // Another teacher, whose classes stand the other way round.
    let reversed: Vec<&str> = CLASSES.into_iter().rev().collect();
    let other = |row: &Answered| json!({"text": row.text, "p": [0.1, 0.2, 0.3, 0.4]});
    write_lines(&place, "other.jsonl", answered(&place).iter().map(other));
    place.json(&format!(
        "cache import --data other.jsonl --probabilities p --label-names {} --output other",
        reversed.join(",")
    ));
    let (one, arithmetic) = (place.exported("one"), "cache merge one other --average --weights 3,1");
    let report = place.json(&format!("{arithmetic} --output mean"));
    assert_eq!((&report["of"], &report["weights"]), (&json!("probabilities"), &json!([0.75, 0.25])));
    let mean = place.exported("mean");
    assert_eq!(mean.labels, json!(CLASSES));
    assert_eq!(mean.keys(), one.keys());
    let given = [0.4, 0.3, 0.2, 0.1];
    for (mean, one) in mean.rows.iter().zip(&one.rows) {
        for (class, given) in given.iter().enumerate() {
            let (found, one) = (f64::from(mean.logits[class]).exp(), f64::from(one.logits[class]).exp());
            // Logits in f32, measured 1e-7.
            assert!((found - (0.75 * one + 0.25 * given)).abs() < 1e-6, "{found} of {one}");
        }
    }
    let average = &mean.fingerprint["average"];
    assert_eq!(average["of"], "probabilities");
    assert_eq!(average["members"][0]["teacher"], one.fingerprint["teacher"]);
    assert_eq!(average["members"][1]["weight"], 0.25);
    place.assert_sound("mean");
    assert_eq!(place.json("cache inspect mean --data train.tsv")["data"]["accuracy"], 1.0);
    assert!(place.run("cache inspect mean").stdout.contains("mean of the probabilities of 2 teachers"));

    place.json("cache merge one other --average=logits --output logits");
    let logits = place.exported("logits");
    for (mean, one) in logits.rows.iter().zip(&one.rows) {
        for (class, given) in given.iter().enumerate() {
            let expected = 0.5 * one.logits[class] + 0.5 * (*given as f32).ln();
            assert!((mean.logits[class] - expected).abs() < 1e-6, "{} {expected}", mean.logits[class]);
        }
    }
    assert_ne!(logits.fingerprint["teacher"], mean.fingerprint["teacher"]);
    place.refuses(
        "cache merge one other ./one --average --output twice",
        &["--average: the cache ./one is given twice", "--weights"],
    );
    // A mean is one teacher's answers: another one does not go on in its folder.
    place.refuses("cache merge one other --average --output mean", &["mean: another cache is there"]);
}

#[test]
fn an_average_follows_the_teacher_that_is_sure_or_right() {
    let place = with_answers();
    let label_of = |row: &Answered| CLASSES.iter().position(|class| *class == row.label).expect("a class");
    // Each knows half of the rows and is wrong, and less sure, in the others.
    let answer = |row: &Answered, knows: bool| {
        let (top, at) = if knows { (0.85, label_of(row)) } else { (0.4, (label_of(row) + 1) % 4) };
        let mut answer = [(1.0 - top) / 3.0; 4];
        answer[at] = top;
        answer
    };
    let rows = answered(&place);
    for (name, known) in [("even", 0), ("odd", 1)] {
        let lines =
            rows.iter().enumerate().map(|(at, row)| json!({"text": row.text, "p": answer(row, at % 2 == known)}));
        write_lines(&place, &format!("{name}.jsonl"), lines);
        let names = CLASSES.join(",");
        place
            .json(&format!("cache import --data {name}.jsonl --probabilities p --label-names {names} --output {name}"));
    }
    let merge = "cache merge even odd --average";
    let accuracy =
        |cache: &str| place.json(&format!("cache inspect {cache} --data train.tsv"))["data"]["accuracy"].clone();
    let sure = place.json(&format!("{merge} --by-confidence --output sure"));
    assert_eq!((&sure["by"], &sure["labelled"]), (&json!("confidence"), &json!(null)));
    let right = place.json(&format!("{merge} --by-labels train.tsv --output right"));
    assert_eq!(right["labelled"], right["rows"]);
    assert_eq!([accuracy("even"), accuracy("odd")].map(|one| one.as_f64() < Some(0.6)), [true, true]);
    assert_eq!([accuracy("sure"), accuracy("right")], [json!(1.0), json!(1.0)]);
    let entropy = |p: [f64; 4]| -p.iter().map(|p| p * p.ln()).sum::<f64>();
    let (known, not) = (answer(&rows[0], true), answer(&rows[0], false));
    let label = label_of(&rows[0]);
    let weight = |cache: &str| {
        let exported = place.exported(cache);
        let tops: Vec<f64> =
            exported.rows.iter().map(|row| row.logits.iter().fold(f32::MIN, |a, b| a.max(*b)).exp().into()).collect();
        // The same in every row, but for rounding.
        assert!(tops.iter().all(|top| (top - tops[0]).abs() < 1e-6), "{cache}");
        (tops[0] - not[label]) / (known[label] - not[label])
    };
    let expected = entropy(not) / (entropy(not) + entropy(known));
    assert!((weight("sure") - expected).abs() < 1e-5, "{} {expected}", weight("sure"));
    let expected = 1.0 - (1.0 / known[label]) / (1.0 / known[label] + 1.0 / not[label]);
    assert!((weight("right") - expected).abs() < 1e-5, "{} {expected}", weight("right"));

    // A text with two labels counts as without one, and is told; the weights of others still follow theirs.
    let text = &rows[0].text;
    place.write(
        "two.tsv",
        format!("text\tlabel\n{text}\tbakery\n{text}\tlibrary\n{}\t{}\n", rows[1].text, rows[1].label),
    );
    let done = place.run(&format!("{merge} --by-labels two.tsv --output two"));
    done.succeeded();
    assert!(done.stderr.contains("two.tsv: 1 texts have several labels"), "{}", done.stderr);
    assert!(done.stdout.contains("of 1 rows, by their label"), "{}", done.stdout);
    // Classes are matched by name, where a cache has them in another order as well.
    let reversed: Vec<&str> = CLASSES.into_iter().rev().collect();
    let lines = rows.iter().enumerate().map(|(at, row)| {
        let mut answer = answer(row, at % 2 == 1);
        answer.reverse();
        json!({"text": row.text, "p": answer})
    });
    write_lines(&place, "turned.jsonl", lines);
    let names = reversed.join(",");
    place.json(&format!("cache import --data turned.jsonl --probabilities p --label-names {names} --output turned"));
    place.json("cache merge even turned --average --by-labels train.tsv --output matched");
    assert!((weight("matched") - expected).abs() < 1e-5, "{} {expected}", weight("matched"));

    let by = |cache: &str| place.inspect(cache)["fingerprint"]["average"]["by"].clone();
    assert_eq!(by("sure"), "confidence");
    assert!(by("right")["labels"]["rows"].is_string());
    place.refuses(&format!("{merge} --output sure"), &["sure: another cache is there"]);
    place
        .refuses(&format!("{merge} --by-labels test.tsv --output none"), &["test.tsv: no row with a label is in even"]);
    place
        .refuses(&format!("{merge} --label-column l --output none"), &["how --by-labels is read, and it is not given"]);
    let both = place.run(&format!("{merge} --by-labels train.tsv --by-confidence --output none"));
    assert_eq!(both.code, Some(2));
}

#[test]
fn an_average_of_captures_keeps_the_keys_of_their_tokenizer() {
    let place = Workplace::with_cache();
    place.copy("cache", "copy");
    place.json("cache merge cache copy --average=logits --output mean");
    assert_eq!(place.content("mean"), place.content("cache"));
    let inspected = place.json("cache inspect mean --data train.tsv");
    assert_eq!(inspected["data"]["cached"], inspected["data"]["rows"]);
    assert_eq!(keys(&inspected["fingerprint"]).last(), Some(&"average"));
    let refused = place.run("cache --teacher teacher --data train.tsv --output mean --refresh").failure();
    assert!(refused.contains("mean: its answers are the mean of several teachers'"), "{refused}");
}

#[test]
fn imports_of_several_files_are_made_in_one_go() {
    let place = with_answers();
    place.write("more.jsonl", place.read("answers.jsonl").lines().take(5).collect::<Vec<_>>().join("\n"));
    place.json(&format!("{IMPORT} --output one"));
    place.json("cache import --data more.jsonl --probabilities answers --output other");
    place.refuses(
        "cache merge one other --output both",
        &["other: imported answers are merged where all of them were imported alike", "each given with --data"],
    );
    place.json("cache import --data answers.jsonl --data more.jsonl --probabilities answers --output both");
}

#[test]
fn what_cannot_be_averaged_is_named() {
    let place = with_answers();
    place.json(&format!("{IMPORT} --output imported"));
    place.json("cache --teacher teacher --data train.tsv --output cache");
    place.json("cache --teacher teacher --data train.tsv --max-length 8 --output short");
    place.json("cache --teacher teacher --data train.tsv --top-k 2 --output top");
    place.json("cache --teacher teacher --data test.tsv --output test");
    let refuses = |line: &str, expected: &[&str]| {
        place.refuses(&format!("cache merge {line} --output mean"), expected);
        assert!(!place.path("mean/manifest.json").exists(), "{line}");
    };
    refuses("cache imported --average", &["imported: its rows have other keys than those of cache"]);
    refuses("cache short --average", &["short: its rows have other keys", "max_length"]);
    refuses("cache top --average", &["top: holds the 2 largest logits alone"]);
    refuses("cache --average", &["give two or more"]);
    refuses("cache cache --average --weights 1,2,3", &["3 of them for 2 caches"]);
    refuses("cache test --average", &["rows of the other caches are not in it", "--intersection"]);
    refuses("cache test --average --intersection", &["no row in common"]);
    let lines = place.read("train.tsv");
    let mixed = format!("{lines}{}", place.read("test.tsv").split_once('\n').expect("rows").1);
    place.write("mixed.tsv", mixed);
    place.json("cache --teacher teacher --data mixed.tsv --output mixed");
    let report = place.json("cache merge mixed cache --average --intersection --output shared");
    assert_eq!(report["rows"], place.inspect("cache")["rows"]);
    assert_eq!(report["left_out"], place.inspect("test")["rows"]);
}

#[test]
fn a_student_learns_from_answers_that_were_imported() {
    let place = with_answers();
    place.json(&format!("{IMPORT} --output answers"));
    place.json("cache --teacher teacher --data train.tsv --output cache");
    place.json("train --teacher teacher --cache cache --data train.tsv --epochs 1 --layers 1 --output first");
    let train = "train --cache answers --data train.tsv --output";
    // The student's own tokenizer reads the rows, and its head gets the answers' classes.
    place.json(&format!("{train} student --student first --epochs 12 --learning-rate 3e-3 --weight-hard 0"));
    let scores = place.json("evaluate --model student --data test.tsv");
    // Measured: 0.99; one class of four is a quarter of the rows.
    assert!(scores["accuracy"].as_f64().expect("a number") > 0.9, "{scores}");
    // Nothing of a teacher is there to start from, and no tokenizer.
    place.refuses(&format!("{train} other --layers random --shape tiny"), &["no tokenizer", "--student"]);
    place.refuses(
        &format!("{train} other --teacher teacher --student first"),
        &["its teacher is", "leave --teacher out, and give a --student"],
    );
    assert!(!place.path("other").exists());
    // A row without an answer.
    place.write("more.tsv", place.read("train.tsv") + "a text that nobody has answered\tgarden\n");
    place.refuses(
        &format!("{train} other --student first").replace("train.tsv", "more.tsv"),
        &["training rows are not"],
    );
}

#[test]
fn a_student_learns_from_the_mean_of_teachers() {
    let place = Workplace::with_cache();
    place.json(
        "train --teacher teacher --cache cache --data train.tsv --epochs 1 --layers 1,2 --model-type bert --output b",
    );
    place.json("cache --teacher b --data train.tsv --output other --force");
    place.json("cache merge --average cache other --output mean");
    place.json("train --cache mean --data train.tsv --epochs 1 --student b --output student --force");
    place.refuses(
        "train --teacher teacher --cache mean --data train.tsv --output none",
        &["leave --teacher out, and give a --student"],
    );
}

#[test]
fn columns_that_are_listed_stand_for_the_classes_in_their_order() {
    let place = Workplace::new();
    place.write("a.csv", "text,p1,p2,p2b\nbread,0.25,0.75,0\ntrain,0.5,0.5,0\n");
    let import = "cache import --data a.csv --probabilities";
    let report = place.json(&format!("{import} p2,p1 --label-names yes,no --output ordered"));
    assert_eq!(report["labels"], json!(["yes", "no"]));
    let named = place.json(&format!("{import} p2,p1 --output named"));
    assert_eq!(named["labels"], json!(["p2", "p1"]));
    place.write("b.csv", "text,p_a,p_b,p_b\nbread,0.25,0.75,0\n");
    let twice = "cache import --data b.csv --probabilities p_* --output twice";
    place.refuses(twice, &["two columns are called `p_b`"]);
}

#[test]
fn classes_of_objects_are_in_the_order_of_new_tasks() {
    let place = Workplace::new();
    for (keys, expected) in [(["10", "9", "2"], ["2", "9", "10"]), (["2", "10", "1a"], ["10", "1a", "2"])] {
        let answer: Value =
            keys.iter().zip([0.5, 0.25, 0.25]).map(|(key, part)| (key.to_string(), json!(part))).collect();
        write_lines(&place, "a.jsonl", [json!({"text": "bread", "p": answer})].into_iter());
        let report = place.json("cache import --data a.jsonl --probabilities p --output out --overwrite");
        assert_eq!(report["labels"], json!(expected));
    }
}

#[test]
fn a_guessed_label_column_is_told_and_columns_of_one_name_are_refused() {
    let place = Workplace::new();
    place.write("a.csv", "text,labels,p_a,p_b\nbread,a,0.75,0.25\ntrain,b,0.5,0.5\n");
    let done = place.run("cache import --data a.csv --probabilities p_* --output out --force");
    done.succeeded();
    assert!(done.stderr.contains("labels are taken from column `labels`"), "{}", done.stderr);
    place.write("b.csv", "text,p_a,p_b,p_b\nbread,0.25,0.75,0\n");
    for (asked, expected) in [
        ("p_*", "two columns are called `p_b`"),
        ("p_a,p_b", "two columns are called `p_b`"),
        ("p_a,p_a", "column `p_a` is listed twice"),
    ] {
        place.refuses(&format!("cache import --data b.csv --probabilities {asked} --output twice"), &[expected]);
    }
}

/// The way out for teachers that read with other tokenizers: their answers, by text.
#[test]
fn what_predict_prints_is_imported() {
    let place = Workplace::with_cache();
    let printed = place.run("predict --model teacher --json --text-column text train.tsv");
    printed.succeeded();
    place.write("answers.jsonl", &printed.stdout);
    for output in ["one", "two"] {
        place.json(&format!("cache import --data answers.jsonl --probabilities probabilities --output {output}"));
    }
    let report = place.json("cache merge one two --average --output mean");
    assert_eq!(report["caches"], 2);
    place.refuses(
        "cache merge cache one --average --output none",
        &["other keys", "distill predict --json", "cache import --probabilities probabilities"],
    );
}

#[test]
fn objects_of_an_array_were_called_lines() {
    let place = Workplace::new();
    place.write(
        "rows.json",
        "[\n\n{\"text\": \"one\", \"p\": {\"a\": 0.25, \"b\": 0.75}},\n{\"text\": \"two\", \"p\": 1}]",
    );
    place.refuses("cache import --data rows.json --probabilities p --output cache", &["rows.json, row 2"]);
    place.write("labels.json", "[\n\n{\"text\": \"one\", \"label\": \"butcher\"}]");
    place.refuses(
        "evaluate --model teacher --data labels.json",
        &["where line 1 is the first row", "line 1: the model"],
    );
}
