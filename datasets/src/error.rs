//! Errors in data, labels and tokenizers. Each message says where, what was found and how to fix it.

use std::io;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say what the fields are
pub enum Error {
    #[error("{file}: cannot be opened: {cause}")]
    Open { file: String, cause: io::Error },
    #[error("{file}: cannot be read: {cause}{}", cut_short(.cause))]
    Read { file: String, cause: io::Error },
    #[error("{file}: cannot be written: {cause}")]
    Write { file: String, cause: io::Error },
    #[error(
        "{file}: unknown kind of data file; known are .tsv, .csv, .jsonl, .json and .txt, each also with .gz or .zst behind it, \
         and .parquet{}", way_to_parquet(.file)
    )]
    UnknownFormat { file: String },
    #[error("{place}: cannot be read as Parquet: {reason}; its pages may be uncompressed, or in snappy or zstd")]
    Parquet { place: String, reason: String },
    #[error("{file}, row {row}: no JSON array of objects: {reason}")]
    JsonArray { file: String, row: usize, reason: String },
    #[error(
        "{file}: is UTF-16, as some spreadsheets and Windows write text; convert it first, for example with \
         `iconv -f UTF-16 -t UTF-8`"
    )]
    Utf16 { file: String },
    #[error("{file}: no row can be read; of {rows} that were skipped the first says: {first}")]
    AllSkipped { file: String, rows: usize, first: String },
    #[error("standard input: Parquet is read from its end, so give it as a file")]
    ParquetStdin,
    #[error("{file}: holds no rows")]
    NoRows { file: String },
    #[error("{file}, line {line}: not valid UTF-8; convert the file to UTF-8 first")]
    InvalidUtf8 { file: String, line: usize },
    #[error("{place}: holds a text that is not valid UTF-8; write it in UTF-8")]
    RowNotUtf8 { place: String },
    #[error("{file}: no column `{column}`; there are {}{}{}", listed(.found), other_separator(.found),
        nearest(.column, .found))]
    NoColumn { file: String, column: String, found: Vec<String> },
    #[error("{file}: two columns are called `{column}`; rename one of them, since which one is meant cannot be told")]
    SameColumn { file: String, column: String },
    #[error("{place}: both `{one}` and `{other}` may hold the labels; say which with --label-column")]
    SeveralLabelColumns { place: String, one: String, other: String },
    #[error("{file}, line {line}: {found} columns where the header has {expected}{way_out}")]
    ColumnCount { file: String, line: usize, found: usize, expected: usize, way_out: &'static str },
    #[error(
        "{file}, line {line}: a cell stands in quotes, as pandas and spreadsheets write it; \
         read it so with --quotes csv, or as it stands with --quotes none"
    )]
    QuotedCell { file: String, line: usize },
    #[error(
        "{file}, line {line}: a quote opens a cell here and is never closed, so the rest of the file would be one text; \
         close it, or read quotes as they stand with --quotes none"
    )]
    UnclosedQuote { file: String, line: usize },
    #[error(
        "{file}, line {line}: a quote opens a cell here, and the next one, on line {closed}, is followed by more text, so that \
         the rows between would be one text; close the first or double those within a cell, or read quotes as they stand \
         with --quotes none"
    )]
    TextBehindQuote { file: String, line: usize, closed: usize },
    #[error(
        "{file}, line {line}: a cell in quotes spans {lines} lines here, each of which is a whole row by itself, so a quote \
         seems to be unclosed; read quotes as they stand with --quotes none, or take such cells as they are with --quotes csv"
    )]
    RowsWithinQuotes { file: String, line: usize, lines: usize },
    #[error("{place}: nothing in column `{column}`; fill it in or leave the row out")]
    MissingText { place: String, column: String },
    #[error("{file}, line {line}: not one JSON object on a line, and no array of objects: {reason}")]
    Json { file: String, line: usize, reason: String },
    #[error("{place}: column `{column}` is {found}, expected {expected}")]
    WrongType { place: String, column: String, found: String, expected: &'static str },

    #[error("no row has a label; name the column that holds them with --label-column")]
    NoLabels,
    #[error(
        "line {line}: the label is {label}, which often stands for no label: leave such rows unlabelled with \
         --unlabelled-value {label}, or make it a class by naming all of them with --label-names={label},.."
    )]
    NegativeLabel { label: String, line: usize },
    #[error(
        "line {line}: the label is {label}, as pandas and numpy write a missing one: leave such rows unlabelled with \
         --unlabelled-value '{label}', or make it a class by naming all of them with --label-names"
    )]
    MissingLabel { label: String, line: usize },
    #[error("line {line}: the labels `{label}` and `{other}` differ by spaces alone; spell them alike")]
    SpacedLabel { label: String, other: String, line: usize },
    #[error(
        "line {line}: the label is {label}, and all labels are numbers: a score is not learned, only classes are; if \
         these are classes, name them with --label-names"
    )]
    FractionLabel { label: String, line: usize },
    #[error("every label is `{label}`; a classifier needs at least two classes")]
    SingleClass { label: String },
    #[error("{found} class names; a classifier needs at least two classes")]
    TooFewClasses { found: usize },
    #[error("the class name `{name}` appears twice (classes {first} and {second})")]
    DuplicateClass { name: String, first: usize, second: usize },
    #[error("class {id} has an empty name")]
    EmptyClassName { id: usize },
    #[error("line {line}: the model does not know the label `{label}`; it knows {count} classes: {known}")]
    UnknownLabel { label: String, line: usize, count: usize, known: String },
    #[error(
        "line {line}: the label is `{label}`, and the model knows its {count} classes only as {first} to {last}; \
         say which is which with --label-names a,b,c (the class names in the model's order)"
    )]
    GenericNames { label: String, line: usize, count: usize, first: String, last: String },

    #[error(
        "{folder}: no tokenizer.json and no vocab.txt; add the tokenizer files that the model was trained with \
         (saving them from Python with `AutoTokenizer.from_pretrained(..).save_pretrained(..)` writes tokenizer.json)"
    )]
    NoTokenizer { folder: String },
    #[error("{file}: {reason}")]
    BadTokenizer { file: String, reason: String },
    #[error(
        "{file}: no `{token}`, which is to be the {role}; if the vocabulary spells it otherwise, \
         tokenizer_config.json says so as `{role}`"
    )]
    MissingSpecialToken { file: String, token: String, role: &'static str },
    #[error(
        "the tokenizer has no mask token such as [MASK], which a masked-language model needs; if its vocabulary spells it \
         otherwise, tokenizer_config.json says so as `mask_token`"
    )]
    NoMaskToken,
    #[error("--max-length {max_length} leaves no room for text beside {special} special tokens")]
    MaxLength { max_length: usize, special: usize },
    #[error("line {line}: the tokenizer fails on this text: {reason}")]
    Encode { line: usize, reason: String },
    #[error("{rows} rows; at most {limit} fit one data set")]
    TooManyRows { rows: usize, limit: u32 },
    #[error("a vocabulary of whole words cannot be pruned, and this tokenizer is {kind}; go on without pruning")]
    NotPrunable { kind: &'static str },
    #[error("token id {id} is not in the tokenizer's vocabulary of {size}")]
    UnknownTokenId { id: u32, size: usize },

    #[error("{file}: records are written as .jsonl or .parquet; choose one of these names")]
    UnknownOutput { file: String },
    #[error(
        "{file}: column `{column}` of line {line} is {found}, and the rows before it have made it a column of {expected}; \
         write .jsonl, where every row may have columns of its own"
    )]
    MixedColumn { file: String, line: usize, column: String, found: String, expected: &'static str },
    #[error("{file}, line {line}: expected {expected}")]
    Dictionary { file: String, line: usize, expected: &'static str },
    #[error("the language `{name}` cannot be told; known are {known}, also by two letters (en) or by name (English)")]
    UnknownLanguage { name: String, known: String },

    #[error("{what} is 0; it must be at least 1")]
    Zero { what: &'static str },
}

/// What to do about a file that ends too early.
fn cut_short(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::UnexpectedEof => "; the file was cut short: fetch or write it again",
        _ => "",
    }
}

/// A word about the separator, where the only column found looks like several.
fn other_separator(found: &[String]) -> &'static str {
    match found {
        [only] if only.contains(';') => "; separate columns with commas (.csv) or tabs (.tsv), not with semicolons",
        [only] if only.contains('\t') => "; columns that tabs separate are read from a file whose name ends in .tsv",
        [only] if only.contains(',') => "; columns that commas separate are read from a file whose name ends in .csv",
        _ => "",
    }
}

/// How files that pandas, polars and `datasets` write besides Parquet come to be read.
fn way_to_parquet(file: &str) -> &'static str {
    let lower = file.to_ascii_lowercase();
    match [".arrow", ".feather", ".ipc"].iter().any(|extension| lower.ends_with(extension)) {
        true => "; pandas, polars and datasets write what they read of an Arrow file as .parquet",
        false => "",
    }
}

/// The column whose name is most like the one that is not there, if any is.
fn nearest(column: &str, found: &[String]) -> String {
    let distance = |name: &String| strsim::damerau_levenshtein(&column.to_lowercase(), &name.trim().to_lowercase());
    let nearest = found.iter().map(|name| (distance(name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= column.chars().count().div_ceil(3) => format!("; did you mean `{name}`?"),
        _ => String::new(),
    }
}

/// The names in backticks with commas between them, for messages.
fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
