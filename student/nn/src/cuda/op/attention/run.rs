//! [`Attention`](op::Attention) on a GPU.

use super::launch::{Attention, AttentionBackward, AttentionForward, Queries, SURVIVOR_WORDS};
use crate::Error;
use crate::cuda::batch::Batch;
use crate::cuda::operand::{Number, Precision, Words};
use crate::cuda::run::Run;
use crate::op::{self, Op};
use crate::value::Rows;

pub(in crate::cuda) fn forward(run: &Run<'_>, index: usize, op: &Op, attention: &op::Attention) -> Result<(), Error> {
    let context = run.value(op.out);
    let lse = run.state(index, 0, [context.rows, attention.heads], Number::F32);
    AttentionForward { attention: operands(run, index, op, attention), context, lse }.launch(run.device)
}

pub(in crate::cuda) fn backward(run: &Run<'_>, index: usize, op: &Op, attention: &op::Attention) -> Result<(), Error> {
    let context = run.value(op.out);
    let [d_query, d_key, d_value] = [0, 1, 2].map(|input| run.gradient_columns(op.inputs[input]));
    AttentionBackward {
        attention: operands(run, index, op, attention),
        context,
        d_context: run.gradient(op.out),
        lse: run.state(index, 0, [context.rows, attention.heads], Number::F32),
        d_query,
        d_key,
        d_value,
    }
    .launch(run.device)
}

fn operands(run: &Run<'_>, index: usize, op: &Op, attention: &op::Attention) -> Attention {
    let [query, key, value] = [0, 1, 2].map(|input| run.columns(op.inputs[input]));
    let Batch { rows, counting, asked, .. } = *run.batch;
    let queries = run.row_tokens(op.out).map(|tokens| match run.plan.program.values[op.out.0].rows {
        Rows::Positions => Queries { starts: asked.starts, tokens, most: asked.most },
        Rows::First | Rows::Tokens => Queries { starts: Words { len: rows + 1, ..counting }, tokens, most: 1 },
    });
    let mask = run.mask(attention.site);
    let survivors = (run.precision == Precision::Bf16 && mask.site.is_some()).then(|| {
        let [rows, width] = [query.rows, attention.heads * SURVIVOR_WORDS];
        Words { at: run.state(index, 1, [rows, width], Number::F32).at, len: rows * width }
    });
    Attention {
        query,
        key,
        value,
        starts: run.batch.starts,
        queries,
        heads: attention.heads,
        longest: run.batch.longest,
        mask,
        max_length: attention.max_length,
        survivors,
    }
}
