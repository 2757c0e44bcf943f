//! Each format, what is tolerated in it, and each refusal.

use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use std::io::Write;

fn parse(name: &str, text: &str) -> Vec<Row> {
    parse_rows(name, text.as_bytes(), &Columns::default()).unwrap()
}

fn refusal(name: &str, bytes: impl AsRef<[u8]>) -> String {
    refusal_with(name, bytes, &Columns::default())
}

fn refusal_with(name: &str, bytes: impl AsRef<[u8]>, columns: &Columns) -> String {
    parse_rows(name, bytes.as_ref(), columns).unwrap_err().to_string()
}

fn row(text: &str, label: Option<&str>, line: usize) -> Row {
    Row { text: text.into(), text_b: None, label: label.map(str::to_owned), line }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn labelled_by(column: &str) -> Columns {
    Columns { label: LabelColumn::Named(column.into()), ..Columns::default() }
}

fn quotes(quotes: Quotes) -> Columns {
    Columns { quotes: Some(quotes), ..Columns::default() }
}

#[test]
fn tsv_knows_no_quotes() {
    let text = "label\ttext\nx\tsay \"hi\nx\t\"Really?\"\nx\t\"\"a\" b\"\nx\t\"\nx\t\"\"\n";
    let rows = parse("a.tsv", text);
    let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    assert_eq!(texts, ["say \"hi", "\"Really?\"", "\"\"a\" b\"", "\"", "\"\""]);
    assert_eq!(parse_rows("a.tsv", text.as_bytes(), &quotes(Quotes::None)).unwrap(), rows);
}

/// What `DataFrame.to_csv(sep="\t", index=False)` writes of texts with quotes, tabs and line breaks in them.
const OF_PANDAS: &str = "text\tlabel\nplain\tx\n\"say \"\"hi\"\"\"\tx\n\"a\tb\"\ty\n\"c\nd\"\ty\n";

/// What a spreadsheet saves between tabs, and writers that quote a whole column.
#[test]
fn quotes_around_cells_without_any_are_a_writers_where_all_such_cells_have_them() {
    for (text, line) in [
        ("text\tlabel\nplain\tx\n\"well, yes\"\tx\n\"no, no\"\ty\n", 3),
        ("text\tlabel\nplain\t\"x\"\nmore\t\"y\"\nrest\t\n", 2),
        ("text\tlabel\n\"a\"\tx\n\"b\"\ty\n", 2),
    ] {
        let message = refusal("a.tsv", text);
        assert!(message.starts_with(&format!("a.tsv, line {line}: a cell stands in quotes")), "{message}");
        assert!(parse_rows("a.tsv", text.as_bytes(), &quotes(Quotes::None)).is_ok());
        assert!(parse_rows("a.tsv", text.as_bytes(), &quotes(Quotes::Csv)).is_ok());
    }
    for text in
        ["text\tlabel\n\"well, yes\"\tx\nno, no\ty\n", "text\tlabel\n\"yes\"\tx\nno\ty\n", "text\tlabel\n\"yes\"\tx\n"]
    {
        assert!(parse("a.tsv", text)[0].text.starts_with('"'), "{text}");
    }
}

#[test]
fn line_breaks_within_quotes_stay_as_they_are() {
    let csv = "text,text_b,label\r\n\"a\r\nb\",\"say \"\"c\r\n\"\"\",x\r\n\"d\ne\",5\" disk,y\r\nf,\"\",z\r\n";
    let rows = parse("a.csv", csv);
    let found: Vec<_> = rows.iter().map(|row| (row.text.as_str(), row.text_b.as_deref(), row.line)).collect();
    assert_eq!(found, [("a\r\nb", Some("say \"c\r\n\""), 2), ("d\ne", Some("5\" disk"), 5), ("f", None, 7)]);
    assert_eq!(rows[2].label.as_deref(), Some("z"));
}

#[test]
fn a_tsv_with_quotes_is_refused_with_the_flag_that_reads_it() {
    let message = refusal("a.tsv", OF_PANDAS);
    assert!(message.starts_with("a.tsv, line 3: a cell stands in quotes"), "{message}");
    assert!(message.contains("--quotes csv") && message.contains("--quotes none"), "{message}");
    let expected = [
        row("plain", Some("x"), 2),
        row("say \"hi\"", Some("x"), 3),
        row("a\tb", Some("y"), 4),
        row("c\nd", Some("y"), 5),
    ];
    assert_eq!(parse_rows("a.tsv", OF_PANDAS.as_bytes(), &quotes(Quotes::Csv)).unwrap(), expected);
    let as_it_stands = OF_PANDAS.lines().take(3).collect::<Vec<_>>().join("\n");
    let rows = parse_rows("a.tsv", as_it_stands.as_bytes(), &quotes(Quotes::None)).unwrap();
    assert_eq!(rows[1].text, "\"say \"\"hi\"\"\"");
    // Whatever else quotes break.
    for text in ["\"text\"\t\"label\"\n\"a\"\t\"x\"\n", "text\tlabel\n\"a\tb\"\tx\n", "text\tlabel\n\"a\nb\"\tx\n"] {
        let message = refusal("a.tsv", text);
        assert!(message.contains("--quotes csv"), "{message}");
        parse_rows("a.tsv", text.as_bytes(), &quotes(Quotes::Csv)).unwrap();
    }
    // A tab and a line break in one cell, each line of which has as many cells as the header.
    let both = "text\tlabel\nplain\tx\n\"a\tb\nc\"\ty\nplain\tx\n";
    assert!(refusal("a.tsv", both).starts_with("a.tsv, line 3: a cell stands in quotes"), "{}", refusal("a.tsv", both));
    assert_eq!(parse_rows("a.tsv", both.as_bytes(), &quotes(Quotes::Csv)).unwrap()[1], row("a\tb\nc", Some("y"), 3));
    let column = "text\n\"a\nb\"\nc\n";
    assert!(
        refusal("a.tsv", column).starts_with("a.tsv, line 2: a cell stands in quotes"),
        "{}",
        refusal("a.tsv", column)
    );
    // Where another quote closes nowhere, or within a text, they mean nothing.
    for rest in ["\"open\tx\n", "\"no\" said he\tx\n"] {
        assert_eq!(parse("a.tsv", &(both.to_owned() + rest)).len(), 5, "{rest}");
    }
    // Columns that are not read may hold anything.
    assert_eq!(parse("a.tsv", "text\tnote\na\t\"say \"\"hi\"\"\"\n").len(), 1);
}

#[test]
fn a_csv_without_quotes_is_read_as_it_stands() {
    let text = "label,text\nx,\"a\ny,b\"\n";
    let rows = parse_rows("a.csv", text.as_bytes(), &quotes(Quotes::None)).unwrap();
    assert_eq!(rows, [row("\"a", Some("x"), 2), row("b\"", Some("y"), 3)]);
}

#[test]
fn a_quote_that_is_never_closed_is_refused_with_the_line_it_opens_on() {
    let message = |line| {
        format!(
            "a.csv, line {line}: a quote opens a cell here and is never closed, so the rest of the file would be one \
             text; close it, or read quotes as they stand with --quotes none"
        )
    };
    let rest = "x,c\nx,d\n".repeat(50);
    for (text, line) in [
        (format!("label,text\nx,a\nx,\"b\n{rest}"), 3),
        (format!("label,text\r\nx,a\r\n\r\nx,\"b\r\n{rest}"), 4),
        // The quote that stays open is that of the second cell, whose record begins two lines before.
        (format!("label,text,note\n\"x\n\ny\",a,\"b\n{rest}"), 4),
        ("label,text\nx,\"".to_owned(), 2),
        ("label,text\nx,\"a\n\"\"".to_owned(), 2),
        ("\"label,text\nx,a\n".to_owned(), 1),
    ] {
        assert_eq!(refusal("a.csv", &text), message(line), "{text:?}");
        assert_eq!(refusal("a.csv.gz", gzip(&text)), message(line).replace("a.csv", "a.csv.gz"));
    }
    // Closed at the very end, within a line, or not a quote that opens a cell.
    for text in
        ["label,text\nx,\"a\n\"", "label,text\nx,\"a\n\"\n\n", "label,text\nx,\"a\"\"\"", "label,text\nx,5\" pipe"]
    {
        assert_eq!(parse("a.csv", text).len(), 1, "{text:?}");
    }
    // What is added behind the last line is nobody's row.
    assert!(refusal("a.csv", b"text\n\xffend\na\n").contains("line 2: not valid UTF-8"));
    assert!(refusal("a.csv", b"text\na\n\xffend").contains("line 3: not valid UTF-8"));
}

#[test]
fn the_label_column_is_found_by_its_usual_names() {
    for name in ["label", "labels", "Label", "LABELS", " Labels "] {
        let expected = [row("a", Some("x"), 2)];
        assert_eq!(parse("a.csv", &format!("text,{name}\na,x\n")), expected, "{name:?}");
        assert_eq!(parse("a.tsv", &format!("{name}\ttext\nx\ta\n")), expected, "{name:?}");
        assert_eq!(parse("a.jsonl", &format!("\n{{\"text\":\"a\",\"{name}\":\"x\"}}")), expected, "{name:?}");
    }
    // The exact name wins; between others nobody guesses.
    assert_eq!(parse("a.csv", "text,Label,label\na,y,x\n"), [row("a", Some("x"), 2)]);
    for (name, text) in
        [("a.csv", "text,Label,labels\na,x,y\n"), ("a.jsonl", r#"{"text":"a","Label":"x","labels":"y"}"#)]
    {
        let message = refusal(name, text);
        assert!(message.contains("both `Label` and `labels`") && message.contains("--label-column"), "{message}");
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, text, column) in [
        ("a.csv", "text,Label\na,x\n", Some("Label")),
        ("b.csv", "text,label\na,x\n", None),
        ("a.tsv", "labels\ttext\nx\ta\n", Some("labels")),
        ("a.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\",\"labels\":3}\n", Some("labels")),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let found = for_each_row(&path, &Columns::default(), |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(found.as_deref(), column, "{name}");
    }
    for ignored in ["a.csv", "a.jsonl"] {
        let columns = Columns { label: LabelColumn::Ignored, ..Columns::default() };
        let text = if ignored == "a.csv" { "text,label\na,x\n" } else { r#"{"text":"a","label":["x"]}"# };
        assert_eq!(parse_rows(ignored, text.as_bytes(), &columns).unwrap()[0].label, None);
    }
}

#[test]
fn a_value_may_stand_for_no_label() {
    let columns = Columns { unlabelled: Some("-1".into()), ..Columns::default() };
    for (name, text) in [
        ("a.csv", "text,label\na,-1\nb,1\nc,-1.0\n"),
        ("a.tsv", "text\tlabel\na\t-1\nb\t1\nc\t -1\n"),
        ("a.jsonl", "{\"text\":\"a\",\"label\":-1}\n{\"text\":\"b\",\"label\":1}\n{\"text\":\"c\",\"label\":\"-1\"}"),
    ] {
        let labels: Vec<_> =
            parse_rows(name, text.as_bytes(), &columns).unwrap().into_iter().map(|row| row.label).collect();
        assert_eq!(labels, [None, Some("1".into()), None], "{name}");
    }
}

#[test]
fn a_label_is_spelled_alike_in_every_format() {
    for (json, cell) in
        [("1", "1"), ("\"1\"", "1"), ("-1", "-1"), ("1.0", "1.0"), ("4294967296", "4294967296"), ("4.75", "4.75")]
    {
        let of_json = parse("a.jsonl", &format!("{{\"text\":\"a\",\"label\":{json}}}"));
        assert_eq!(of_json[0].label, parse("a.csv", &format!("text,label\na,{cell}\n"))[0].label, "{json}");
    }
}

#[test]
fn lists_of_labels_in_a_table_were_names_of_classes() {
    let expected = "line 2: column `label` is a list, expected a string, a number, a truth value, or null for no label";
    for list in ["[0, 1]", "[\"\"a\"\"]", " ['a', 'b']", "[]"] {
        let message = refusal("a.csv", format!("text,label\na,\"{list}\"\n"));
        assert!(message.ends_with(expected), "{list}: {message}");
    }
    assert!(refusal("a.tsv", "text\tlabel\na\t[2]\n").ends_with(expected));
    assert!(refusal("a.jsonl", "\n{\"text\": \"a\", \"label\": [2]}\n").ends_with(expected));
    for name in ["[NEG]", "[0", "[0] a"] {
        assert_eq!(parse("a.csv", &format!("text,label\na,{name}\n")), [row("a", Some(name), 2)]);
    }
}

#[test]
fn csv_knows_quotes_and_counts_lines_within_them() {
    let rows = parse("a.csv", "text,label\n\"a, \"\"b\"\"\nc\",x\nd,y\n");
    assert_eq!(rows, [row("a, \"b\"\nc", Some("x"), 2), row("d", Some("y"), 4)]);
}

#[test]
fn jsonl_takes_names_integers_and_null_for_labels() {
    let rows = parse(
        "a.jsonl",
        "{\"text\":\"a\",\"label\":\"x\"}\n\n{\"text\":\"b\",\"label\":7}\n{\"text\":\"c\",\"label\":null}\n{\"text\":\"d\"}",
    );
    let labels: Vec<_> = rows.iter().map(|row| (row.line, row.label.clone())).collect();
    assert_eq!(labels, [(1, Some("x".into())), (3, Some("7".into())), (4, None), (5, None)]);
}

#[test]
fn byte_order_marks_and_windows_line_ends_are_tolerated() {
    for (name, text) in [
        ("a.tsv", "\u{feff}text\tlabel\r\na\tx\r\nb\ty\r\n"),
        ("a.csv", "\u{feff}text,label\r\na,x\r\nb,y\r\n"),
        ("a.jsonl", "\u{feff}\r\n{\"text\":\"a\",\"label\":\"x\"}\r\n{\"text\":\"b\",\"label\":\"y\"}\r\n"),
    ] {
        assert_eq!(parse(name, text), [row("a", Some("x"), 2), row("b", Some("y"), 3)], "{name}");
    }
}

#[test]
fn line_numbers_hold_past_blank_lines() {
    for (name, text) in [
        ("a.tsv", "text\tlabel\n\na\tx\n\nb\ty"),
        ("a.csv", "text,label\n\na,x\n\nb,y"),
        ("a.csv", "text,label\r\n\r\na,x\r\n\r\nb,y"),
    ] {
        assert_eq!(parse(name, text), [row("a", Some("x"), 3), row("b", Some("y"), 5)], "{name}");
    }
}

#[test]
fn pairs_and_empty_cells() {
    let rows = parse("a.tsv", "text\ttext_b\tlabel\na\tb\t\nc\t\t1\n");
    assert_eq!((rows[0].text_b.as_deref(), &rows[0].label), (Some("b"), &None));
    assert_eq!((rows[1].text_b.as_deref(), &rows[1].label), (None, &Some("1".into())));
    let rows = parse("a.jsonl", r#"{"text":"a","text_b":"b","label":""}"#);
    assert_eq!((rows[0].text_b.as_deref(), &rows[0].label), (Some("b"), &None));
}

#[test]
fn columns_can_be_named() {
    let columns = Columns { text: Some("sentence1".into()), pair: Some("sentence2".into()), ..labelled_by("gold") };
    let expected = Row { text: "a".into(), text_b: Some("b".into()), label: Some("x".into()), line: 2 };
    let tsv = "text\tgold\tsentence2\tsentence1\n-\tx\tb\ta\n";
    assert_eq!(parse_rows("a.tsv", tsv.as_bytes(), &columns).unwrap(), std::slice::from_ref(&expected));
    let json = "\n{\"sentence1\":\"a\",\"sentence2\":\"b\",\"gold\":\"x\",\"text\":3}";
    assert_eq!(parse_rows("a.jsonl", json.as_bytes(), &columns).unwrap(), [expected]);
}

#[test]
fn reads_files_plain_and_gzipped_in_several_members() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read_rows(&path, &Columns::default())
    };
    let expected = [row("a", Some("x"), 2), row("b", Some("y"), 3)];
    assert_eq!(read("a.TSV", b"text\tlabel\na\tx\nb\ty").unwrap(), expected);
    let members = [gzip("text\tlabel\na\t"), gzip("x\nb\ty\n")].concat();
    assert_eq!(read("a.tsv.gz", &members).unwrap(), expected);
    assert_eq!(parse_rows("a.tsv.gz", &members, &Columns::default()).unwrap(), expected);

    let cut = read("cut.tsv.gz", &members[..members.len() - 9]).unwrap_err().to_string();
    assert!(cut.contains("cut.tsv.gz: cannot be read"), "{cut}");
    let plain = read("plain.csv.gz", b"text\na\n").unwrap_err().to_string();
    assert!(plain.contains("plain.csv.gz: cannot be read"), "{plain}");
    let missing = read_rows(&folder.path().join("no.tsv"), &Columns::default()).unwrap_err().to_string();
    assert!(missing.contains("no.tsv: cannot be opened"), "{missing}");
}

#[test]
fn files_without_rows_are_refused() {
    for name in ["a.tsv", "a.csv", "a.jsonl"] {
        assert_eq!(refusal(name, ""), format!("{name}: holds no rows"));
        assert_eq!(refusal(name, "\n\n"), format!("{name}: holds no rows"));
    }
    assert_eq!(refusal("a.tsv", "text\tlabel\n"), "a.tsv: holds no rows");
    assert_eq!(refusal("a.csv", "text,label\n"), "a.csv: holds no rows");
}

#[test]
fn unknown_extensions_are_refused() {
    for name in ["a.doc", "a", "a.gz", "a.parquet.gz"] {
        assert!(refusal(name, "").contains("known are .tsv, .csv, .jsonl, .json and .txt"), "{name}");
    }
}

#[test]
fn rows_of_another_width_are_refused() {
    let tsv = "text\tlabel\tid\na\tx\t1\nb\ty\n";
    assert_eq!(refusal("a.tsv", tsv), "a.tsv, line 3: 2 columns where the header has 3");
    let csv = "text,label\r\na,x\r\nb,y,z\r\n";
    assert_eq!(
        refusal("a.csv", csv),
        "a.csv, line 3: 3 columns where the header has 2; a text with a separator in it stands in quotes"
    );
}

#[test]
fn invalid_utf8_is_refused_with_its_line() {
    let message = |name: &str, line| format!("{name}, line {line}: not valid UTF-8; convert the file to UTF-8 first");
    assert_eq!(refusal("a.tsv", b"text\na\n\xff\n"), message("a.tsv", 3));
    assert_eq!(refusal("a.csv", b"text,label\na,x\n\xe9,y\n"), message("a.csv", 3));
    assert_eq!(refusal("a.jsonl", b"{\"text\":\"\xe9\"}\n"), message("a.jsonl", 1));
}

#[test]
fn columns_that_are_not_there_are_refused_with_those_that_are() {
    assert_eq!(refusal("a.tsv", "sentence\tid\n"), "a.tsv: no column `text`; there are `sentence`, `id`");
    assert_eq!(
        refusal_with("a.csv", "text,label\na,x\n", &labelled_by("gold")),
        "a.csv: no column `gold`; there are `text`, `label`"
    );
    assert_eq!(
        refusal_with("a.jsonl", r#"{"text":"a","label":"x"}"#, &labelled_by("gold")),
        "a.jsonl: no column `gold`; there are `text`, `label`"
    );
    assert_eq!(
        refusal("a.jsonl", "{\"text\":\"a\"}\n{\"sentence\":\"a\",\"id\":1}"),
        "a.jsonl, line 2: no column `text`; there are `sentence`, `id`"
    );
}

#[test]
fn a_named_label_may_be_missing_from_some_rows_of_jsonl() {
    let rows = parse_rows("a.jsonl", b"{\"text\":\"a\"}\n{\"text\":\"b\",\"gold\":1}", &labelled_by("gold")).unwrap();
    assert_eq!((&rows[0].label, &rows[1].label), (&None, &Some("1".into())));
}

#[test]
fn blank_texts_are_refused() {
    let message = |name: &str| format!("{name}, line 2: nothing in column `text`; fill it in or leave the row out");
    assert_eq!(refusal("a.tsv", "text\tlabel\n \tx\n"), message("a.tsv"));
    assert_eq!(refusal("a.csv", "text,label\n,x\n"), message("a.csv"));
    assert_eq!(refusal("a.jsonl", "{\"text\":\"a\"}\n{\"text\":\"\"}"), message("a.jsonl"));
    assert_eq!(refusal("a.jsonl", "{\"text\":\"a\"}\n{\"text\":null}"), message("a.jsonl"));
}

#[test]
fn json_of_another_type_is_refused() {
    for (value, found) in [("[1]", "a list"), ("{}", "an object")] {
        let message = refusal("a.jsonl", format!("{{\"text\":\"a\",\"label\":{value}}}"));
        assert!(message.starts_with(&format!("a.jsonl, line 1: column `label` is {found}, expected")), "{message}");
    }
    let truths = parse_rows(
        "a.jsonl",
        b"{\"text\":\"a\",\"label\":true}\n{\"text\":\"b\",\"label\":false}",
        &Columns::default(),
    );
    let labels: Vec<_> = truths.unwrap().into_iter().map(|row| row.label.unwrap()).collect();
    assert_eq!(labels, ["True", "False"], "as in a table that Python writes");
    assert!(refusal("a.jsonl", r#"{"text":true}"#).contains("column `text` is the truth value true, expected"));
    assert_eq!(
        refusal("a.jsonl", r#"{"text":3}"#),
        "a.jsonl, line 1: column `text` is the number 3, expected a string"
    );
    for text in ["\"a\"", "{\"text\":", "{} {}"] {
        assert!(refusal("a.json", text).contains("line 1: not one JSON object on a line"), "{text}");
    }
}

fn any_row() -> impl Strategy<Value = (String, Option<String>, Option<String>)> {
    let text = "[^\\pC]{0,12}[a-zé好\"',\\\\][^\\pC]{0,12}";
    (text, prop::option::of(text), prop::option::of(text))
}

/// The rows as a writer of quotes writes them.
fn csv_of(written: &[(String, Option<String>, Option<String>)], separator: u8) -> String {
    let mut csv = ::csv::WriterBuilder::new().delimiter(separator).from_writer(Vec::new());
    csv.write_record(["text", "text_b", "label"]).unwrap();
    for (text, text_b, label) in written {
        csv.write_record([text, text_b.as_deref().unwrap_or_default(), label.as_deref().unwrap_or_default()]).unwrap();
    }
    String::from_utf8(csv.into_inner().unwrap()).unwrap()
}

fn expected(written: &[(String, Option<String>, Option<String>)]) -> Vec<Row> {
    written
        .iter()
        .zip(2..)
        .map(|((text, text_b, label), line)| Row {
            text: text.clone(),
            text_b: text_b.clone(),
            label: label.clone(),
            line,
        })
        .collect()
}

proptest! {
    #[test]
    fn what_is_written_is_read(written in prop::collection::vec(any_row(), 1..8)) {
        let mut tsv = "text\ttext_b\tlabel\n".to_owned();
        let mut jsonl = "\n".to_owned();
        for (text, text_b, label) in &written {
            let cells = [text.as_str(), text_b.as_deref().unwrap_or_default(), label.as_deref().unwrap_or_default()];
            tsv += &(cells.join("\t") + "\n");
            jsonl += &(serde_json::json!({ "text": text, "text_b": text_b, "label": label }).to_string() + "\n");
        }
        let expected = expected(&written);
        let columns = Columns::default();
        let quoted = parse_rows("a.tsv", csv_of(&written, b'\t').as_bytes(), &quotes(Quotes::Csv));
        prop_assert_eq!(&quoted.unwrap(), &expected);
        prop_assert_eq!(&parse_rows("a.tsv", tsv.as_bytes(), &quotes(Quotes::None)).unwrap(), &expected);
        prop_assert_eq!(&parse_rows("a.tsv.gz", &gzip(&tsv), &quotes(Quotes::None)).unwrap(), &expected);
        prop_assert_eq!(&parse_rows("a.jsonl", jsonl.as_bytes(), &columns).unwrap(), &expected);
        prop_assert_eq!(&parse_rows("a.csv", csv_of(&written, b',').as_bytes(), &columns).unwrap(), &expected);
    }

    #[test]
    fn no_bytes_bring_a_reader_down(bytes: Vec<u8>, name in "a\\.(tsv|csv|jsonl)(\\.gz)?") {
        let _ = parse_rows(&name, &bytes, &Columns::default());
    }
}

#[test]
fn plain_text_has_a_row_for_each_line_that_is_not_blank() {
    let rows = parse("a.txt", "One text.\r\n\n   \n\tAnother, with \"quotes\".\nlast");
    assert_eq!(rows, [row("One text.", None, 1), row("Another, with \"quotes\".", None, 4), row("last", None, 5)]);
    assert!(refusal_with("a.txt", "x", &labelled_by("label")).contains("no column `label`"));
    assert!(refusal("a.txt", "\n \n").contains("no rows"));
}

#[test]
fn a_reader_stops_when_it_is_told_to() {
    let dir = std::env::temp_dir().join(format!("distill-rows-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for (name, text) in [
        ("a.tsv", "text\na\nb\nc\n"),
        ("a.csv", "text\na\nb\nc\n"),
        ("a.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\"}\n{\"text\":\"c\"}\n"),
        ("a.txt", "a\nb\nc\n"),
    ] {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        let mut seen = Vec::new();
        for_each_row(&path, &Columns::default(), |row| {
            seen.push(row.text);
            if seen.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        assert_eq!(seen, ["a", "b"], "{name}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn two_columns_of_one_name_are_refused_where_that_name_is_read() {
    for (name, text) in [("a.csv", "text,text,label\na,b,c\n"), ("a.tsv", "text\tlabel\tlabel\na\tb\tc\n")] {
        assert!(refusal(name, text).contains("two columns are called `"), "{text}");
    }
    assert_eq!(parse("a.csv", "text,label,x,x\na,b,1,2\n"), [row("a", Some("b"), 2)]);
}

#[test]
fn another_separator_is_guessed_where_one_column_looks_like_several() {
    let hint = |name: &str, header: &str| refusal(name, format!("{header}\na{header}b\n"));
    assert!(
        hint("a.csv", "text;label").ends_with(
            "there are `text;label`; separate columns with commas (.csv) or tabs (.tsv), not with semicolons"
        )
    );
    assert!(hint("a.csv", "text\tlabel").ends_with("from a file whose name ends in .tsv"));
    assert!(hint("a.tsv", "text,label").ends_with("from a file whose name ends in .csv"));
    assert!(hint("a.tsv", "words").ends_with("no column `text`; there are `words`"));
}

#[test]
fn a_json_array_is_read_as_its_objects_on_lines() {
    let lines = "{\"text\":\"a\",\"label\":1,\"n\":[2]}\n{\"label\":null,\"text\":\"b\"}\n";
    let array = "  \n \n[\n {\"text\": \"a\",\n  \"label\": 1, \"n\": [2]},\n {\"label\": null, \"text\": \"b\"}\n]\n";
    let read = |text: &str| parse_rows("rows.json", text.as_bytes(), &Columns::default());
    let (expected, found) = (read(lines).expect("lines"), read(array).expect("an array"));
    assert_eq!(found, expected);
    assert_eq!(found[1].line, 2, "the second object");

    let refused = |text: &str, expected: &str| {
        let error = read(text).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    };
    refused("[]", "rows.json: holds no rows");
    refused("[{\"text\":\"a\"},", "rows.json, row 2: no JSON array of objects: EOF");
    refused("[{\"text\":\"a\"}] x", "row 2: no JSON array of objects: trailing characters");
    refused("[{\"text\":\"a\"}, 7]", "row 2: no JSON array of objects: invalid type: integer `7`");
    refused("[{\"text\":\"a\"}, {\"text\":\"\"}]", "rows.json, row 2: nothing in column `text`");
    refused("[{\"text\":\"a\"}, {\"txt\":\"b\"}]", "rows.json, row 2: no column `text`; there are `txt`");
}

#[test]
fn zstd_is_read_as_what_it_holds() {
    let text = "text\tlabel\na\tx\nb\ty\n";
    let packed = zstd::encode_all(text.as_bytes(), 3).expect("packs");
    let read = |name: &str, bytes: &[u8]| parse_rows(name, bytes, &Columns::default());
    assert_eq!(read("rows.tsv.zst", &packed).expect("reads"), read("rows.tsv", text.as_bytes()).expect("reads"));
    let cut = read("rows.tsv.zst", &packed[..packed.len() - 3]).expect_err("cut short").to_string();
    assert!(cut.contains("rows.tsv.zst: cannot be read"), "{cut}");
    let other = read("rows.tsv.zst", text.as_bytes()).expect_err("not packed").to_string();
    assert!(other.contains("rows.tsv.zst: cannot be read"), "{other}");
    assert!(read("rows.parquet.gz", b"").expect_err("packed twice").to_string().contains("unknown kind of data file"));
}

#[test]
fn two_unclosed_quotes_swallowed_the_rows_between_them() {
    let rows = "x,c\nx,d\n".repeat(3);
    for (text, line, closed) in [
        (format!("label,text\nx,a\nx,\"b\n{rows}x,\"e\nx,f\n"), 3, 10),
        (format!("text,label\n\"b,x\n{}\"e,x\nf,x\n", "c,x\n".repeat(3)), 2, 6),
        // The next quotes are honest ones.
        ("label,text\r\nx,\"b\r\nx,\"c, d\"\r\n".to_owned(), 2, 3),
        ("label,text,note\n\"x\n\ny\",\"b\",\"c\nx,\"c, d\",e\n".to_owned(), 4, 5),
    ] {
        for quotes in [None, Some(Quotes::Csv)] {
            let columns = Columns { quotes, ..Columns::default() };
            let message = refusal_with("a.csv", &text, &columns);
            let start =
                format!("a.csv, line {line}: a quote opens a cell here, and the next one, on line {closed}, is ");
            assert!(message.starts_with(&start) && message.ends_with("with --quotes none"), "{message}");
        }
    }
    // On one line, what is behind a quote is part of the cell, as pandas reads it.
    assert_eq!(parse("a.csv", "label,text\nx,\"5\" pipe\n"), [row("5 pipe", Some("x"), 2)]);
}

/// The second quote stands at the end of a cell, where one closes.
#[test]
fn rows_within_quotes_that_have_labels_of_the_file_are_refused() {
    for text in [
        "text,label\n\"b,x\nc,y\nmonitor 24\",x\nd,y\n",
        "label,text\nx,a\ny,\"b\nx,c\ny,monitor 24\"\ny,d\n",
        "label,text\r\nx,\"b\r\ny,monitor 24\"\r\ny,d\r\n",
    ] {
        let message = refusal("a.csv", text);
        assert!(message.contains("lines here, each of which is a whole row by itself"), "{message}");
        assert!(message.contains("--quotes none") && message.contains("--quotes csv"), "{message}");
        parse_rows("a.csv", text.as_bytes(), &quotes(Quotes::Csv)).unwrap();
        parse_rows("a.csv", text.as_bytes(), &quotes(Quotes::None)).unwrap();
    }
    for text in [
        "label,text\nx,\"Hello\nbye, friend\"\ny,d\n",
        "text,label\n\"Dear John,\nHow are you, friend\nyours\",x\nd,y\n",
        "text\n\"a\nb\"\nc\n",
        "label,text\nx,\"a\nx\"\nx,\"a\n\nx,b\"\n",
    ] {
        assert!(parse_rows("a.csv", text.as_bytes(), &Columns::default()).is_ok(), "{text}");
    }
}

#[test]
fn lines_that_end_in_a_return_alone_were_no_rows() {
    for (name, text) in [
        ("a.csv", "text,label\ra,x\r\"b\",y\r"),
        ("a.tsv", "text\tlabel\ra\tx\rb\ty"),
        ("a.csv", "\u{feff}text,label\ra,x\rb,y"),
    ] {
        assert_eq!(parse(name, text), [row("a", Some("x"), 2), row("b", Some("y"), 3)], "{name}");
        assert_eq!(parse_rows(&format!("{name}.gz"), &gzip(text), &Columns::default()).unwrap().len(), 2);
    }
    assert_eq!(parse("a.txt", "a\rb\r"), [row("a", None, 1), row("b", None, 2)]);
    assert_eq!(parse("a.jsonl", "{\"text\":\"a\"}\r{\"text\":\"b\"}\r"), [row("a", None, 1), row("b", None, 2)]);
    assert_eq!(parse("a.csv", "text\na\rb\n"), [row("a\rb", None, 2)]);
}

#[test]
fn what_json_has_not_and_files_cut_short_are_explained_in_arrays_too() {
    for word in ["NaN", "Infinity", "-Infinity"] {
        let message = refusal("a.json", format!("[{{\"text\":\"a\"}},\n {{\"text\":\"b\",\"p\":[{word}]}}]"));
        assert!(message.starts_with("a.json, row 2: no JSON array of objects: "), "{message}");
        assert!(message.contains(word.trim_start_matches('-')) && message.contains("null stands for"), "{message}");
    }
    let noise: String = (0..4000_u32).map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 28) as u8)).collect();
    let packed = gzip(&format!("[{{\"text\":\"{noise}\"}},{{\"text\":\"b\"}}]"));
    let message = refusal("a.json.gz", &packed[..packed.len() / 2]);
    assert!(message.starts_with("a.json.gz: cannot be read: ") && message.contains("was cut short"), "{message}");
    let message = refusal("a.json", "[{\"text\":\"a\"},{\"text\":");
    assert!(message.contains("row 2") && message.contains("was cut short"), "{message}");
    let message = refusal("a.json", "{\n  \"text\": \"a\"\n}\n");
    assert!(message.contains("no array of objects") && message.contains("between [ and ]"), "{message}");
}

#[test]
fn tables_that_are_not_read_are_no_lines_of_text() {
    for name in ["a.arrow", "a.parquet.gz", "A.XLSX", "a.feather", "a.csv.bz2", "a.csv", "a.jsonl.zst", "a.parquet"] {
        assert!(has_columns(Path::new(name)), "{name}");
    }
    for name in ["a.txt", "a.txt.gz", "a", "a.log", "b.md"] {
        assert!(!has_columns(Path::new(name)), "{name}");
    }
}

#[test]
fn rows_of_arrays_and_parquet_are_no_lines() {
    let folder = tempfile::tempdir().unwrap();
    let array = " \n[{\"text\":\"a\"}]";
    for (name, bytes, unit) in [
        ("a.json", array.as_bytes().to_vec(), Unit::Row),
        ("a.json.gz", gzip(array), Unit::Row),
        ("a.json.zst", zstd::encode_all(array.as_bytes(), 1).unwrap(), Unit::Row),
        ("b.json", b"{\"text\":\"a\"}\n".to_vec(), Unit::Line),
        ("a.csv", b"[\n".to_vec(), Unit::Line),
        ("a.parquet", Vec::new(), Unit::Row),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(unit_of(&path), unit, "{name}");
    }
    assert_eq!(unit_of(&folder.path().join("none.json")), Unit::Line);
}
