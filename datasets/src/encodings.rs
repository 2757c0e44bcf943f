//! A tokenised data set: all tokens in one flat buffer, so that ten million rows fit in a few gigabytes, or in a file, so that any
//! number of them does.

mod file;
mod flat;

use std::collections::BTreeSet;

pub use file::EncodingsFile;
use flat::Flat;

/// The cache key of a row: the first 128 bits of a hash of its token ids and type ids. See [`Encodings::key`].
pub type Key = [u8; 16];

/// The token ids and type ids of every row: truncated, with special tokens, without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encodings {
    ids: Flat<u32>,
    type_ids: Flat<u8>,
    /// One more than there are rows.
    starts: Vec<u64>,
    truncated: Vec<bool>,
    /// What truncated pairs lost, and what had a say in where they were cut: see [`Encodings::used_ids`].
    weighed: BTreeSet<u32>,
}

impl Default for Encodings {
    fn default() -> Self {
        Self::new()
    }
}

impl Encodings {
    /// An empty data set.
    pub fn new() -> Self {
        Self {
            ids: Flat::default(),
            type_ids: Flat::default(),
            starts: vec![0],
            truncated: Vec::new(),
            weighed: BTreeSet::new(),
        }
    }

    /// Rows with these token ids and type ids of 0, as of single texts that were not truncated.
    pub fn of_ids<R: AsRef<[u32]>>(rows: &[R]) -> Self {
        let mut encodings = Self::new();
        for row in rows {
            encodings.push(row.as_ref(), &vec![0; row.as_ref().len()], false);
        }
        encodings
    }

    pub(crate) fn push(&mut self, ids: &[u32], type_ids: &[u8], truncated: bool) {
        self.ids.extend(ids);
        self.type_ids.extend(type_ids);
        self.starts.push(self.ids.len() as u64);
        self.truncated.push(truncated);
    }

    pub(crate) fn weigh(&mut self, ids: impl Iterator<Item = u32>) {
        self.weighed.extend(ids);
    }

    /// Appends the rows of `other`.
    pub fn append(&mut self, other: &Self) {
        let offset = self.ids.len() as u64;
        self.ids.extend(&other.ids);
        self.type_ids.extend(&other.type_ids);
        self.starts.extend(other.starts.iter().skip(1).map(|start| start + offset));
        self.truncated.extend_from_slice(&other.truncated);
        self.weighed.extend(&other.weighed);
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.truncated.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.truncated.is_empty()
    }

    /// The token ids of a row.
    pub fn ids(&self, row: usize) -> &[u32] {
        &self.ids[self.span(row)]
    }

    /// The token type (segment) of each token of a row.
    pub fn type_ids(&self, row: usize) -> &[u8] {
        &self.type_ids[self.span(row)]
    }

    /// The number of tokens of a row.
    pub fn length(&self, row: usize) -> u32 {
        self.span(row).len() as u32
    }

    /// The number of tokens of each row.
    pub fn lengths(&self) -> Vec<u32> {
        (0..self.len()).map(|row| self.length(row)).collect()
    }

    /// The number of tokens of all rows together.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Whether a row was longer than the limit and has been truncated.
    pub fn truncated(&self, row: usize) -> bool {
        self.truncated[row]
    }

    /// The number of truncated rows.
    pub fn truncated_count(&self) -> usize {
        self.truncated.iter().filter(|truncated| **truncated).count()
    }

    /// The distinct token ids that a pruned vocabulary must keep so that every row is tokenised as before, ascending.
    /// Besides the ids of the rows these are the ids truncated from pairs, since where a pair is cut depends on the
    /// number of tokens of both texts.
    pub fn used_ids(&self) -> Vec<u32> {
        let all = || self.ids.iter().copied().chain(self.weighed.iter().copied());
        let mut used = vec![false; all().max().map_or(0, |largest| largest as usize + 1)];
        for id in all() {
            used[id as usize] = true;
        }
        (0..).zip(used).filter(|(_, used)| *used).map(|(id, _)| id).collect()
    }

