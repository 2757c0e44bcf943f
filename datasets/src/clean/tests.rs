//! All steps together: their order, what is counted, and what holds for any text.

use super::*;
use proptest::prelude::*;
use std::fs;

fn all_text_steps() -> Vec<TextStep> {
    let folder = tempfile::tempdir().expect("a folder");
    let (words, characters) = (folder.path().join("words.txt"), folder.path().join("TSCharacters.txt"));
    fs::write(&words, "where 100\nthere 90\nplease 80\ncard 70\n").expect("writes");
    fs::write(&characters, "這\t这\n個\t个\n").expect("writes");
    let tokens = Links { url: Some("[URL]".to_owned()), email: Some("[EMAIL]".to_owned()) };
    vec![
        TextStep::Spelling(Box::new(Spelling::read(&words, None).expect("a dictionary"))),
        TextStep::Whitespace,
        TextStep::Links(tokens),
        TextStep::Chinese(ChineseDictionary::read(&[characters]).expect("a dictionary")),
        TextStep::Unicode(UnicodeForm::Nfkc),
        TextStep::FullWidth,
        TextStep::ControlCharacters,
        TextStep::Mojibake,
        TextStep::Html,
    ]
}

fn record(line: usize, text: &str, label: &str) -> Record {
    let columns =
        serde_json::json!({"id": line, "text": text, "label": label}).as_object().cloned().expect("an object");
    let row = Row { text: text.to_owned(), text_b: None, label: Some(label.to_owned()), line };
    Record { row, labels: vec![label.to_owned()], columns }
}

fn records(rows: &[(&str, &str)]) -> Vec<Record> {
    rows.iter().enumerate().map(|(at, (text, label))| record(at + 1, text, label)).collect()
}

fn texts(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.row.text.as_str()).collect()
}

