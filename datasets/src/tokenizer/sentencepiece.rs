//! Reads a sentencepiece model: the fields of its protocol buffer that a tokenizer is made of.
//!
//! Numbers of the fields: `src/sentencepiece_model.proto` of google/sentencepiece. Anything else in the file is skipped.

use super::error::bad;
use crate::Error;

/// What a sentencepiece model says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct SentencePiece {
    pub(super) pieces: Vec<Piece>,
    pub(super) algorithm: Algorithm,
    pub(super) unk_id: usize,
    /// The table of the normaliser, as it is.
    pub(super) charsmap: Vec<u8>,
}

/// A piece of the vocabulary; its id is its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: PieceKind,
}

/// What a piece is for, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    Control,
    UserDefined,
    /// Ordinary, unknown, unused, a byte.
    Other,
}

/// How texts are cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Algorithm {
    #[default]
    Unigram,
    Bpe,
    Other,
}

impl SentencePiece {
    /// Reads the file of this name.
    pub(super) fn parse(bytes: &[u8], file: &str) -> Result<Self, Error> {
        let wrong = |reason: String| {
            bad(file, format!("not a whole sentencepiece model: {reason}; copy or download the file again"))
        };
        let mut model = Self::default();
        let (mut trained, mut normalises) = (false, false);
        for field in (Fields { bytes, at: 0 }) {
            match field.map_err(wrong)? {
                (1, Value::Bytes(piece)) => model.pieces.push(
                    Piece::parse(piece).map_err(|reason| wrong(format!("piece {}: {reason}", model.pieces.len())))?,
                ),
                (2, Value::Bytes(spec)) => {
                    trained = true;
                    model.take_trainer(spec).map_err(wrong)?;
                }
                (3, Value::Bytes(spec)) => {
                    normalises = true;
                    for field in (Fields { bytes: spec, at: 0 }) {
                        if let (2, Value::Bytes(charsmap)) = field.map_err(wrong)? {
                            model.charsmap = charsmap.to_vec();
                        }
                    }
                }
                _ => {}
            }
        }
        // These stand behind the pieces, so a file that ends between two fields lacks them.
        for (there, what) in
            [(!model.pieces.is_empty(), "pieces"), (trained, "trainer_spec"), (normalises, "normalizer_spec")]
        {
            if !there {
                return Err(wrong(format!("it has {} pieces and no {what}", model.pieces.len())));
            }
        }
        Ok(model)
    }

    fn take_trainer(&mut self, spec: &[u8]) -> Result<(), String> {
        for field in (Fields { bytes: spec, at: 0 }) {
            match field? {
                (3, Value::Number(1)) => self.algorithm = Algorithm::Unigram,
                (3, Value::Number(2)) => self.algorithm = Algorithm::Bpe,
                (3, Value::Number(_)) => self.algorithm = Algorithm::Other,
                (40, Value::Number(id)) => {
                    self.unk_id = usize::try_from(id).map_err(|_| format!("unk_id is {id}"))?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Piece {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut piece = Self { text: String::new(), score: 0.0, kind: PieceKind::Other };
        for field in (Fields { bytes, at: 0 }) {
            match field? {
                (1, Value::Bytes(text)) => {
                    piece.text = String::from_utf8(text.to_vec()).map_err(|_| "not valid UTF-8".to_owned())?;
                }
                (2, Value::Fixed32(bits)) => piece.score = f32::from_bits(bits),
                (3, Value::Number(3)) => piece.kind = PieceKind::Control,
                (3, Value::Number(4)) => piece.kind = PieceKind::UserDefined,
                _ => {}
            }
        }
        match piece.score.is_finite() {
            true => Ok(piece),
            false => Err(format!("its score is {}", piece.score)),
        }
    }
}

/// The fields of a message of a protocol buffer, one after another.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What a field holds, by how it is written.
enum Value<'a> {
    Number(u64),
    Fixed32(u32),
    Fixed64,
    Bytes(&'a [u8]),
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.bytes.len();
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u64, Value<'a>), String> {
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => Value::Number(self.number()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = self.number()?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
            other => return Err(format!("byte {} begins no field (wire type {other})", self.at)),
        };
        match tag >> 3 {
            0 => Err(format!("byte {} begins no field (number 0)", self.at)),
            number => Ok((number, value)),
        }
    }

    /// Seven bits a byte, the lowest first.
    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(format!("a number before byte {} has no end", self.at))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let left = &self.bytes[self.at..];
        match usize::try_from(length).ok().filter(|&length| length <= left.len()) {
            Some(length) => {
                self.at += length;
                Ok(&left[..length])
            }
            None => Err(format!("it ends within a field, {length} bytes from byte {} on", self.at)),
        }
    }
}

#[cfg(test)]
mod tests;