    /// The key of a row in a cache of teacher outputs.
    ///
    /// The first 16 bytes of the BLAKE3 hash of, all little-endian and in this order: the number of tokens as a
    /// u32, each token id as a u32, each type id as a u32. So rows that are the same to a model share a key, and the
    /// position of a row in its file does not matter.
    pub fn key(&self, row: usize) -> Key {
        key_of(self.ids(row), self.type_ids(row))
    }

    /// All tokens, one behind the other, cut into rows of this many; the last one has what is left.
    pub fn packed(self, length: usize) -> Self {
        let tokens = self.tokens();
        let ends = (1..=tokens.div_ceil(length)).map(|row| (row * length).min(tokens) as u64);
        let starts: Vec<u64> = std::iter::once(0).chain(ends).collect();
        Self { truncated: vec![false; starts.len() - 1], starts, weighed: BTreeSet::new(), ..self }
    }

    /// The key of each row: see [`Encodings::key`].
    pub fn keys(&self) -> Vec<Key> {
        (0..self.len()).map(|row| self.key(row)).collect()
    }

    fn span(&self, row: usize) -> std::ops::Range<usize> {
        self.starts[row] as usize..self.starts[row + 1] as usize
    }
}

/// The key of a row with these ids: see [`Encodings::key`].
pub(crate) fn key_of(ids: &[u32], type_ids: &[u8]) -> Key {
    let mut bytes = Vec::with_capacity(4 + 8 * ids.len());
    bytes.extend_from_slice(&(ids.len() as u32).to_le_bytes());
    bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    bytes.extend(type_ids.iter().flat_map(|id| u32::from(*id).to_le_bytes()));
    let mut key = Key::default();
    key.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: &[(&[u32], &[u8])]) -> Encodings {
        let mut encodings = Encodings::new();
        for (ids, type_ids) in rows {
            encodings.push(ids, type_ids, false);
        }
        encodings
    }

    #[test]
    fn rows_come_back_as_they_were_pushed() {
        let mut encodings = of(&[(&[5, 6], &[0, 1]), (&[], &[])]);
        encodings.append(&of(&[(&[7], &[0]), (&[5, 9, 6], &[0, 0, 1])]));
        assert_eq!(encodings.len(), 4);
        assert_eq!((encodings.ids(0), encodings.type_ids(0)), (&[5, 6][..], &[0, 1][..]));
        assert!(encodings.ids(1).is_empty());
        assert_eq!(encodings.ids(2), [7]);
        assert_eq!((encodings.ids(3), encodings.type_ids(3)), (&[5, 9, 6][..], &[0, 0, 1][..]));
        assert_eq!(encodings.lengths(), [2, 0, 1, 3]);
        assert_eq!((encodings.tokens(), encodings.truncated_count()), (6, 0));
        assert_eq!(encodings.used_ids(), [5, 6, 7, 9]);
    }

    #[test]
    fn packed_rows_have_every_token_in_its_order() {
        let encodings = of(&[(&[1, 2, 3], &[0, 0, 1]), (&[4, 5], &[0, 0]), (&[6, 7, 8], &[0, 1, 1])]);
        let packed = encodings.packed(3);
        assert_eq!(packed.lengths(), [3, 3, 2]);
        assert_eq!((packed.ids(1), packed.type_ids(2)), (&[4, 5, 6][..], &[1, 1][..]));
        assert!(Encodings::new().packed(3).is_empty());
    }

    #[test]
    fn a_key_is_the_hash_of_count_ids_and_type_ids() {
        let encodings = of(&[(&[101, 0x0102_0304], &[0, 1])]);
        let bytes = [2, 0, 0, 0, 101, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0, 1, 0, 0, 0];
        assert_eq!(encodings.key(0), blake3::hash(&bytes).as_bytes()[..16]);
    }

    #[test]
    fn a_key_depends_on_what_is_read_and_not_on_where_the_row_stands() {
        let encodings = of(&[(&[1, 2], &[0, 0]), (&[1, 2], &[0, 1]), (&[1], &[0]), (&[1, 2], &[0, 0])]);
        assert_eq!(encodings.key(0), encodings.key(3));
        assert_ne!(encodings.key(0), encodings.key(1));
        assert_ne!(encodings.key(0), encodings.key(2));
    }
}
