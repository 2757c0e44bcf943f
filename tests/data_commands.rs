//! `distill data`: what a data file holds.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::Workplace;

const TRAIN: &str = "{\"id\":1,\"text\":\"when does the library open\",\"label\":\"library\"}\n\
                     {\"id\":2,\"text\":\"a loaf of bread please\",\"label\":\"bakery\"}\n\
                     {\"id\":3,\"text\":\"when does the library open\",\"label\":\"garden\"}\n\
                     {\"id\":4,\"text\":\"when does the train to the city leave\",\"label\":null}\n";

#[test]
fn inspect_counts_labels_lengths_repeats_and_shared_rows() {
    let place = Workplace::new();
    place.write("train.jsonl", TRAIN);
    place.write("dev.tsv", "text\tlabel\na loaf of bread please\tbakery\nnew\tbakery\n");
    let report = place.json("data inspect train.jsonl --validation dev.tsv --model teacher --max-length 8");
    assert_eq!((&report["rows"], &report["unlabelled"]), (&json!(4), &json!(1)));
    assert_eq!(report["labels"][0], json!({"name": "bakery", "rows": 1}));
    assert_eq!(report["lengths"]["unit"], "tokens");
    assert_eq!(report["lengths"]["cut"]["max_length"], 8);
    let (longest, cut) = (report["lengths"]["longest"].as_u64(), report["lengths"]["cut"]["rows"].as_u64());
    assert!(longest > Some(8) && cut > Some(0), "{report}");
    assert_eq!((&report["duplicates"]["rows"], &report["duplicates"]["with_another_label"]), (&json!(1), &json!(1)));
    assert_eq!(report["duplicates"]["examples"][0]["labels"], json!(["library", "garden"]));
    let shared = &report["shared"][0];
    assert_eq!(
        (&shared["split"], &shared["rows"], &shared["split_rows"]),
        (&json!("validation"), &json!(1), &json!(2))
    );
    assert_eq!(report["scripts"], json!([{"name": "Latin", "rows": 4}]));
    // The same whatever the number of threads.
    let one = place.json("data inspect train.jsonl --validation dev.tsv --model teacher --max-length 8 --threads 1");
    assert_eq!(one, report);
}

