//! Holds a tenth of the rows of each class out for validation, by what they say and not by where they stand.

use crate::Row;
use std::collections::{BTreeMap, BTreeSet};

/// Texts of a class from which on at least one of them is held out.
const ENOUGH_TEXTS: usize = 10;

/// Which rows are held out for validation; `classes` has the class of each row, where it has one.
///
/// A row is held out when the BLAKE3 hash of its text, or of its pair of texts, is a multiple of ten, so that a text always
/// falls on the same side, however the file is shuffled, filtered or extended, and never on both. Each class is then looked
/// at by itself: of ten or more texts without such a hash the one with the smallest is held out all the same, and of texts
/// that all have one the one with the largest stays, so that every class is learned. Should nothing be held out by that,
/// the text with the smallest hash is whose classes have others; where there is none, nothing is.
pub fn hold_out(rows: &[Row], classes: &[Option<u32>]) -> Vec<bool> {
    let hashes: Vec<u64> = rows.iter().map(hash).collect();
    let all: BTreeSet<u64> = hashes.iter().copied().collect();
    let mut texts: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    for (hash, class) in hashes.iter().zip(classes) {
        if let Some(class) = class {
            texts.entry(*class).or_default().insert(*hash);
        }
    }
    let mut held_out: BTreeSet<u64> = all.iter().copied().filter(|hash| hash.is_multiple_of(10)).collect();
    let added: Vec<u64> = texts
        .values()
        .filter(|texts| texts.len() >= ENOUGH_TEXTS && texts.is_disjoint(&held_out))
        .filter_map(|texts| texts.first().copied())
        .collect();
    held_out.extend(added);
    // One text may be of several classes; what stays for one of them stays for all.
    let stay: Vec<u64> =
        texts.values().filter(|texts| texts.is_subset(&held_out)).filter_map(|texts| texts.last().copied()).collect();
    for text in &stay {
        held_out.remove(text);
    }
    if held_out.is_empty() || held_out.len() == all.len() {
        let spare = |hash: &u64| all.len() > 1 && !texts.values().any(|texts| texts.len() == 1 && texts.contains(hash));
        held_out = all.iter().copied().find(spare).into_iter().collect();
    }
    hashes.iter().map(|hash| held_out.contains(hash)).collect()
}

/// Whether the hash of a row alone says that it is held out, as it does of all rows but a few.
pub(crate) fn stands_out(row: &Row) -> bool {
    hash(row).is_multiple_of(10)
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

    fn row(text: String) -> Row {
        Row { text, text_b: None, label: None, line: 1 }
    }

    /// The texts on each side, to learn from and to validate on; a text on both is an error.
    fn split(texts: &[(String, Option<u32>)]) -> [BTreeSet<String>; 2] {
        let rows: Vec<Row> = texts.iter().map(|(text, _)| row(text.clone())).collect();
        let classes: Vec<Option<u32>> = texts.iter().map(|(_, class)| *class).collect();
        let mut sides = [BTreeSet::new(), BTreeSet::new()];
        for ((text, _), held_out) in texts.iter().zip(hold_out(&rows, &classes)) {
            sides[usize::from(held_out)].insert(text.clone());
        }
        assert!(sides[0].is_disjoint(&sides[1]));
        sides
    }

    fn numbered(count: usize, class: impl Fn(usize) -> Option<u32>) -> Vec<(String, Option<u32>)> {
        (0..count).map(|number| (format!("text {number}"), class(number))).collect()
    }

    #[test]
    fn holds_out_about_a_tenth_whatever_the_classes_are() {
        let [_, alike] = split(&numbered(5000, |_| None));
        assert!((400..600).contains(&alike.len()), "{}", alike.len());
        // Of classes with texts on both sides by their hashes, it is these hashes alone that decide.
        assert_eq!(split(&numbered(5000, |number| Some(number as u32 % 7)))[1], alike);
    }

    #[test]
    fn a_text_stays_on_its_side_when_the_file_is_shuffled_or_repeats_it() {
        let mut texts = numbered(300, |number| (number % 3 > 0).then_some(number as u32 % 40));
        texts.extend(texts.clone());
        let sides = split(&texts);
        texts.reverse();
        assert_eq!(split(&texts), sides);
    }

    #[test]
    fn every_class_is_learned_and_large_ones_are_validated() {
        for seed in 0..60 {
            // Classes of 1, 2, 12 and 30 texts.
            let class = |number| match number {
                0 => 0,
                1..3 => 1,
                3..15 => 2,
                _ => 3,
            };
            let texts: Vec<_> = (0..45).map(|number| (format!("{seed} {number}"), Some(class(number)))).collect();
            let [train, validation] = split(&texts);
            let has = |side: &BTreeSet<String>, wanted| {
                texts.iter().any(|(text, class)| *class == Some(wanted) && side.contains(text))
            };
            assert!((0..4).all(|class| has(&train, class)), "{seed}: {train:?}");
            assert!((2..4).all(|class| has(&validation, class)), "{seed}: {validation:?}");
        }
    }

    #[test]
    fn a_text_of_two_classes_stays_for_the_one_that_has_no_other() {
        for seed in 0..60 {
            let shared = (format!("{seed} shared"), Some(1));
            let mut texts: Vec<_> = (0..12).map(|number| (format!("{seed} {number}"), Some(0))).collect();
            texts.extend([shared.clone(), (shared.0.clone(), Some(0))]);
            assert!(split(&texts)[0].contains(&shared.0), "{seed}");
        }
    }

    #[test]
    fn a_small_file_still_leaves_rows_on_both_sides() {
        let file = |first: usize, classes: [Option<u32>; 3]| {
            let texts = classes.into_iter().enumerate().map(|(number, class)| (format!("{first} {number}"), class));
            split(&texts.collect::<Vec<_>>()).map(|side| side.len())
        };
        for first in 0..50 {
            assert_eq!(file(first, [None; 3]).iter().sum::<usize>(), 3);
            assert!(file(first, [None; 3]).iter().all(|&texts| texts > 0));
            assert_eq!(file(first, [Some(0), Some(1), Some(1)]), [2, 1]);
            assert_eq!(file(first, [Some(0), Some(1), Some(2)]), [3, 0], "each class has one text alone");
        }
        assert_eq!(split(&[("same".into(), None), ("same".into(), None)]).map(|side| side.len()), [1, 0]);
    }

    #[test]
    fn the_split_of_a_pair_depends_on_both_texts() {
        let pair = |a: &str, b: &str| Row { text: a.into(), text_b: Some(b.into()), label: None, line: 1 };
        assert_ne!(hash(&pair("ab", "c")), hash(&pair("a", "bc")));
        assert_ne!(hash(&pair("a", "b")), hash(&pair("a", "c")));
    }
}
