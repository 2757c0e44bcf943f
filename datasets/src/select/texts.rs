//! Rows that stand for others, by the similarity of their texts: the cosine of their hashed character n-grams.

use rayon::prelude::*;

use crate::{Row, sample};

/// Places that n-grams are hashed to.
const PLACES: usize = 4096;

/// Characters of an n-gram.
const LENGTHS: [usize; 2] = [3, 4];

/// Texts that a choice is judged by: more of them are represented by a sample, drawn by the seed.
const JUDGES: usize = 2000;

/// A candidate is the best of so many, times the rows that there are for each that is wanted: the best of all with a probability
/// of 0.9 or its equal (Mirzasoleiman et al., 2015, "Lazier Than Lazy Greedy", with `ln(1 / 0.1)`).
const CANDIDATES: f64 = std::f64::consts::LN_10;

/// The n-grams of texts.
pub struct Similarity {
    /// Of each text the places that it has, ascending, and how much it has there; of length 1.
    vectors: Vec<Vec<(u16, f32)>>,
}

impl Similarity {
    /// Of the texts of rows, small and capital letters alike; of a pair both.
    pub fn of(rows: &[Row]) -> Self {
        Self { vectors: rows.par_iter().map(vector).collect() }
    }

    /// So many rows, chosen one after the other so that those that are not chosen are as similar as possible to one that is:
    /// facility location. The order is that of their worth. Takes time in proportion to the rows, and ends early, with fewer, when
    /// `go_on` says so.
    pub fn representative(&self, wanted: usize, seed: u64, go_on: impl Fn() -> bool) -> Vec<usize> {
        let count = self.vectors.len();
        let judges: Vec<usize> = match count <= JUDGES {
            true => (0..count).collect(),
            false => sample(count, JUDGES, seed ^ 1),
        };
        let mut best = vec![0.0_f32; judges.len()];
        let mut left: Vec<usize> = sample(count, count, seed);
        let (mut chosen, wanted) = (Vec::new(), wanted.min(count));
        let of_each = ((count as f64 / wanted.max(1) as f64 * CANDIDATES).ceil() as usize).max(1);
        let mut first = 0;
        while chosen.len() < wanted && go_on() {
            // Others come into question for each one, in turn.
            first = if first + of_each <= left.len() { first } else { 0 };
            let candidates = &left[first..left.len().min(first + of_each)];
            let gains: Vec<f64> = candidates
                .par_iter()
                .map(|candidate| {
                    let dense = self.dense(*candidate);
                    let gains =
                        judges.iter().zip(&best).map(|(judge, best)| (self.product(*judge, &dense) - best).max(0.0));
                    gains.map(f64::from).sum()
                })
                .collect();
            // Of equals the first.
            let place = (0..gains.len()).rev().max_by(|a, b| gains[*a].total_cmp(&gains[*b])).unwrap_or(0);
            let row = left.swap_remove(first + place);
            let dense = self.dense(row);
            best.par_iter_mut().zip(&judges).for_each(|(best, judge)| *best = best.max(self.product(*judge, &dense)));
            chosen.push(row);
            first += of_each;
        }
        chosen
    }

    /// So many rows, each as different as possible from those before it: the centres of Gonzalez (1985). Unusual texts come first.
    /// Takes time in proportion to the rows times those wanted, and ends early when `go_on` says so.
    pub fn diverse(&self, wanted: usize, seed: u64, go_on: impl Fn() -> bool) -> Vec<usize> {
        let count = self.vectors.len();
        let mut nearest = vec![f32::NEG_INFINITY; count];
        let mut chosen: Vec<usize> = sample(count, 1.min(wanted), seed);
        while chosen.len() < wanted.min(count) && go_on() {
            let Some(last) = chosen.last().copied() else { break };
            let dense = self.dense(last);
            nearest
                .par_iter_mut()
                .enumerate()
                .for_each(|(row, nearest)| *nearest = nearest.max(self.product(row, &dense)));
            nearest[last] = f32::INFINITY;
            let next = (0..count).min_by(|a, b| nearest[*a].total_cmp(&nearest[*b]).then(a.cmp(b)));
            chosen.extend(next);
        }
        chosen
    }