#[test]
fn inspect_prints_bars_and_examples() {
    let place = Workplace::new();
    place.write("train.jsonl", TRAIN);
    let finished = place.run("data inspect train.jsonl");
    finished.succeeded();
    let text = finished.stdout.clone();
    for expected in [
        "4 rows in train.jsonl",
        "no label      1  25.0 %  ████████████████████████",
        "repeated: 1 (25.0 %) rows have a text that an earlier row has (1 texts), 1 of them with another label",
        "  line 3: when does the library open  (library first, then garden)",
        "half of the rows have at most 26 characters",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
}

#[test]
fn inspect_takes_the_label_lists_of_several_files() {
    let place = Workplace::new();
    place.write("a.jsonl", "{\"text\":\"a\",\"labels\":[\"joy\",\"fear\"]}\n");
    place.write("b.jsonl", "{\"text\":\"b\",\"labels\":[\"joy\"]}\n");
    let report = place.json("data inspect a.jsonl b.jsonl");
    assert_eq!(report["labels"], json!([{"name": "joy", "rows": 2}, {"name": "fear", "rows": 1}]));
}

#[test]
fn a_limit_in_tokens_needs_a_model() {
    let place = Workplace::new();
    place.refuses(
        "data inspect train.tsv --max-length 8",
        &["--max-length counts tokens, and those are a model's; give it with --model"],
    );
}

const DIRTY: &str = "{\"id\":1,\"text\":\"<b>When</b> does the  libraryâ€™s door open?\",\"label\":\"library\"}\n\
                     {\"id\":2,\"text\":\"a loaf of bread, please\",\"label\":\"bakery\",\"note\":[1,2]}\n\
                     {\"id\":3,\"text\":\"When does the library’s door open?\",\"label\":\"library\"}\n\
                     {\"id\":4,\"text\":\"&nbsp;\",\"label\":\"station\"}\n\
                     {\"id\":5,\"text\":\"write to a@b.org or see https://b.org/x\",\"label\":null}\n\
                     {\"id\":6,\"text\":\"wehre is the gardn? plaese\",\"label\":\"garden\"}\n";

#[test]
fn clean_repairs_texts_drops_repeats_and_keeps_the_other_columns() {
    let place = Workplace::new();
    place.write("dirty.jsonl", DIRTY);
    place.write("dev.tsv", "text\tlabel\na loaf of  bread, please\tbakery\n");
    place.write("words.txt", "where 100\nplease 80\ngarden 70\nwrite 9\n");
    let line =
        "data clean dirty.jsonl --usual --urls --emails=MAIL --spelling words.txt --validation dev.tsv --model teacher";
    let report = place.json(&format!("{line} --output clean.jsonl"));
    assert_eq!((&report["rows"], &report["kept"], &report["changed"]), (&json!(6), &json!(3), &json!(4)));
    assert_eq!(
        place.read("clean.jsonl"),
        "{\"id\":1,\"text\":\"When does the library’s door open?\",\"label\":\"library\"}\n\
         {\"id\":5,\"text\":\"write to MAIL or see [URL]\",\"label\":null}\n\
         {\"id\":6,\"text\":\"where is the garden? please\",\"label\":\"garden\"}\n"
    );
    let dropped: Vec<_> =
        report["drops"].as_array().expect("a list").iter().map(|step| (&step["step"], &step["rows"])).collect();
    let one = &json!(1);
    assert_eq!(dropped, [(&json!("empty"), one), (&json!("shared"), one), (&json!("duplicates"), one)]);
    assert_eq!(report["drops"][2]["examples"][0]["why"], "as line 1");
    // The same bytes whatever the number of threads, and nothing to do the second time.
    place.json(&format!("{line} --output one.jsonl --threads 1"));
    assert_eq!(place.read("one.jsonl"), place.read("clean.jsonl"));
    let again = place.json(&format!("{} --output again.jsonl", line.replace("dirty.jsonl", "clean.jsonl")));
    assert_eq!((&again["changed"], &again["kept"]), (&json!(0), &json!(3)));
}

#[test]
fn clean_says_what_it_has_done_on_stderr() {
    let place = Workplace::new();
    place.write("dirty.jsonl", DIRTY);
    let finished = place.run("data clean dirty.jsonl --usual --output clean.jsonl");
    finished.succeeded();
    assert_eq!(finished.stdout, "");
    for expected in [
        "6 rows: 2 (33.3 %) changed, 4 (66.7 %) kept",
        "html                changed     2  33.3 %",
        "  line 1: <b>When</b> does the  libraryâ€™s door open?\n     now: When does the  libraryâ€™s door open?",
        "  line 3 (as line 1): When does the library’s door open?",
        "warning: no row of `station` is left, of 1",
        "written: clean.jsonl",
    ] {
        assert!(finished.stderr.contains(expected), "{expected} in {}", finished.stderr);
    }
}

#[test]
fn clean_writes_parquet_that_is_read_again() {
    let place = Workplace::new();
    place.write("dirty.jsonl", DIRTY);
    place.json("data clean dirty.jsonl --usual --near-duplicates --output clean.parquet");
    let report = place.json("data clean clean.parquet --usual --output again.jsonl");
    assert_eq!((&report["rows"], &report["changed"]), (&json!(4), &json!(0)));
    assert!(place.read("again.jsonl").starts_with("{\"id\":1,\"text\":\"When does"), "{}", place.read("again.jsonl"));
}

#[test]
fn clean_refuses_what_it_cannot_do() {
    let place = Workplace::new();
    place.write("dirty.jsonl", DIRTY);
    place.refuses("data clean dirty.jsonl --output clean.jsonl", &["no step of cleaning is asked for; --usual"]);
    place.refuses("data clean dirty.jsonl --usual --output clean.csv", &["written as .jsonl or .parquet"]);
    place.refuses(
        "data clean dirty.jsonl --usual --output dirty.jsonl",
        &["dirty.jsonl is there already", "--overwrite"],
    );
    place.refuses(
        "data clean dirty.jsonl --usual --output dirty.jsonl --overwrite",
        &["would replace what it is made of"],
    );
    place.refuses(
        "data clean dirty.jsonl --min-characters 500 --output clean.jsonl",
        &["no row is left, and nothing is written", "`length` has dropped 6 of 6 rows"],
    );
    place.refuses("data clean dirty.jsonl --languages klingon --output clean.jsonl", &["`klingon` cannot be told"]);
    place.write("words.txt", "where often\n");
    place.refuses(
        "data clean dirty.jsonl --spelling words.txt --output clean.jsonl",
        &["words.txt, line 1: expected a word, a blank or a tab, and how often it occurs"],
    );
    assert!(!place.path("clean.jsonl").exists());
}

#[test]
fn a_recipe_cleans_before_anything_else_and_once() {
    let place = Workplace::new();
    let rows = crate::support::rows(&place.read("train.tsv"));
    // Each row once more, with its spaces doubled; and one that only white space tells apart from a test row.
    let doubled =
        |(text, label): &(String, String)| format!("{text}\t{label}\n {}\t{label}\n", text.replace(' ', "  "));
    let test = crate::support::rows(&place.read("test.tsv"));
    let leaked = format!("{} \t{}\n", test[0].0, test[0].1);
    place.write("twice.tsv", format!("text\tlabel\n{}{leaked}", rows.iter().map(doubled).collect::<String>()));
    place.write(
        "recipe.toml",
        "output = \"run\"\n[teacher]\nmodel = \"teacher\"\n[data]\ntrain = \"twice.tsv\"\ntest = \"test.tsv\"\n\
         [data.clean]\nusual = true\n[train]\nepochs = 1\n",
    );
    let finished = place.run("run recipe.toml");
    finished.succeeded();
    assert!(finished.stderr.contains("cleaned twice.tsv\n1,201 rows: "), "{}", finished.stderr);
    assert_eq!(place.read("run/clean/train.jsonl").lines().count(), 600);
    let record = place.read_json("run/clean/clean.json");
    assert_eq!(record["inputs"]["steps"], json!({"usual": true}));
    let report = &record["files"][0]["report"];
    assert_eq!((&report["rows"], &report["kept"]), (&json!(1201), &json!(600)));
    assert_eq!(place.read_json("run/student/distill.json")["inputs"]["clean"], json!({"usual": true}));
    // Skipped while its inputs are the same, and repeated if somebody has changed its output.
    let again = place.run("run recipe.toml");
    again.succeeded();
    assert!(!again.stderr.contains("cleaned"), "{}", again.stderr);
    place.write("run/clean/train.jsonl", "{\"text\":\"x\",\"label\":\"bakery\"}\n");
    let repaired = place.run("run recipe.toml");
    repaired.succeeded();
    assert_eq!(place.read("run/clean/train.jsonl").lines().count(), 600);
    place.refuses("run recipe.toml --set data.clean.usual=false", &["no step of cleaning is asked for"]);
    place.refuses("run recipe.toml --set data.clean.mojibak=true", &["unknown field `mojibak`", "did you mean"]);
}

#[test]
fn augment_writes_new_texts_with_what_they_were_made_of() {
    let place = Workplace::new();
    let line =
        "data augment train.tsv --test test.tsv --method recombine,copies=2 --method delete,rate=0.2 --method mask";
    let report = place.json(&format!("{line} --output new.jsonl"));
    let rows = place.read("train.tsv").lines().count() as u64 - 1;
    assert_eq!(report["rows"], rows);
    let held_out = report["held_out"].as_u64().expect("a count");
    assert!((rows / 20..rows / 5).contains(&held_out), "{report}");
    let lines: Vec<serde_json::Value> =
        place.read("new.jsonl").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(report["texts"], lines.len());
    let train: Vec<(String, String)> = crate::support::rows(&place.read("train.tsv"));
    let known: BTreeSet<String> =
        train.iter().chain(&crate::support::rows(&place.read("test.tsv"))).map(|row| row.0.clone()).collect();
    for line in &lines {
        let (text, origin) =
            (line["text"].as_str().expect("a text"), line["origin"].as_u64().expect("a line") as usize);
        assert!(!known.contains(text), "{line}");
        assert_eq!(crate::support::keys(line), ["text", "method", "origin"]);
        let of = &train[origin - 2].0;
        match line["method"].as_str() {
            Some("delete") => assert!(text.len() < of.len(), "{line}: {of}"),
            Some("mask") => assert!(text.contains("[MASK]"), "{line}: {of}"),
            _ => assert!(of.split(' ').next() == text.split(' ').next(), "{line}: {of}"),
        }
    }
    // The same for a seed, whatever the number of threads, and other texts for another.
    place.json(&format!("{line} --output again.jsonl --threads 1"));
    assert!(place.read("again.jsonl") == place.read("new.jsonl"));
    place.json(&format!("{line} --output other.jsonl --seed 7"));
    assert!(place.read("other.jsonl") != place.read("new.jsonl"));

    // With labels, of all rows, and as what a training reads.
    let copied = place.json("data augment train.tsv --method swap --all-rows --copy-labels --output copied.parquet");
    assert_eq!(copied["held_out"], 0);
    place.json("cache --teacher teacher --data new.jsonl --output cache");
    place.json("finetune --model teacher --data copied.parquet --epochs 1 --output tuned");
    let told = place.run("data augment train.tsv --method swap --output told.jsonl");
    told.succeeded();
    assert!(told.stdout.is_empty() && told.stderr.contains("new texts of"), "{} {}", told.stdout, told.stderr);
    for expected in ["without the ", "\n  swap: ", "\n    of: ", "written: told.jsonl"] {
        assert!(told.stderr.contains(expected), "{expected}: {}", told.stderr);
    }

    // Of several files it is told which.
    place.write_texts(20);
    place.json("data augment texts.tsv train.tsv --method swap --all-rows --output several.jsonl");
    let several = place.read("several.jsonl");
    let first: serde_json::Value = serde_json::from_str(several.lines().next().expect("a line")).expect("JSON");
    let last: serde_json::Value = serde_json::from_str(several.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&first["origin_file"], &first["origin"]), (&json!("texts.tsv"), &json!(2)));
    assert_eq!(last["origin_file"], "train.tsv");

    place.write("short.txt", "yes\n");
    let short = place.run("data augment short.txt --method swap --output none.jsonl").failure();
    assert!(short.contains("no new text could be made of 1 rows"), "{short}");
    // Once the file that was to be replaced was gone then.
    let before = place.read("new.jsonl");
    place.run("data augment short.txt --method swap --output new.jsonl --overwrite").failure();
    assert!(place.read("new.jsonl") == before);
    place.refuses("data augment train.tsv --method swap --output new.jsonl", &["new.jsonl is there already"]);
    assert!(!place.path("none.jsonl").exists());
    for (method, expected) in [
        ("swop", "unknown variant `swop`"),
        ("swap,rate=2", "data.augment.rate is 2"),
        ("synonyms", "missing field `file`"),
        ("templates,file=none.toml", "none.toml"),
    ] {
        let refused = place.run(&format!("data augment train.tsv --method {method} --output none.jsonl"));
        assert!(refused.code != Some(0) && refused.stderr.contains(expected), "{method}: {}", refused.stderr);
    }
}

