//! Near duplicates: MinHash signatures of a text's character n-grams, looked up by bands of them (locality-sensitive hashing).
//!
//! The one well-kept crate for it, `gaoya`, brings eight others; this is the textbook's algorithm (Broder 1997; Leskovec,
//! Rajaraman and Ullman, chapter 3), with a limit on what thousands of nearly equal texts cost.

use hashbrown::HashTable;

/// Hash functions of a signature. The similarity of two texts is the share of them whose minima agree: a standard error of
/// 0.035 at 0.8.
const HASHES: usize = 128;

/// Characters of an n-gram, and of one that begins with a Chinese or Japanese character, which says as much as a syllable.
const CHARACTERS: usize = 5;
const IDEOGRAPHS: usize = 2;

/// Two texts of the similarity that is asked for share a band at least this often.
const RECALL: f64 = 0.99;

/// Earlier texts of a band that one is compared with, the latest first: a limit on what thousands of nearly equal texts cost.
const COMPARED: usize = 64;

/// The minima of a text's n-grams, one for each hash function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signature(Box<[u32; HASHES]>);

/// The texts that were kept.
pub(super) struct NearTexts {
    threshold: f64,
    /// Hashes in a band.
    rows: usize,
    signatures: Vec<Signature>,
    /// For each band, the latest text of each value.
    bands: Vec<HashTable<u32>>,
    /// For each text and band, the one before it of the same value, or none.
    earlier: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl NearTexts {
    /// No texts yet; later ones are like these from a similarity of `threshold` on, from 0 to 1.
    pub(super) fn new(threshold: f64) -> Self {
        let rows = rows_of_a_band(threshold);
        let bands = std::iter::repeat_with(HashTable::new).take(HASHES / rows).collect();
        Self { threshold, rows, signatures: Vec::new(), bands, earlier: Vec::new() }
    }

    /// The number of a text that this one is like, by the order in which they were added: of several the one most like it, and of
    /// those the latest. Only texts that `counts` are looked at.
    pub(super) fn like(&self, signature: &Signature, counts: impl Fn(u32) -> bool) -> Option<u32> {
        let mut best: Option<(usize, u32)> = None;
        for band in 0..self.bands.len() {
            let values = self.band(signature, band);
            let mut next = self.bands[band].find(hash(values), |&text| self.values(text, band) == values).copied();
            for _ in 0..COMPARED {
                let Some(text) = next else { break };
                let same = signature.agreeing(&self.signatures[text as usize]);
                if same as f64 >= self.threshold * HASHES as f64 && best < Some((same, text)) && counts(text) {
                    best = Some((same, text));
                }
                next = Some(self.earlier[text as usize * self.bands.len() + band]).filter(|&text| text != NONE);
            }
        }
        best.map(|(_, text)| text)
    }

    /// Adds a text.
    pub(super) fn add(&mut self, signature: Signature) {
        let number = self.signatures.len() as u32;
        self.signatures.push(signature);
        let signatures = &self.signatures;
        let rows = self.rows;
        for (band, table) in self.bands.iter_mut().enumerate() {
            let values = |text: u32| &signatures[text as usize].0[band * rows..(band + 1) * rows];
            let wanted = values(number);
            let latest = table.find_mut(hash(wanted), |&text| values(text) == wanted);
            self.earlier.push(match latest {
                Some(latest) => std::mem::replace(latest, number),
                None => {
                    table.insert_unique(hash(wanted), number, |&text| hash(values(text)));
                    NONE
                }
            });
        }
    }

    fn values(&self, text: u32, band: usize) -> &[u32] {
        self.band(&self.signatures[text as usize], band)
    }

    fn band<'s>(&self, signature: &'s Signature, band: usize) -> &'s [u32] {
        &signature.0[band * self.rows..(band + 1) * self.rows]
    }
}

impl Signature {
    /// Of a pair, that of both texts together. Case, punctuation and spaces do not count.
    pub(super) fn of(text: &str, text_b: Option<&str>) -> Self {
        let mut minima = Box::new([u32::MAX; HASHES]);
        for text in [Some(text), text_b].into_iter().flatten() {
            let letters = letters(text);
            for start in 0..letters.len().max(1) {
                let size = match letters.get(start) {
                    Some(&c) if is_ideograph(c) => IDEOGRAPHS,
                    _ => CHARACTERS,
                };
                // Shorter texts are one n-gram.
                if start > 0 && start + size > letters.len() {
                    continue;
                }
                let gram = gram(&letters[start..letters.len().min(start + size)]);
                // An xor and a product, as in the last step of Murmur: vectorised, and as good as independent here.
                for (minimum, seed) in minima.iter_mut().zip(&SEEDS) {
                    let mixed = (gram ^ seed).wrapping_mul(0x9e37_79b1);
                    *minimum = (*minimum).min((mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca6b));
                }
            }
        }
        Self(minima)
    }

    fn agreeing(&self, other: &Self) -> usize {
        self.0.iter().zip(other.0.iter()).filter(|(one, other)| one == other).count()
    }
}

