//! Holds out a tenth of the rows for validation, by a hash of the text and not by position.

use crate::Row;

/// Splits rows into training and validation rows, returned in that order; both keep the order of the file.
///
/// A row is held out if the BLAKE3 hash of its text, or of its pair of texts, is a multiple of ten. So a text is always
/// on the same side, however the file is shuffled, filtered or extended, and never on both. If one side would be empty,
/// only the text with the smallest hash is held out; if all rows have the same text, nothing is.
pub fn hold_out(rows: Vec<Row>) -> (Vec<Row>, Vec<Row>) {
    let hashes: Vec<u64> = rows.iter().map(hash).collect();
    let is_tenth = |hash: u64| hash.is_multiple_of(10);
    let tenths = hashes.iter().filter(|hash| is_tenth(**hash)).count();
    let smallest = hashes.iter().min().copied();
    let all_the_same = hashes.iter().max().copied() == smallest;
    let fallback = tenths == 0 || tenths == rows.len();

    let mut train = Vec::new();
    let mut validation = Vec::new();
    for (row, hash) in rows.into_iter().zip(hashes) {
        let held_out = if fallback { !all_the_same && Some(hash) == smallest } else { is_tenth(hash) };
        if held_out { validation.push(row) } else { train.push(row) }
    }
    (train, validation)
}

fn hash(row: &Row) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(row.text.len() as u64).to_le_bytes()).update(row.text.as_bytes());
    if let Some(text_b) = &row.text_b {
        hasher.update(text_b.as_bytes());
    }
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: String, line: usize) -> Row {
        Row { text, text_b: None, label: None, line }
    }

    #[test]
    fn holds_out_about_a_tenth_and_keeps_the_order() {
        let rows: Vec<Row> = (0..5000).map(|line| row(format!("text {line}"), line)).collect();
        let (train, validation) = hold_out(rows);
        assert_eq!(train.len() + validation.len(), 5000);
        assert!((400..600).contains(&validation.len()), "{}", validation.len());
        assert!(train.is_sorted_by_key(|row| row.line) && validation.is_sorted_by_key(|row| row.line));
    }

    #[test]
    fn a_text_stays_on_its_side_when_the_file_is_shuffled_or_repeats_it() {
        let rows: Vec<Row> = (0..300).map(|line| row(format!("text {}", line % 100), line)).collect();
        let texts = |rows: &[Row]| rows.iter().map(|row| row.text.clone()).collect::<std::collections::BTreeSet<_>>();
        let (train, validation) = hold_out(rows.clone());
        assert!(texts(&train).is_disjoint(&texts(&validation)));
        let (_, again) = hold_out(rows.into_iter().rev().collect());
        assert_eq!(texts(&validation), texts(&again));
    }

    #[test]
    fn a_small_file_still_leaves_rows_on_both_sides() {
        for first in 0..50 {
            let (train, validation) = hold_out((0..2).map(|line| row(format!("{first} {line}"), line)).collect());
            assert_eq!((train.len(), validation.len()), (1, 1));
        }
        let (train, validation) = hold_out(vec![row("same".into(), 1), row("same".into(), 2)]);
        assert_eq!((train.len(), validation.len()), (2, 0));
    }

    #[test]
    fn the_split_of_a_pair_depends_on_both_texts() {
        let pair = |a: &str, b: &str| Row { text: a.into(), text_b: Some(b.into()), label: None, line: 1 };
        assert_ne!(hash(&pair("ab", "c")), hash(&pair("a", "bc")));
        assert_ne!(hash(&pair("a", "b")), hash(&pair("a", "c")));
    }
}