#[test]
fn select_chooses_rows_by_class_by_text_or_by_the_teacher() {
    let place = Workplace::with_cache();
    let read = |file: &str| -> Vec<serde_json::Value> {
        place.read(file).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let rows = place.read("train.tsv").lines().count() - 1;
    let select = |flags: &str| {
        let report = place.json(&format!("data select train.tsv {flags} --output chosen.jsonl --overwrite"));
        let chosen = read("chosen.jsonl");
        assert_eq!((&report["selected"], &report["rows"]), (&json!(chosen.len()), &json!(rows)), "{flags}");
        assert!(chosen.iter().all(|row| row["reason"].is_string() && row["label"].is_string()), "{flags}");
        chosen
    };
    for by in ["random", "stratified", "balanced", "representative", "diverse"] {
        assert_eq!(select(&format!("--by {by} --count 40")).len(), 40, "{by}");
        assert_eq!(
            select(&format!("--by {by} --part 0.5 --seed 3 --threads 1")).len(),
            (rows as f64 / 2.0).round() as usize
        );
    }
    // What is easy for the teacher is at the other end of what is hard for it.
    for by in ["margin", "entropy", "loss"] {
        let texts = |flags: &str| -> BTreeSet<String> {
            let chosen = select(&format!("--by {by} --cache cache --count 40 {flags}"));
            chosen.iter().map(|row| row["text"].as_str().expect("a text").to_owned()).collect()
        };
        let (hard, easy) = (texts(""), texts("--reverse"));
        assert!(hard.is_disjoint(&easy), "{by}");
        assert!(texts("--per-class") != hard, "{by}");
    }
    let first = &select("--by margin --cache cache --count 40")[0]["reason"];
    assert!(first.as_str().is_some_and(|reason| reason.starts_with("margin 0.0")), "{first}");

    // Of labels that are exchanged most are found, and with --rest they are gone.
    let all = crate::support::rows(&place.read("train.tsv"));
    let other = |label: &str| all.iter().map(|row| row.1.clone()).find(|name| name != label).expect("several classes");
    let wrong: BTreeSet<String> = all.iter().step_by(20).map(|row| row.0.clone()).collect();
    let noisy: Vec<(String, String)> = all
        .iter()
        .map(|(text, label)| (text.clone(), if wrong.contains(text) { other(label) } else { label.clone() }))
        .collect();
    place.write("noisy.tsv", crate::support::tsv(&noisy));
    let report =
        place.json("data select noisy.tsv --by label-noise --cache cache --output doubtful.jsonl --rest kept.parquet");
    let found = read("doubtful.jsonl");
    let right = found.iter().filter(|row| wrong.contains(row["text"].as_str().expect("a text"))).count();
    assert!(right * 10 >= wrong.len() * 8 && right * 10 >= found.len() * 6, "{right} of {}, {report}", wrong.len());
    assert!(found[0]["reason"].as_str().is_some_and(|reason| reason.contains("says the teacher")), "{}", found[0]);
    assert_eq!(place.json("data inspect kept.parquet")["rows"], json!(rows - found.len()));

    let refused = |flags: &str, expected: &[&str]| {
        let message = place.run(&format!("data select train.tsv {flags} --output none.jsonl")).failure();
        assert!(expected.iter().all(|words| message.contains(words)), "{flags}: {message}");
        assert!(!place.path("none.jsonl").exists());
    };
    refused("--by margin --count 3", &["--by margin asks a teacher", "--cache"]);
    refused("--by random", &["--count or --part"]);
    refused("--by random --count 3 --reverse", &["--reverse goes with what a teacher says"]);
    refused("--by balanced --count 3 --per-class", &["leave --per-class out"]);
    refused("--by label-noise --cache cache --reverse", &["leave --reverse out"]);
    refused("--by random --part 0.0001", &["no row is chosen", "--count says how many"]);
    refused("--by random --count 3 --rest nowhere/x.jsonl", &["the folder nowhere is not there"]);
    // By another name it was once written over.
    refused("--by random --count 3 --rest ./none.jsonl", &["--rest and --output are the same file"]);
    let report =
        place.json(&format!("data select train.tsv --by random --count {rows} --output all.jsonl --rest rest.parquet"));
    assert!(report["rest"].is_null() && !place.path("rest.parquet").exists(), "{report}");
    // Rows without a label are no class, and take no share of those that a score needs a label for.
    let half: Vec<(String, String)> = all
        .iter()
        .enumerate()
        .map(|(row, (text, label))| (text.clone(), if row % 2 == 0 { label.clone() } else { String::new() }))
        .collect();
    place.write("half.tsv", crate::support::tsv(&half));
    for by in ["--by balanced", "--by loss --per-class --cache cache", "--by loss --cache cache"] {
        let report = place.json(&format!("data select half.tsv {by} --count 100 --output half.jsonl --overwrite"));
        assert_eq!(report["selected"], 100, "{by}");
        assert!(read("half.jsonl").iter().all(|row| row["label"] != "" && !row["label"].is_null()), "{by}");
    }
    place.write("other.tsv", "text\tlabel\nsomething new\tgarden\n");
    let missing = place.run("data select other.tsv --by margin --count 1 --cache cache --output none.jsonl").failure();
    assert!(missing.contains("1 of 1 rows are not in cache"), "{missing}");
}

#[test]
fn rows_that_cannot_be_read_are_skipped_on_request_and_shown() {
    let place = Workplace::new();
    place.write(
        "broken.jsonl",
        "{\"text\":\"one\",\"label\":\"a\"}\nno JSON\n{\"text\":7}\n{\"label\":\"b\"}\n{\"text\":\" \"}\n{\"text\":\"two\",\"label\":\"a\"}\n",
    );
    place.refuses("data inspect broken.jsonl", &["broken.jsonl, line 2: not one JSON object"]);
    let report = place.json("data inspect broken.jsonl --skip-bad-rows");
    assert_eq!((&report["rows"], &report["skipped"]["rows"]), (&json!(2), &json!(4)));
    assert!(
        report["skipped"]["first"][0].as_str().is_some_and(|first| first.contains("line 2: not one JSON")),
        "{report}"
    );
    let cleaned = place.json("data clean broken.jsonl --skip-bad-rows --whitespace --output clean.jsonl");
    assert_eq!((&cleaned["kept"], &cleaned["skipped"]["rows"]), (&json!(2), &json!(4)));
    // Tables, with and without quotes, and bytes that are no UTF-8.
    place.write("broken.tsv", b"text\tlabel\none\ta\ntoo\tmany\tcells\nt\xffo\ta\n\tb\ntwo\ta\n");
    place.write("broken.csv", b"text,label\none,a\n\"too\",many,cells\nt\xffo,a\n,b\ntwo,a\n");
    place.write("broken.json", "[{\"text\":\"one\"},{\"text\":1},{\"x\":2},{\"text\":null},{\"text\":\"two\"}]");
    for file in ["broken.tsv", "broken.csv", "broken.json"] {
        let report = place.json(&format!("data inspect {file} --skip-bad-rows"));
        assert_eq!((&report["rows"], &report["skipped"]["rows"]), (&json!(2), &json!(3)), "{file}");
    }
    place.write("none.jsonl", "{\"txt\":\"a\"}\n{\"txt\":\"b\"}\n");
    place.refuses(
        "data inspect none.jsonl --skip-bad-rows",
        &[
            "no row can be read; of 2 that were skipped the first says: none.jsonl, line 1: no column `text`",
            "did you mean `txt`?",
        ],
    );
}

#[test]
fn several_files_patterns_and_stdin_are_read() {
    let place = Workplace::new();
    place.write("part-1.jsonl", "{\"text\":\"one\"}\n");
    place.write("part-2.jsonl", "{\"text\":\"two\"}\n{\"text\":\"one\"}\n");
    let report = place.json("data clean part-*.jsonl --duplicates --output clean.jsonl");
    assert_eq!(report["files"], json!(["part-1.jsonl", "part-2.jsonl"]));
    assert_eq!(report["drops"][0]["examples"][0]["why"], "as file 1, line 1");
    assert_eq!(place.read("clean.jsonl"), "{\"text\":\"one\"}\n{\"text\":\"two\"}\n");
    place.refuses("data inspect nothing-*.jsonl", &["nothing-*.jsonl: no file is called so"]);
    for (name, input) in [("jsonl", "{\"text\":\"one\"}\n"), ("tsv", "text\tx\none\ty\n"), ("txt", "one\n")] {
        let finished = place.run_with_input(&format!("data inspect - --stdin-format {name} --json"), input);
        finished.succeeded();
        assert!(finished.stdout.contains("\"rows\":1"), "{name}: {}", finished.stdout);
    }
    let finished = place.run_with_input("data inspect -", "no JSON\n");
    assert!(finished.failure().contains("standard input, line 1: not one JSON object"), "{}", finished.stderr);
}

#[test]
fn utf_16_is_named_and_the_nearest_column_suggested() {
    let place = Workplace::new();
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    for (file, bytes) in [("mark.csv", utf16("\u{feff}text\na\n")), ("plain.csv", utf16("text\na\n"))] {
        place.write(file, bytes);
        place.refuses(&format!("data inspect {file}"), &["is UTF-16", "iconv -f UTF-16 -t UTF-8"]);
    }
    place.write("a.arrow", "ARROW1");
    place.refuses(
        "data inspect a.arrow",
        &["unknown kind of data file", "write what they read of an Arrow file as .parquet"],
    );
    place.write("a.csv", "Text,lable\na,x\n");
    place.refuses("data inspect a.csv", &["no column `text`; there are `Text`, `lable`; did you mean `Text`?"]);
    place.refuses("data inspect a.csv --text-column Text --label-column label", &["did you mean `lable`?"]);
}
