//! Mistakes of hands and of machines: within so large a part of the words, one character each.

use super::{Draw, Text, Vary};

/// Characters that a word needs for a mistake in it: of shorter ones nothing would be left to recognise.
const SHORTEST: usize = 4;

/// Two neighbours exchanged, one left out, or one doubled; the first character of a word stays.
#[derive(Debug, Clone, Copy)]
pub struct Characters {
    /// Part of the words.
    pub rate: f64,
}

/// A letter or digit beside the right one, on a keyboard as in the United States.
#[derive(Debug, Clone, Copy)]
pub struct Keyboard {
    /// Part of the words.
    pub rate: f64,
}

/// Characters that optical recognition takes for each other.
#[derive(Debug, Clone, Copy)]
pub struct Ocr {
    /// Part of the words.
    pub rate: f64,
}

impl Vary for Characters {
    fn vary(&self, text: &Text<'_>, draw: &mut Draw) -> Option<String> {
        in_words(
            text,
            self.rate,
            draw,
            |word| word.chars().count() >= SHORTEST,
            |word, draw| {
                let mut characters: Vec<char> = word.chars().collect();
                let place = 1 + draw.below(characters.len() - 1);
                match draw.below(3) {
                    0 => characters.swap(place, if place + 1 < word.chars().count() { place + 1 } else { place - 1 }),
                    1 => drop(characters.remove(place)),
                    _ => characters.insert(place, characters[place]),
                }
                characters.into_iter().collect()
            },
        )
    }
}

/// The rows of keys, each shifted to the right by half a key against the one above.
const KEYS: [&str; 4] = ["1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm"];

/// The keys beside a key, above it and below it.
fn neighbours(key: char) -> Vec<char> {
    let place =
        KEYS.iter().enumerate().find_map(|(row, keys)| keys.chars().position(|other| other == key).map(|at| (row, at)));
    let Some((row, column)) = place else { return Vec::new() };
    let at = |row: Option<usize>, column: Option<usize>| KEYS.get(row?)?.chars().nth(column?);
    let (left, right, here) = (column.checked_sub(1), Some(column + 1), Some(column));
    let (above, below) = (row.checked_sub(1), Some(row + 1));
    let around = [
        at(Some(row), left),
        at(Some(row), right),
        at(above, here),
        at(above, right),
        at(below, left),
        at(below, here),
    ];
    around.into_iter().flatten().collect()
}

impl Vary for Keyboard {
    fn vary(&self, text: &Text<'_>, draw: &mut Draw) -> Option<String> {
        let keys = |word: &str| -> Vec<usize> {
            let typed = word.char_indices().filter(|(_, c)| c.is_ascii_alphanumeric());
            typed.map(|(place, _)| place).collect()
        };
        let fits = |word: &str| word.chars().count() >= SHORTEST && !keys(word).is_empty();
        in_words(text, self.rate, draw, fits, |word, draw| {
            let place = *draw.one(&keys(word));
            let key = word.as_bytes()[place] as char;
            let wrong = *draw.one(&neighbours(key.to_ascii_lowercase()));
            let wrong = if key.is_ascii_uppercase() { wrong.to_ascii_uppercase() } else { wrong };
            format!("{}{wrong}{}", &word[..place], &word[place + 1..])
        })
    }
}

/// What looks alike.
const ALIKE: [[&str; 2]; 20] = [
    ["0", "O"],
    ["0", "o"],
    ["1", "l"],
    ["1", "I"],
    ["l", "I"],
    ["i", "l"],
    ["5", "S"],
    ["5", "s"],
    ["8", "B"],
    ["2", "Z"],
    ["2", "z"],
    ["6", "b"],
    ["9", "g"],
    ["m", "rn"],
    ["d", "cl"],
    ["w", "vv"],
    ["e", "c"],
    ["n", "ri"],
    ["h", "b"],
    ["u", "v"],
];

/// The places of a word where something may be taken for something else, with how much of it and for what.
fn mistakable(word: &str) -> impl Iterator<Item = (usize, usize, &'static str)> {
    let pairs = ALIKE.iter().flat_map(|[one, other]| [(*one, *other), (*other, *one)]);
    pairs.flat_map(move |(right, wrong)| word.match_indices(right).map(move |(place, _)| (place, right.len(), wrong)))
}

/// A word in which one thing is taken for another.
fn misread(word: &str, (place, length, wrong): (usize, usize, &str)) -> String {
    format!("{}{wrong}{}", &word[..place], &word[place + length..])
}

impl Vary for Ocr {
    fn vary(&self, text: &Text<'_>, draw: &mut Draw) -> Option<String> {
        let fits = |word: &str| word.chars().nth(SHORTEST - 1).is_some() && mistakable(word).next().is_some();
        in_words(text, self.rate, draw, fits, |word, draw| {
            let number = draw.below(mistakable(word).count());
            mistakable(word).nth(number).map_or_else(|| word.to_owned(), |mistake| misread(word, mistake))
        })
    }
}

/// Changes so large a part of the words, of those that fit.
fn in_words(
    text: &Text<'_>,
    rate: f64,
    draw: &mut Draw,
    fits: impl Fn(&str) -> bool,
    change: impl Fn(&str, &mut Draw) -> String,
) -> Option<String> {
    let fitting: Vec<usize> = (0..text.len()).filter(|number| fits(text.word(*number))).collect();
    if fitting.is_empty() {
        return None;
    }
    let mut words: Vec<Option<String>> = vec![None; text.len()];
    for place in draw.several(text.part(rate), fitting.len()) {
        words[fitting[place]] = Some(change(text.word(fitting[place]), draw));
    }
    Some(text.with(|number| words[number].as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_neighbours_and_is_one_of_theirs() {
        for key in KEYS.concat().chars() {
            let around = neighbours(key);
            assert!(around.len() >= 2, "{key}: {around:?}");
            assert!(around.iter().all(|other| neighbours(*other).contains(&key)), "{key}: {around:?}");
        }
        let mut of_s = neighbours('s');
        of_s.sort_unstable();
        assert_eq!(of_s, ['a', 'd', 'e', 'w', 'x', 'z']);
        assert_eq!(neighbours('é'), []);
    }

    #[test]
    fn a_word_is_misread_in_one_place() {
        let mut readings: Vec<String> = mistakable("mod").map(|mistake| misread("mod", mistake)).collect();
        readings.sort();
        assert_eq!(readings, ["m0d", "mocl", "rnod"]);
        assert_eq!(mistakable("漢字").next(), None);
    }
}