fn cleaner(steps: Vec<TextStep>, rows: RowSteps<'_>) -> Cleaner<'_> {
    Cleaner::new(steps, rows, &Columns::default())
}

#[test]
fn steps_run_in_their_order_until_nothing_changes_and_keep_the_other_columns() {
    let mut cleaner = cleaner(all_text_steps(), RowSteps::default());
    let dirty = [
        ("<p>Itâ€™s  &amp;lt;b&amp;gt;hereâ„¢</p>", "a"),
        ("wehre is ＆ａｍｐ； 這個 carrd?\u{200b}", "b"),
        ("plain", "c"),
        ("see http://x.org/a&amp;b, or a@b.org", "a"),
    ];
    let kept = cleaner.clean(0, records(&dirty)).expect("cleans");
    assert_eq!(
        texts(&kept),
        ["It’s hereTM", "where is & 这个 carrd?", "plain", "see [URL], or [EMAIL]"]
            .map(|text| text.replace("carrd", "card"))
    );
    assert_eq!(
        Value::Object(kept[1].columns.clone()),
        serde_json::json!({"id": 2, "text": "where is & 这个 card?", "label": "b"})
    );
    let report = cleaner.finish();
    assert_eq!((report.rows, report.kept, report.changed), (4, 4, 3));
    let counts: Vec<_> = report.changes.iter().map(|step| (step.step.as_str(), step.rows)).collect();
    assert_eq!(
        counts,
        [
            ("html", 3),
            ("mojibake", 1),
            ("control_characters", 1),
            ("full_width", 1),
            ("unicode", 2),
            ("chinese", 1),
            ("links", 1),
            ("whitespace", 1),
            ("spelling", 1)
        ]
    );
    let mojibake = &report.changes[1].examples[0];
    assert_eq!(
        (mojibake.line, mojibake.before.as_str(), mojibake.after.as_deref()),
        (1, " Itâ€™s  hereâ„¢ ", Some(" It’s  here™ "))
    );
}

#[test]
fn rows_are_dropped_with_a_reason_and_counted_by_label() {
    let limits = Limits { characters: Some(3..=90), ..Limits::default() };
    let languages = vec![Language::named("en").expect("known")];
    let rows = RowSteps { limits, languages, duplicates: true, near_duplicates: Some(0.8) };
    let mut cleaner = cleaner(vec![TextStep::Html, TextStep::Whitespace], rows);
    cleaner.add_split("test", records(&[("<i>where</i> can  I find it", "x")]));
    let long = "When will my new card arrive, I have been waiting for it for two weeks";
    let near = format!("{long}!");
    let dirty = [
        ("<br>", "a"),
        ("no", "a"),
        ("Ich habe gestern meine Bankkarte verloren und möchte sie sofort sperren", "b"),
        ("where can I find it", "b"),
        (long, "b"),
        (long, "b"),
        (long, "c"),
        (near.as_str(), "b"),
        (near.as_str(), "c"),
        ("yes please", "b"),
    ];
    let kept = cleaner.clean(0, records(&dirty)).expect("cleans");
    let lines: Vec<usize> = kept.iter().map(|record| record.row.line).collect();
    assert_eq!(lines, [5, 9, 10], "with another label a text is no near duplicate");
    let report = cleaner.finish();
    let drops: Vec<_> = report
        .drops
        .iter()
        .map(|step| (step.step.as_str(), step.rows, step.examples[0].line, step.examples[0].why.as_str()))
        .collect();
    assert_eq!(
        drops,
        [
            ("empty", 1, 1, ""),
            ("length", 1, 2, "2 characters"),
            ("language", 1, 3, "German"),
            ("shared", 1, 4, "test"),
            ("duplicates", 1, 6, "as line 5"),
            ("duplicates_with_another_label", 1, 7, "as line 5, with another label"),
            ("near_duplicates", 1, 8, "like line 5"),
        ]
    );
    let labels: Vec<_> = report.labels.iter().map(|label| (label.label.as_str(), label.before, label.after)).collect();
    assert_eq!(labels, [("a", 2, 0), ("b", 6, 2), ("c", 2, 1)]);
}

#[test]
fn examples_stand_around_the_first_difference() {
    let before = format!("{}<b>{}", "x".repeat(100), "y".repeat(100));
    let after = format!("{}{}", "x".repeat(100), "y".repeat(100));
    let [before, after] = excerpts(&[before, after]);
    assert_eq!(before, format!("…{}<b>{}…", "x".repeat(30), "y".repeat(67)));
    assert_eq!(after, format!("…{}{}…", "x".repeat(30), "y".repeat(70)));
}

/// What dirty texts are made of.
const DIRTY: &str = "(<b>|</p>|&amp;|&lt;|&#39;| #39;|â€™|Ã©|â€|ＡＢ|　|１|ﬁ|e\u{301}|這|個|http://a\\.org/|www\\.|a@b\\.org|wehre|plaese|carrd|card|the|\
                     \u{200b}|\u{1b}\\[1m|\u{0}|\n|\u{a0}| |\\.|\"|;|<|>|É»|中){0,14}";

proptest! {
    #[test]
    fn cleaning_twice_is_cleaning_once(text in DIRTY) {
        let clean = |text: &str| {
            let mut cleaner = cleaner(all_text_steps(), RowSteps::default());
            let kept = cleaner.clean(0, records(&[(text, "x")])).expect("cleans");
            (kept.first().map(|record| record.row.text.clone()), cleaner.finish())
        };
        if let (Some(once), _) = clean(&text) {
            let (again, report) = clean(&once);
            prop_assert_eq!(again.as_deref(), Some(once.as_str()));
            prop_assert_eq!(report.changed, 0);
        }
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        for step in all_text_steps() {
            let _ = step.apply(&text);
        }
        let _ = Signature::of(&text, Some(&text));
    }

    #[test]
    fn the_number_of_threads_does_not_matter(texts in prop::collection::vec(DIRTY, 1..40)) {
        let clean = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| {
                let rows = RowSteps { duplicates: true, near_duplicates: Some(0.7), ..RowSteps::default() };
                let mut cleaner = cleaner(all_text_steps(), rows);
                let all: Vec<Record> = texts.iter().enumerate().map(|(at, text)| record(at, text, "x")).collect();
                let kept = cleaner.clean(0, all).expect("cleans");
                (kept, cleaner.finish())
            })
        };
        prop_assert_eq!(clean(1), clean(3));
    }
}