/// Letters and digits in lower case, with one space between words.
fn letters(text: &str) -> Vec<char> {
    let mut letters: Vec<char> = Vec::with_capacity(text.len());
    for c in text.chars() {
        match c.is_alphanumeric() {
            true if c.is_ascii() => letters.push(c.to_ascii_lowercase()),
            true => letters.extend(c.to_lowercase()),
            false if letters.last().is_some_and(|last| *last != ' ') => letters.push(' '),
            false => {}
        }
    }
    if letters.last() == Some(&' ') {
        letters.pop();
    }
    // What has no letters at all is itself.
    if letters.is_empty() { text.chars().collect() } else { letters }
}

fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// FNV-1a over the characters, mixed.
fn gram(letters: &[char]) -> u32 {
    let hash =
        letters.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, c| (hash ^ *c as u64).wrapping_mul(0x0100_0000_01b3));
    (hash ^ hash >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93).wrapping_shr(32) as u32
}

fn hash(values: &[u32]) -> u64 {
    let mixed = values.iter().fold(0x9e37_79b9_7f4a_7c15_u64, |hash, value| {
        (hash.rotate_left(5) ^ u64::from(*value)).wrapping_mul(0xd6e8_feb8_6659_fd93)
    });
    mixed ^ mixed >> 32
}

/// The most hashes to a band with which texts of this similarity are still found.
fn rows_of_a_band(threshold: f64) -> usize {
    let found = |rows: usize| 1.0 - (1.0 - threshold.powi(rows as i32)).powi((HASHES / rows) as i32);
    (1..=32).rev().find(|&rows| found(rows) >= RECALL).unwrap_or(1)
}

/// Random numbers that are always the same: SplitMix64.
const SEEDS: [u32; HASHES] = {
    let mut seeds = [0; HASHES];
    let mut state = 42_u64;
    let mut at = 0;
    while at < HASHES {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        seeds[at] = (mixed >> 32) as u32;
        at += 1;
    }
    seeds
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn like(texts: &[&str], text: &str, threshold: f64) -> Option<u32> {
        let mut near = NearTexts::new(threshold);
        texts.iter().for_each(|text| near.add(Signature::of(text, None)));
        near.like(&Signature::of(text, None), |_| true)
    }

    #[test]
    fn texts_that_differ_little_are_found_and_others_not() {
        let texts = [
            "When will my new card arrive? I have been waiting for it for over two weeks now",
            "The exchange rate that you applied to my purchase in Norway seems to be wrong",
            "我昨天在北京的酒店订了一个房间，想知道明天早上几点可以吃早饭",
        ];
        for (text, expected) in [
            ("when will my new card arrive, I have been waiting for it for over two weeks now!", Some(0)),
            ("When will my new card arrive? I have been waiting for it for over three weeks now", Some(0)),
            ("我昨天在北京的酒店订了一个房间，想知道明天早上几点能吃早饭？", Some(2)),
            ("When does the library close on Sundays? I would like to bring my books back", None),
            ("", None),
        ] {
            assert_eq!(like(&texts, text, 0.8), expected, "{text}");
        }
        assert_eq!(like(&["..."], "...", 0.8), Some(0));
        assert_eq!(like(&["..."], "???", 0.8), None);
        assert_eq!(like(&["ok"], "OK", 1.0), Some(0));
    }

    #[test]
    fn a_pair_is_like_a_pair() {
        let signature = |a, b| Signature::of(a, Some(b));
        let mut near = NearTexts::new(0.8);
        near.add(signature("is the library open on sunday morning", "the library opens at ten every day of the week"));
        let found = near.like(
            &signature("Is the library open on Sunday morning?", "The library opens at ten every day of the week."),
            |_| true,
        );
        assert_eq!(found, Some(0));
        assert_eq!(near.like(&Signature::of("is the library open on sunday morning", None), |_| true), None);
        assert_eq!(
            near.like(
                &signature("is the library open on sunday morning", "the library opens at ten every day of the week"),
                |_| false
            ),
            None
        );
    }

    /// What signatures say against what the sets of n-grams say. Standard error 0.044 at 0.5; the largest error of these was 0.09.
    #[test]
    fn similarity_is_that_of_the_sets() {
        let words =
            ["card", "transfer", "balance", "rate", "please", "help", "account", "money", "weekend", "currency"];
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let grams = |text: &str| letters(text).windows(CHARACTERS).map(<[char]>::to_vec).collect::<HashSet<_>>();
        for _ in 0..60 {
            let one: Vec<&str> = (0..30).map(|_| words[random(words.len())]).collect();
            let mut other = one.clone();
            (0..random(20)).for_each(|_| other[random(30)] = words[random(words.len())]);
            let (one, other) = (one.join(" "), other.join(" "));
            let (a, b) = (grams(&one), grams(&other));
            let exact = a.intersection(&b).count() as f64 / a.union(&b).count() as f64;
            let estimate = Signature::of(&one, None).agreeing(&Signature::of(&other, None)) as f64 / HASHES as f64;
            assert!((exact - estimate).abs() < 0.16, "{exact} {estimate}");
        }
    }

    #[test]
    fn bands_follow_from_the_similarity_that_is_asked_for() {
        // 1 - (1 - 0.8^6)^21 = 0.998, 1 - (1 - 0.8^7)^18 = 0.985
        assert_eq!(rows_of_a_band(0.8), 6);
        assert_eq!(rows_of_a_band(0.5), 3);
        assert_eq!(rows_of_a_band(1.0), 32);
    }
}
