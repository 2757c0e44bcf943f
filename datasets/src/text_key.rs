//! The key of a row by what it says: for answers that no tokenizer had a part in.

use crate::{Key, Row};
use std::borrow::Cow;

/// Keeps these keys apart from those of tokens.
const DOMAIN: &[u8] = b"distill: the text itself";

/// The key of a row by its texts alone, whatever a tokenizer makes of them.
///
/// The first 16 bytes of the BLAKE3 hash of the bytes `distill: the text itself`, the number of texts as one byte (1, or 2
/// of a pair), the bytes of the first text as their number (u64, little-endian) and themselves, and the bytes of the second.
/// A line end within a text counts as `\n` however it is spelled, since tables are read so.
pub fn text_key(row: &Row) -> Key {
    let text = with_unix_breaks(&row.text);
    let pair = row.text_b.as_deref().map(with_unix_breaks);
    let mut hasher = blake3::Hasher::new();
    hasher.update(DOMAIN).update(&[1 + u8::from(pair.is_some())]);
    hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    hasher.update(pair.unwrap_or_default().as_bytes());
    let mut key = Key::default();
    hasher.finalize_xof().fill(&mut key);
    key
}

fn with_unix_breaks(text: &str) -> Cow<'_, str> {
    match text.contains('\r') {
        true => Cow::Owned(text.replace("\r\n", "\n")),
        false => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str, text_b: Option<&str>) -> Key {
        text_key(&Row { text: text.to_owned(), text_b: text_b.map(str::to_owned), label: None, line: 1 })
    }

    #[test]
    fn a_key_is_of_the_texts_alone() {
        let row = Row { text: "a".to_owned(), text_b: None, label: None, line: 7 };
        assert_eq!(text_key(&row), key("a", None));
        assert_ne!(key("a", None), key("A", None));
        assert_ne!(key("a", None), key("a ", None));
    }

    #[test]
    fn a_pair_is_not_its_texts_in_one_nor_the_other_way_round() {
        let keys =
            [key("ab", None), key("a", Some("b")), key("b", Some("a")), key("ab", Some("")), key("", Some("ab"))];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key), "{at}");
        }
    }

    #[test]
    fn line_ends_count_alike() {
        assert_eq!(key("a\r\nb", Some("c\r\nd")), key("a\nb", Some("c\nd")));
        assert_ne!(key("a\nb", None), key("a b", None));
    }

    /// The bytes that caches hold: they may not change.
    #[test]
    fn keys_are_what_they_were() {
        let hex = |key: Key| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(key("my card", None)), "a6951335640a5288f38cfaa0d2475620");
        assert_eq!(hex(key("my card", Some("has gone"))), "539769f468fae21f55425bd018c57317");
    }
}
