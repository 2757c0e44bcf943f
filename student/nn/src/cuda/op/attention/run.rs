//! [`Attention`](op::Attention) on a GPU.

use super::launch::{Attention, AttentionBackward, AttentionForward, Queries, SURVIVOR_WORDS};
use crate::Error;
use crate::cuda::batch::Batch;
use crate::cuda::operand::{Number, Precision, Words};
use crate::cuda::run::Run;
use crate::op::{self, Kind, Linear, Op};
use crate::program::Program;
use crate::slot::Slot;
use crate::value::Rows;

pub(in crate::cuda) fn forward(run: &Run<'_>, index: usize, op: &Op, attention: &op::Attention) -> Result<(), Error> {
    let context = run.value(op.out);
    let lse = run.state(index, 0, [context.rows, attention.heads], Number::F32);
    let mut parts = operands(run, index, op, attention).parts(run.batch.parts);
    parts.try_for_each(|attention| AttentionForward { attention, context, lse }.launch(run.device))
}

pub(in crate::cuda) fn backward(run: &Run<'_>, index: usize, op: &Op, attention: &op::Attention) -> Result<(), Error> {
    let context = run.value(op.out);
    let [d_query, d_key, d_value] = [0, 1, 2].map(|input| run.gradient_columns(op.inputs[input]));
    let operands = operands(run, index, op, attention);
    let bias = summed_bias(run, index);
    let partials = bias.map(|bias| (bias, run.partials([operands.sequences(), 3 * context.width])));
    for part in operands.parts(run.batch.parts) {
        AttentionBackward {
            attention: part,
            context,
            d_context: run.gradient(op.out),
            lse: run.state(index, 0, [context.rows, attention.heads], Number::F32),
            d_query,
            d_key,
            d_value,
            // Where there are parts, one has long sequences, and their kernel makes none.
            partials: partials.map(|(_, partials)| partials),
        }
        .launch(run.device)?;
    }
    partials.map_or(Ok(()), |(bias, partials)| run.reduce(partials, bias))
}

/// The biases whose gradient an attention's backward pass makes, as its kernel can for sequences that are not long.
pub(in crate::cuda::op) fn summed_bias(run: &Run<'_>, index: usize) -> Option<Slot> {
    let bias = joined_bias(&run.plan.program, index)?;
    let op = &run.plan.program.ops[index];
    let Kind::Attention(attention) = &op.kind else { return None };
    let sums = operands(run, index, op, attention).sums_gradients();
    sums.then_some(bias)
}

/// The biases of an attention's queries, keys and values, where one product makes all three and nobody else reads them.
pub(in crate::cuda) fn joined_bias(program: &Program, index: usize) -> Option<Slot> {
    let op = &program.ops[index];
    let (made, width) = (op.inputs[0].value, program.values[op.out.0].width);
    let side_by_side = op.inputs.iter().enumerate().all(|(i, x)| (x.value, x.first) == (made, i * width));
    let readers = program.ops.iter().filter(|reader| reader.inputs.iter().any(|x| x.value == made)).count();
    if !matches!(op.kind, Kind::Attention(_)) || !side_by_side || readers != 1 {
        return None;
    }
    let maker = program.ops.iter().find(|maker| maker.out == made)?;
    if let Kind::Linear(Linear { bias: Some(bias), .. }) = &maker.kind { Some(bias.first) } else { None }
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