    fn dense(&self, row: usize) -> Vec<f32> {
        let mut dense = vec![0.0; PLACES];
        self.vectors[row].iter().for_each(|(place, much)| dense[usize::from(*place)] = *much);
        dense
    }

    fn product(&self, row: usize, dense: &[f32]) -> f32 {
        self.vectors[row].iter().map(|(place, much)| much * dense[usize::from(*place)]).sum()
    }
}

fn vector(row: &Row) -> Vec<(u16, f32)> {
    let mut places = Vec::new();
    for text in [Some(&row.text), row.text_b.as_ref()].into_iter().flatten() {
        let characters: Vec<char> = format!(" {} ", text.to_lowercase()).chars().collect();
        for length in LENGTHS {
            places.extend(characters.windows(length).map(place));
        }
    }
    places.sort_unstable();
    let mut vector: Vec<(u16, f32)> = Vec::new();
    for place in places {
        match vector.last_mut() {
            Some((last, much)) if *last == place => *much += 1.0,
            _ => vector.push((place, 1.0)),
        }
    }
    // Often is not much more than once.
    vector.iter_mut().for_each(|(_, much)| *much = 1.0 + much.ln());
    let length = vector.iter().map(|(_, much)| much * much).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|(_, much)| *much /= length.max(f32::MIN_POSITIVE));
    vector
}

/// FNV-1a, folded.
fn place(ngram: &[char]) -> u16 {
    let hash = ngram.iter().fold(0x811c_9dc5_u32, |hash, c| (hash ^ *c as u32).wrapping_mul(0x0100_0193));
    ((hash ^ (hash >> 12) ^ (hash >> 24)) as usize % PLACES) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(texts: &[&str]) -> Vec<Row> {
        texts.iter().map(|text| Row { text: (*text).to_owned(), text_b: None, label: None, line: 1 }).collect()
    }

    #[test]
    fn one_of_each_kind_stands_for_all() {
        let kinds = ["where is my card today", "the weather in Oslo is cold", "play another song of that band"];
        let texts: Vec<String> =
            (0..60).map(|number| format!("{} {number}", kinds[if number < 40 { 0 } else { number % 2 + 1 }])).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let similarity = Similarity::of(&rows(&texts));
        let kind = |row: &usize| kinds.iter().position(|kind| texts[*row].starts_with(kind));
        for seed in 0..5 {
            for chosen in [similarity.representative(3, seed, || true), similarity.diverse(3, seed, || true)] {
                let mut found: Vec<_> = chosen.iter().map(kind).collect();
                found.sort_unstable();
                assert_eq!(found, [Some(0), Some(1), Some(2)], "{chosen:?}");
            }
            // The largest kind is worth most.
            assert_eq!(kind(&similarity.representative(3, seed, || true)[0]), Some(0));
        }
    }

    #[test]
    fn all_rows_are_a_choice_and_the_same_for_a_seed() {
        let texts = ["a", "b", "c", "a", "", "漢字"];
        let similarity = Similarity::of(&rows(&texts));
        for chosen in [similarity.representative(9, 1, || true), similarity.diverse(9, 1, || true)] {
            let mut all = chosen.clone();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4, 5]);
        }
        assert_eq!(similarity.representative(3, 2, || true), similarity.representative(3, 2, || true));
        assert!(similarity.representative(3, 2, || false).len() <= 1 && similarity.diverse(3, 2, || false).len() <= 1);
        assert!(similarity.representative(0, 2, || true).is_empty() && similarity.diverse(0, 2, || true).is_empty());
        assert!(
            Similarity::of(&[]).representative(3, 1, || true).is_empty()
                && Similarity::of(&[]).diverse(3, 1, || true).is_empty()
        );
    }
}
