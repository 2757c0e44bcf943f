//! A model's forward pass as a list of fused operations on values.
//!
//! A family describes its pass once, as a [`Program`]; the CPU and GPU engines run the list forward and, for training,
//! in reverse. No other code knows a model's architecture. Before an engine runs a program, it is
//! [reduced](Program::demanded) to what is read, linear maps of the same input are [joined](Program::join), and a
//! [`Plan`](places::Plan) assigns memory to every value.
//!
//! If several operations contribute to one gradient, the reversed list is the order of the sum: the first overwrites,
//! the others add.

mod demand;
mod join;
pub(crate) mod places;
mod stages;
pub(crate) mod trained;

use crate::op::{Activate, Attention, Decode, Embed, Kind, Linear, NormSlots, Op, ResidualNorm, Site};
use crate::slot::Slot;
use crate::value::{Columns, Rows, Tap, Value, ValueId};
use crate::{Activation, Error};

/// A list of operations; each comes after those whose outputs it reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    pub(crate) values: Vec<Value>,
    pub(crate) ops: Vec<Op>,
    /// Of a [stage](Program::stages): values that earlier ones have made.
    pub(crate) given: Vec<ValueId>,
    /// Values that later stages read.
    pub(crate) handed: Vec<ValueId>,
}

impl Program {
    /// Every token's embeddings, normalised and dropped out: see [`Embed`].
    pub(crate) fn embed(&mut self, embed: Embed, width: usize) -> ValueId {
        self.push(Kind::Embed(embed), &[], Rows::Tokens, width)
    }

    /// `input weight^T + bias`; the bias can also be added by the next operation: see [`Linear`].
    pub(crate) fn linear(&mut self, input: ValueId, weight: Slot, bias: Option<Slot>, outer: usize) -> ValueId {
        let Value { rows, width: inner } = self.values[input.0];
        let kind = Kind::Linear(Linear { weight: weight.into(), bias: bias.map(Into::into), inner });
        self.push(kind, &[input], rows, outer)
    }

    /// `activation(input + bias)`
    pub(crate) fn activate(&mut self, input: ValueId, bias: Slot, activation: Activation) -> ValueId {
        let Value { rows, width } = self.values[input.0];
        self.push(Kind::Activate(Activate { bias, activation }), &[input], rows, width)
    }

    /// Scaled dot-product attention of each text: see [`Attention`].
    pub(crate) fn attention(&mut self, [query, key, value]: [ValueId; 3], attention: Attention) -> ValueId {
        let Value { rows, width } = self.values[query.0];
        self.push(Kind::Attention(attention), &[query, key, value], rows, width)
    }

    /// `norm(dropout(branch + bias) + residual)`: see [`ResidualNorm`].
    pub(crate) fn residual_norm(&mut self, branch: ValueId, residual: ValueId, norm: ResidualNorm) -> ValueId {
        let Value { rows, width } = self.values[branch.0];
        self.push(Kind::ResidualNorm(norm), &[branch, residual], rows, width)
    }

    /// Layer norm, or scale and shift only: see [`NormSlots`].
    pub(crate) fn norm(&mut self, input: ValueId, norm: NormSlots) -> ValueId {
        let Value { rows, width } = self.values[input.0];
        self.push(Kind::Norm(norm), &[input], rows, width)
    }

    /// Dropout; elements are numbered by the value's own rows.
    pub(crate) fn dropout(&mut self, input: ValueId, site: Option<Site>) -> ValueId {
        let Value { rows, width } = self.values[input.0];
        match site {
            Some(site) => self.push(Kind::Dropout(site), &[input], rows, width),
            None => input,
        }
    }

    /// Logits over a vocabulary: see [`Decode`].
    pub(crate) fn decode(&mut self, input: ValueId, decode: Decode, vocabulary: usize) -> ValueId {
        self.push(Kind::Decode(decode), &[input], self.values[input.0].rows, vocabulary)
    }

    /// Concatenates for each token the rows of the next token, the token itself and the previous one.
    pub(crate) fn trigram(&mut self, input: ValueId) -> ValueId {
        let Value { rows, width } = self.values[input.0];
        self.push(Kind::Trigram, &[input], rows, 3 * width)
    }

    /// Selects some of the rows.
    pub(crate) fn select(&mut self, input: ValueId, rows: Rows) -> ValueId {
        self.push(Kind::Select(rows), &[input], rows, self.values[input.0].width)
    }

    /// Adds a tap, where a value can be read and a gradient can be set.
    pub(crate) fn tap(&mut self, tap: Tap, value: ValueId) {
        let Value { rows, width } = self.values[value.0];
        self.push(Kind::Tap(tap), &[value], rows, width);
    }

    fn push(&mut self, kind: Kind, inputs: &[ValueId], rows: Rows, width: usize) -> ValueId {
        let whole = |&value: &ValueId| Columns { value, first: 0, width: self.values[value.0].width };
        let inputs = inputs.iter().map(whole).collect();
        self.push_columns(kind, inputs, Value { rows, width })
    }

    fn push_columns(&mut self, kind: Kind, inputs: Vec<Columns>, value: Value) -> ValueId {
        let out = ValueId(self.values.len());
        self.values.push(value);
        self.ops.push(Op { kind, inputs, out });
        out
    }

    /// The taps with their operations, in the order of the list.
    pub(crate) fn taps(&self) -> impl Iterator<Item = (Tap, &Op)> {
        self.ops.iter().filter_map(|op| if let Kind::Tap(tap) = op.kind { Some((tap, op)) } else { None })
    }

    /// Inner and outer size of each linear map of the first layer.
    pub(crate) fn layer_products(&self) -> impl Iterator<Item = (usize, usize)> {
        self.ops.iter().filter_map(|op| match &op.kind {
            Kind::Linear(linear) if matches!(linear.weight.first, Slot::Layer(0, _)) => {
                Some((linear.inner, self.values[op.out.0].width))
            }
            _ => None,
        })
    }

    /// Whether a value is the query input of an attention.
    pub(crate) fn is_query(&self, value: ValueId) -> bool {
        self.ops.iter().any(|op| matches!(op.kind, Kind::Attention(_)) && op.inputs[0].value == value)
    }

    /// An error, which lists the available taps, if the program does not have this one.
    pub(crate) fn check_tap(&self, tap: Tap) -> Result<(), Error> {
        if self.taps().any(|(other, _)| other == tap) {
            return Ok(());
        }
        let mut taps: Vec<Tap> = self.taps().map(|(tap, _)| tap).collect();
        taps.sort();
        let known: Vec<String> = taps
            .chunk_by(|a, b| std::mem::discriminant(a) == std::mem::discriminant(b))
            .map(|kin| match kin {
                [one] => one.to_string(),
                _ => format!("{} to {}", kin[0], kin[kin.len() - 1].to_string().rsplit(' ').next().unwrap_or_default()),
            })
            .collect();
        Err(Error::NoTap { tap: tap.to_string(), known: known.join(", ") })
    }
}
