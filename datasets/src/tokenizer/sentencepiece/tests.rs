//! A sentencepiece model is read whole or refused.

use super::*;
use proptest::prelude::*;

/// A field of bytes.
fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        field.push(length as u8 | 0x80);
        length >>= 7;
    }
    field.push(length as u8);
    [&field, content].concat()
}

fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
    let score = [&[2 << 3 | 5][..], &score.to_le_bytes()].concat();
    bytes(1, &[bytes(1, text.as_bytes()), score, vec![3 << 3, kind]].concat())
}

fn model() -> Vec<u8> {
    let pieces = [piece("<unk>", 0.0, 2), piece("<s>", 0.0, 3), piece("▁long", -1.5, 1), piece("word", -2.5, 4)];
    // model_type 1, unk_id 300 in two bytes of a number, and a field that nothing reads.
    let trainer = bytes(2, &[&[3 << 3, 1, 0xc0, 0x02, 0xac, 0x02][..], &bytes(1, b"input.txt")].concat());
    let normalizer = bytes(3, &bytes(2, &[7; 200]));
    [pieces.concat(), trainer, normalizer].concat()
}

#[test]
fn pieces_algorithm_and_charsmap_are_read() {
    let read = SentencePiece::parse(&model(), "spiece.model").unwrap();
    let expected = [
        ("<unk>", 0.0, PieceKind::Other),
        ("<s>", 0.0, PieceKind::Control),
        ("▁long", -1.5, PieceKind::Other),
        ("word", -2.5, PieceKind::UserDefined),
    ];
    let expected = expected.map(|(text, score, kind)| Piece { text: text.to_owned(), score, kind });
    assert_eq!(read.pieces, expected);
    assert_eq!((read.algorithm, read.unk_id, read.charsmap), (Algorithm::Unigram, 300, vec![7; 200]));
}

#[test]
fn a_file_cut_short_is_refused_wherever_it_ends() {
    let whole = model();
    for end in 0..whole.len() {
        let error = SentencePiece::parse(&whole[..end], "spiece.model").unwrap_err().to_string();
        assert!(error.starts_with("spiece.model: not a whole sentencepiece model: "), "{end}: {error}");
        assert!(error.contains("download the file again"), "{error}");
    }
}

#[test]
fn a_page_in_the_place_of_the_file_is_refused() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n";
    assert!(SentencePiece::parse(pointer, "spm.model").unwrap_err().to_string().contains("spm.model"));
    let not_finite = [piece("a", f32::NAN, 1), model()].concat();
    assert!(SentencePiece::parse(&not_finite, "spm.model").unwrap_err().to_string().contains("its score is NaN"));
}

proptest! {
    #[test]
    fn no_bytes_bring_the_reader_down(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = SentencePiece::parse(&bytes, "spiece.model");
    }
}
