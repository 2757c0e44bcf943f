//! Tokenises files that may be larger than memory: of the texts only their tokens are kept, and those in files.

use std::ops::ControlFlow;
use std::path::Path;

use crate::hold_out::{hold_out, stands_out};
use crate::{Columns, Encodings, EncodingsFile, Error, Row, TextTokenizer, for_each_row, read_rows};

/// How texts become rows of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowLength {
    /// Each text is a row, cut at so many tokens.
    AtMost(usize),
    /// Texts stand one behind the other, and are cut into rows of so many tokens.
    Packed(usize),
}

/// Rows and bytes of text that are in memory at a time.
const WINDOW: [usize; 2] = [1 << 14, 16 << 20];

/// Tokenises all rows of a file; labels are not looked at.
pub fn encode_file(
    path: &Path,
    columns: &Columns,
    tokenizer: &TextTokenizer,
    length: RowLength,
) -> Result<Encodings, Error> {
    let [rows, _] = encode_sides(path, columns, tokenizer, length, |rows, _| vec![false; rows.len()])?;
    Ok(rows)
}

/// As [`encode_file`], with a tenth of the texts, the same ones as [`hold_out`] has, as rows of their own: rows to learn from, and
/// rows to validate on.
pub fn encode_and_hold_out(
    path: &Path,
    columns: &Columns,
    tokenizer: &TextTokenizer,
    length: RowLength,
) -> Result<[Encodings; 2], Error> {
    let sides = encode_sides(path, columns, tokenizer, length, |rows, all| match all {
        true => hold_out(rows, &vec![None; rows.len()]),
        false => rows.iter().map(stands_out).collect(),
    })?;
    if sides.iter().all(|side| !side.is_empty()) {
        return Ok(sides);
    }
    // Few texts, or many that are the same: who is on which side follows from all of them.
    let rows = read_rows(path, columns)?;
    let mut held_out = hold_out(&rows, &vec![None; rows.len()]).into_iter();
    let (second, first): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|_| held_out.next().unwrap_or(false));
    let most = match length {
        RowLength::AtMost(most) => most,
        RowLength::Packed(_) => usize::MAX,
    };
    let encode = |rows: &[Row]| tokenizer.encode(rows, most).map(|rows| length.of(rows));
    Ok([encode(&first)?, encode(&second)?])
}

impl RowLength {
    fn of(self, rows: Encodings) -> Encodings {
        match self {
            Self::AtMost(_) => rows,
            Self::Packed(length) => rows.packed(length),
        }
    }
}

/// Rows on two sides; `second` says of some rows which are on the second one, and is told whether they are all that there are.
fn encode_sides(
    path: &Path,
    columns: &Columns,
    tokenizer: &TextTokenizer,
    length: RowLength,
    second: impl Fn(&[Row], bool) -> Vec<bool>,
) -> Result<[Encodings; 2], Error> {
    let most = match length {
        RowLength::AtMost(most) => most,
        RowLength::Packed(_) => usize::MAX,
    };
    let mut sides = [EncodingsFile::new()?, EncodingsFile::new()?];
    let mut write = |rows: &mut Vec<Row>, all: bool| {
        let (mut parts, chosen) = ([Vec::new(), Vec::new()], second(rows, all));
        for (row, second) in rows.drain(..).zip(chosen) {
            parts[usize::from(second)].push(row);
        }
        for (side, part) in sides.iter_mut().zip(parts).filter(|(_, part)| !part.is_empty()) {
            side.append(&tokenizer.encode(&part, most)?)?;
        }
        Ok(())
    };
    let (mut window, mut bytes, mut first, mut failed) = (Vec::new(), 0, true, Ok(()));
    for_each_row(path, columns, |row| {
        // Written when another one comes, since then it is known that these are not all.
        if window.len() == WINDOW[0] || bytes > WINDOW[1] {
            failed = write(&mut window, false);
            (bytes, first) = (0, false);
        }
        bytes += row.text.len() + row.text_b.as_ref().map_or(0, String::len);
        window.push(row);
        if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    failed?;
    write(&mut window, first)?;
    let [one, other] = sides.map(EncodingsFile::finish);
    Ok([length.of(one?), length.of(other?)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> TextTokenizer {
        let folder = tempfile::tempdir().expect("a folder");
        let pieces: String = (0..10).map(|digit| format!("{digit}\n##{digit}\n")).collect();
        std::fs::write(folder.path().join("vocab.txt"), format!("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n{pieces}"))
            .expect("written");
        TextTokenizer::from_folder(folder.path()).expect("a tokenizer")
    }

    /// In a file of so many texts rows are those of the same texts in memory, in windows or in one.
    fn as_in_memory(count: usize) {
        let file = tempfile::Builder::new().suffix(".txt").tempfile().expect("a file");
        let texts: Vec<String> = (0..count).map(|number| format!("{} {number}", number * number)).collect();
        std::fs::write(file.path(), texts.join("\n")).expect("written");
        let (columns, tokenizer) = (Columns::default(), tokenizer());
        let rows = read_rows(file.path(), &columns).expect("rows");
        let held_out = hold_out(&rows, &vec![None; rows.len()]);
        let side = |second: bool| -> Vec<Row> {
            rows.iter()
                .zip(&held_out)
                .filter(|(_, held_out)| **held_out == second)
                .map(|(row, _)| row.clone())
                .collect()
        };
        for length in [RowLength::AtMost(8), RowLength::Packed(16)] {
            let of = |rows: &[Row]| match length {
                RowLength::AtMost(most) => tokenizer.encode(rows, most).expect("encodes"),
                RowLength::Packed(length) => tokenizer.encode(rows, usize::MAX).expect("encodes").packed(length),
            };
            assert!(encode_file(file.path(), &columns, &tokenizer, length).expect("encodes") == of(&rows));
            let [train, validation] = encode_and_hold_out(file.path(), &columns, &tokenizer, length).expect("encodes");
            assert!(train == of(&side(false)) && validation == of(&side(true)), "{count} {length:?}");
        }
    }

    /// Once nothing was held out of two large texts, and all of many that were the same.
    #[test]
    fn both_sides_have_rows_if_there_are_two_texts() {
        let file = tempfile::Builder::new().suffix(".txt").tempfile().expect("a file");
        let split = |text: &str| {
            std::fs::write(file.path(), text).expect("written");
            let sides = encode_and_hold_out(file.path(), &Columns::default(), &tokenizer(), RowLength::AtMost(8))
                .expect("encodes");
            sides.map(|side| side.len())
        };
        let long = "1 2 3 4 ".repeat(WINDOW[1] / 8 + 1);
        assert_eq!(split(&format!("{long}\n7 {long}\n")), [1, 1]);
        for number in 0..20 {
            assert_eq!(split(&format!("{number}\n").repeat(WINDOW[0] + 9)), [WINDOW[0] + 9, 0]);
        }
    }

    #[test]
    fn a_file_is_tokenised_as_its_rows_in_memory_are() {
        as_in_memory(3);
        as_in_memory(WINDOW[0]);
        as_in_memory(2 * WINDOW[0] + 5);
    }
}
