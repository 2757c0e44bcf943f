//! The fused operations that programs are made of, one file each: what it computes, on which operands, how many
//! floating-point operations its products take, and the same in candle's operators for the twin.
//!
//! Its forward and backward passes are in `cpu/op` and `cuda/op`.

mod activate;
mod attention;
mod count;
mod decode;
mod dropout;
mod embed;
mod linear;
mod norm;
mod residual_norm;
mod row;
mod select;
mod site;
mod trigram;

pub(crate) use activate::Activate;
pub use activate::Activation;
pub(crate) use attention::Attention;
pub(crate) use count::{Lengths, Products};
pub(crate) use decode::Decode;
pub(crate) use embed::{Embed, Lookup, Positions, Table};
pub(crate) use linear::Linear;
pub(crate) use norm::NormSlots;
pub(crate) use residual_norm::ResidualNorm;
pub(crate) use row::Row;
pub(crate) use site::Site;

use candle_core::{Result, Tensor};

use crate::slot::Span;
use crate::value::{Columns, Rows, Tap, Value, ValueId};

/// An operation of a program.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    /// In the order given in the comments of [`Kind`].
    pub(crate) inputs: Vec<Columns>,
    pub(crate) out: ValueId,
}

/// What an operation computes.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// No input.
    Embed(Embed),
    Linear(Linear),
    Activate(Activate),
    /// Query, key, value.
    Attention(Attention),
    /// Branch, residual.
    ResidualNorm(ResidualNorm),
    Norm(NormSlots),
    Dropout(Site),
    Decode(Decode),
    /// Each token's row concatenated with its neighbours'.
    Trigram,
    /// Some of the rows of its input.
    Select(Rows),
    /// Its input, which can be read here, and where a gradient can be set.
    Tap(Tap),
}

impl Kind {
    /// The rows that it computes if these are needed.
    pub(crate) fn rows_made(&self, wanted: Rows) -> Rows {
        if matches!(self, Self::Embed(_) | Self::Trigram) { Rows::Tokens } else { wanted }
    }

    /// The rows of an input that these rows of the output need.
    pub(crate) fn rows_of_input(&self, input: usize, rows: Rows) -> Rows {
        match self {
            Self::Attention(_) if input > 0 => Rows::Tokens,
            Self::Trigram => Rows::Tokens,
            Self::Select(selected) => *selected,
            _ => rows,
        }
    }
}

impl Op {
    /// The parameters that it reads.
    pub(crate) fn parameters(&self) -> Vec<Span> {
        let of_norm = |norm: &NormSlots| [norm.weight, norm.bias].map(Span::from);
        match &self.kind {
            Kind::Embed(embed) => {
                let tables = embed.tables.iter().map(|table| table.slot.into());
                tables.chain(embed.norm.iter().flat_map(of_norm)).collect()
            }
            Kind::Linear(linear) => [Some(linear.weight), linear.bias].into_iter().flatten().collect(),
            Kind::Activate(activate) => vec![activate.bias.into()],
            Kind::ResidualNorm(ResidualNorm { bias, norm, .. }) => {
                of_norm(norm).into_iter().chain([(*bias).into()]).collect()
            }
            Kind::Norm(norm) => of_norm(norm).to_vec(),
            Kind::Decode(decode) => [decode.words, decode.rest, decode.bias].map(Span::from).to_vec(),
            Kind::Attention(_) | Kind::Dropout(_) | Kind::Trigram | Kind::Select(_) | Kind::Tap(_) => Vec::new(),
        }
    }

    /// Floating-point operations of the matrix products of its forward pass.
    pub(crate) fn products(&self, out: Value, lengths: &Lengths) -> Products {
        match &self.kind {
            Kind::Linear(linear) => linear.products(out, lengths),
            Kind::Decode(decode) => decode.products(out, lengths),
            Kind::Attention(_) => Attention::products(out, lengths),
            _ => Products::default(),
        }
    }

    /// Its output for one text, in candle's operators; the output has these rows.
    pub(crate) fn state(&self, rows: Rows, row: &Row<'_>, inputs: &[Tensor]) -> Result<Tensor> {
        match &self.kind {
            Kind::Embed(embed) => embed.state(row),
            Kind::Linear(linear) => linear.state(row, &inputs[0]),
            Kind::Activate(activate) => activate.state(row, &inputs[0]),
            Kind::Attention(attention) => attention.state(row, inputs),
            Kind::ResidualNorm(norm) => norm.state(row, &inputs[0], &inputs[1]),
            Kind::Norm(norm) => norm.state(row, &inputs[0]),
            Kind::Dropout(site) => dropout::state(*site, row, rows, &inputs[0]),
            Kind::Decode(decode) => decode.state(row, &inputs[0]),
            Kind::Trigram => trigram::state(&inputs[0]),
            Kind::Select(_) => select::state(rows, row, &inputs[0]),
            Kind::Tap(_) => Ok(inputs[0].clone()),
        }
    }
}
