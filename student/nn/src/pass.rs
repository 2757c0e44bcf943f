//! A forward pass: the values at its taps, and the gradients for its backward pass.

use std::any::Any;

use crate::value::Tap;
use crate::{DropoutRng, EncoderConfig, Error, Head};

/// A packed batch: `B` rows with `T` tokens in all, without padding.
#[derive(Clone, Copy, Debug)]
pub struct PackedInput<'a> {
    /// Token ids, `[T]`.
    pub input_ids: &'a [u32],
    /// Token types (segments), `[T]`; ignored by models without token types.
    pub token_type_ids: &'a [u32],
    /// Offsets of the rows, `[B + 1]`: row `b` is the tokens `starts[b]..starts[b + 1]`.
    pub starts: &'a [u32],
    /// The tokens for which a masked-language-model head computes logits, as ascending indices into the batch, `[P]`;
    /// may be empty. `None` for a classification head, which reads the first token of each row.
    pub positions: Option<&'a [u32]>,
}

/// Training or evaluation.
#[derive(Clone, Copy, Debug)]
pub enum Mode<'a> {
    /// Dropout with these masks; keeps everything that the backward pass needs.
    Train(&'a DropoutRng),
    /// No dropout; keeps nothing for a backward pass.
    Eval,
}

/// A forward pass. In training mode it can be used for one backward pass, which consumes it.
pub struct Pass {
    /// In the order of the program.
    pub(crate) taps: Vec<Tapped>,
    /// What the engine keeps of it; nothing of one in evaluation mode on the CPU.
    pub(crate) kept: Option<Box<dyn Any + Send>>,
}

/// A tap that was requested from a pass.
pub(crate) struct Tapped {
    pub(crate) tap: Tap,
    pub(crate) rows: usize,
    pub(crate) width: usize,
    /// `[rows, width]` of a pass on the CPU, until it is read.
    pub(crate) value: Vec<f32>,
    /// Whether the value was read.
    read: bool,
    /// The gradient that enters here.
    pub(crate) gradient: Option<Vec<f32>>,
}

impl Tapped {
    pub(crate) fn new(tap: Tap, rows: usize, width: usize, filled: bool) -> Self {
        Self { tap, rows, width, value: vec![0.0; if filled { rows * width } else { 0 }], read: false, gradient: None }
    }
}

impl Pass {
    /// Sets the gradient of a loss with respect to the value at a tap, replacing an earlier one. Without a call it is
    /// zero.
    ///
    /// # Shapes
    /// - `gradient`: that of the tap's value
    ///
    /// # Errors
    /// A tap that was not requested in the forward pass, or a gradient of the wrong length.
    pub fn enter(&mut self, tap: Tap, gradient: Vec<f32>) -> Result<(), Error> {
        let tapped = self.tapped(tap)?;
        let expected = tapped.rows * tapped.width;
        if gradient.len() != expected {
            let what = if tap == Tap::Logits { tap.to_string() } else { format!("values at the tap `{tap}`") };
            return Err(Error::Batch(format!("{} gradients for {expected} {what}", gradient.len())));
        }
        tapped.gradient = Some(gradient);
        Ok(())
    }

    /// What the engine of this type of passes keeps.
    pub(crate) fn kept<T: 'static>(&self) -> Result<&T, Error> {
        self.kept.as_ref().and_then(|kept| kept.downcast_ref()).ok_or(Error::NoForward)
    }

    pub(crate) fn kept_mut<T: 'static>(&mut self) -> Result<&mut T, Error> {
        self.kept.as_mut().and_then(|kept| kept.downcast_mut()).ok_or(Error::NoForward)
    }

    pub(crate) fn into_kept<T: 'static>(self) -> Result<(Vec<Tapped>, T), Error> {
        let kept = self.kept.and_then(|kept| kept.downcast().ok()).ok_or(Error::NoForward)?;
        Ok((self.taps, *kept))
    }

    /// A tap of this pass, to be read now and not again.
    pub(crate) fn read(&mut self, tap: Tap) -> Result<&mut Tapped, Error> {
        let tapped = self.tapped(tap)?;
        match std::mem::replace(&mut tapped.read, true) {
            true => Err(Error::AlreadyRead { tap: tap.to_string() }),
            false => Ok(tapped),
        }
    }

    /// A tap of this pass.
    pub(crate) fn tapped(&mut self, tap: Tap) -> Result<&mut Tapped, Error> {
        let asked: Vec<String> = self.taps.iter().map(|tapped| tapped.tap.to_string()).collect();
        let tapped = self.taps.iter_mut().find(|tapped| tapped.tap == tap);
        tapped.ok_or_else(|| Error::NotAsked { tap: tap.to_string(), asked: asked.join(", ") })
    }
}

impl PackedInput<'_> {
    /// Checks ids, types, lengths and positions against the model.
    pub(crate) fn check(self, config: &EncoderConfig) -> Result<(), Error> {
        let PackedInput { input_ids, token_type_ids, starts, positions } = self;
        if starts.len() < 2 || starts[0] != 0 || starts[starts.len() - 1] as usize != input_ids.len() {
            return Err(Error::Batch(format!("starts do not span the {} tokens", input_ids.len())));
        }
        if token_type_ids.len() != input_ids.len() {
            return Err(Error::Batch(format!("{} token types for {} tokens", token_type_ids.len(), input_ids.len())));
        }
        let limit = config.max_length();
        for (row, pair) in starts.windows(2).enumerate() {
            let length = pair[1].saturating_sub(pair[0]) as usize;
            if length == 0 || length > limit {
                return Err(Error::RowLength { row, length, limit });
            }
        }
        if let Some(position) = input_ids.iter().position(|&id| id as usize >= config.vocab_size) {
            let id = input_ids[position];
            return Err(Error::TokenOutOfRange { id, position, vocabulary: config.vocab_size });
        }
        let types = config.type_vocab_size;
        if let Some(found) = token_type_ids.iter().find(|&&id| types > 0 && id as usize >= types) {
            return Err(Error::Batch(format!("token type {found}, the model has {types}")));
        }
        match (config.head, positions) {
            (Head::Classification, None) => Ok(()),
            (Head::Classification, Some(_)) => Err(Error::Batch(
                "token positions, and the model has a classification head, which reads first tokens".into(),
            )),
            (Head::MaskedLm, None) => {
                Err(Error::Batch("a masked-language model reads token positions: none given".into()))
            }
            (Head::MaskedLm, Some(positions)) => {
                let ascending = positions.windows(2).all(|pair| pair[0] < pair[1]);
                let within = positions.last().is_none_or(|&last| (last as usize) < input_ids.len());
                match ascending && within {
                    true => Ok(()),
                    false => {
                        Err(Error::Batch(format!("positions that do not ascend below {} tokens", input_ids.len())))
                    }
                }
            }
        }
    }
}
