//! Embeddings: rows of tables looked up and added, with the norm behind them or without, and the gradients of the tables.

use crate::cuda::op::call::{Call, Mask};
use crate::cuda::op::norm::launch::{NormWeights, norm_partials, norm_rows};
use crate::cuda::operand::{Matrix, Vector, Words};

operation! {
    /// `out =` the sum of what each token looks up.
    EmbedSum(typed!("embed_sum")) over out as [tokens, width] {
        /// In the order in which they are added; the first is there.
        lookups: [Option<Lookup>; 3] = lookups[tokens, width],
        out: Matrix = activations[tokens, width],
    } sizes(tokens, width) launch_matrix(tokens, width)
}

operation! {
    /// `sum =` the sum of what each token looks up, `out = dropout(norm(sum))`.
    EmbedNormForward(typed!("embed_norm_forward")) over out as [tokens, width] {
        /// As above.
        lookups: [Option<Lookup>; 3] = lookups[tokens, width],
        norm: NormWeights = norm[width],
        mask: Mask = mask[],
        /// Whether a backward pass will want the sum.
        keeps_sum: bool = flag[],
        sum: Matrix = activations[tokens, width],
        mean: Vector = vector[tokens],
        rstd: Vector = vector[tokens],
        out: Matrix = activations[tokens, width],
    } sizes(tokens, width) launch_norm(tokens, width, by_vectors!("embed_norm_forward"))
}

operation! {
    /// Backward of [`EmbedNormForward`]'s dropout and norm.
    EmbedNormBackward(typed!("embed_norm_backward")) over d_out as [tokens, width] {
        d_out: Matrix = activations[tokens, width],
        /// As forward left it; so are the next two.
        sum: Matrix = activations[tokens, width],
        mean: Vector = vector[tokens],
        rstd: Vector = vector[tokens],
        norm_weight: Vector = vector[width],
        normalises: bool = flag[],
        mask: Mask = mask[],
        /// `f32`
        d_sum: Matrix = floats[tokens, width],
        /// Sums for the gradients of the norm's weight and bias; `f32`.
        partials: Matrix = floats[norm_partials(tokens, width), 2 * width],
    } sizes(tokens, width, norm_rows(tokens, width))
        launch_norm_backward(tokens, width, typed!("embed_norm_backward_whole"))
}

operation! {
    /// Adds to each row of a table's gradient what the tokens that looked it up have. All `f32`.
    LookupGradient(["lookup_gradient"; 2])
    over d as [tokens, width], table_rows as [segments], gradient as [all, _] {
        d: Matrix = floats[tokens, width],
        /// Tokens sorted by the row that they looked up.
        order: Words = words[tokens],
        /// Where in `order` each looked-up row begins.
        segments: Words = words[segments + 1],
        table_rows: Words = words[segments],
        gradient: Matrix = floats[all, width],
    // Most words of a batch are looked up once or twice, positions by every row, types by every token.
    } sizes(width) launch(
        [segments, width.div_ceil(128), 1],
        32 * (tokens / segments.max(1)).next_power_of_two().clamp(4, 32),
        0
    )
}

/// A table `f32 [., W]`, and which of its rows each token looks up, `[T]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lookup {
    pub(crate) rows: Words,
    pub(crate) table: Matrix,
}

impl Call<'_> {
    fn lookups(self, name: &str, lookups: [Option<Lookup>; 3], [tokens, width]: [usize; 2]) -> Self {
        lookups.into_iter().fold(self, |call, lookup| {
            let (rows, table) = lookup.map(|Lookup { rows, table }| (rows, table)).unzip();
            let shape = [table.map_or(0, |table| table.rows), width];
            call.words(name, rows, [tokens]).floats(name, table, shape)
        })
    }
}
