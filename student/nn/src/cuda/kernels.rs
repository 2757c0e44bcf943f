//! One function a kernel: grid, block and shared memory chosen, arguments in the kernel's order.
//!
//! What a kernel computes, and the shapes, stand at the kernel, in `student/nn/cuda`. Whoever calls answers for the
//! addresses: nothing is checked here. Activations are `bf16` or `f32` by the [`Precision`], masters and sums `f32`.

use super::device::{Arguments, Device, Launch, Precision, Ptr};
use crate::random::DropoutSite;
use crate::{Activation, Error};

/// A kernel's name for this type of activations.
macro_rules! typed {
    ($precision:expr, $name:literal) => {
        if $precision == Precision::Bf16 { concat!($name, "_bf16") } else { concat!($name, "_f32") }
    };
}

/// Rows that share one partial sum in the norms' backward kernels: enough blocks for a large GPU, few enough sums.
fn norm_rows(rows: usize) -> usize {
    rows.div_ceil(256).clamp(8, 64)
}

/// Partial sums of [`residual_norm_backward`] and [`embed_norm_backward`].
pub(crate) fn norm_partials(rows: usize) -> usize {
    rows.div_ceil(norm_rows(rows))
}

fn column_rows(rows: usize) -> usize {
    rows.div_ceil(128).max(16)
}

/// Partial sums of [`activation_backward`] and [`column_sum`].
pub(crate) fn column_partials(rows: usize) -> usize {
    rows.div_ceil(column_rows(rows))
}

/// Partial sums of [`sum_of_squares`].
pub(crate) const SUM_PARTIALS: usize = 1024;

#[allow(clippy::too_many_arguments, reason = "a kernel's operands")]
pub(crate) fn embed_norm_forward(
    device: &Device,
    precision: Precision,
    ids: Ptr,
    types: Ptr,
    positions: Ptr,
    word: Ptr,
    type_table: Ptr,
    position_table: Ptr,
    norm_weight: Ptr,
    norm_bias: Ptr,
    epsilon: f32,
    dropout: Option<DropoutSite>,
    tokens: usize,
    width: usize,
    sum: Ptr,
    mean: Ptr,
    rstd: Ptr,
    out: Ptr,
) -> Result<(), Error> {
    let arguments = Arguments::new().ptr(ids).ptr(types).ptr(positions).ptr(word).ptr(type_table).ptr(position_table);
    let arguments = arguments.ptr(norm_weight).ptr(norm_bias).f32(epsilon).dropout(dropout).size(tokens).size(width);
    let arguments = arguments.ptr(sum).ptr(mean).ptr(rstd).ptr(out);
    launch_norm_rows(device, typed!(precision, "embed_norm_forward"), tokens, width, &arguments)
}

#[allow(clippy::too_many_arguments, reason = "a kernel's operands")]
pub(crate) fn residual_norm_forward(
    device: &Device,
    precision: Precision,
    branch: Ptr,
    branch_bias: Ptr,
    residual: Ptr,
    norm_weight: Ptr,
    norm_bias: Ptr,
    epsilon: f32,
    dropout: Option<DropoutSite>,
    row_tokens: Ptr,
    rows: usize,
    width: usize,
    mean: Ptr,
    rstd: Ptr,
    out: Ptr,
) -> Result<(), Error> {
    let arguments = Arguments::new().ptr(branch).ptr(branch_bias).ptr(residual).ptr(norm_weight).ptr(norm_bias);
    let arguments = arguments.f32(epsilon).dropout(dropout).ptr(row_tokens).size(rows).size(width);
    let arguments = arguments.ptr(mean).ptr(rstd).ptr(out);
    launch_norm_rows(device, typed!(precision, "residual_norm_forward"), rows, width, &arguments)
}

#[allow(clippy::too_many_arguments, reason = "a kernel's operands")]
pub(crate) fn residual_norm_backward(
    device: &Device,
    precision: Precision,
    d_out: Ptr,
    sum: Ptr,
    mean: Ptr,
    rstd: Ptr,
    norm_weight: Ptr,
    dropout: Option<DropoutSite>,
    row_tokens: Ptr,
    rows: usize,
    width: usize,
    d_sum: Ptr,
    d_branch: Ptr,
    partials: Ptr,
) -> Result<(), Error> {
    let arguments = Arguments::new().ptr(d_out).ptr(sum).ptr(mean).ptr(rstd).ptr(norm_weight).dropout(dropout);
    let arguments = arguments.ptr(row_tokens).size(rows).size(width).size(norm_rows(rows));
    let arguments = arguments.ptr(d_sum).ptr(d_branch).ptr(partials);
    let kernel = typed!(precision, "residual_norm_backward");
    launch(device, kernel, [norm_partials(rows), 1], norm_threads(precision, width), 0, &arguments)
}

#[allow(clippy::too_many_arguments, reason = "a kernel's operands")]
pub(crate) fn embed_norm_backward(
    device: &Device,
    precision: Precision,
    d_out: Ptr,
    sum: Ptr,
    mean: Ptr,
    rstd: Ptr,
    norm_weight: Ptr,
    dropout: Option<DropoutSite>,
    tokens: usize,
    width: usize,
    d_sum: Ptr,
    partials: Ptr,
) -> Result<(), Error> {
    let arguments = Arguments::new().ptr(d_out).ptr(sum).ptr(mean).ptr(rstd).ptr(norm_weight).dropout(dropout);
    let arguments = arguments.size(tokens).size(width).size(norm_rows(tokens)).ptr(d_sum).ptr(partials);
    let kernel = typed!(precision, "embed_norm_backward");
    launch(device, kernel, [norm_partials(tokens), 1], norm_threads(precision, width), 0, &arguments)
}

/// `destination [width] +=` the sum of `partials [count, width]`.
pub(crate) fn reduce_partials(
    device: &Device,
    partials: Ptr,
    count: usize,
    width: usize,
    destination: Ptr,
) -> Result<(), Error> {
    let arguments = Arguments::new().ptr(partials).size(count).size(width).ptr(destination);
    launch(device, "reduce_partials", [width.div_ceil(32), 1], 256, 0, &arguments)
}

pub(crate) fn activation_forward(
    device: &Device,
    precision: Precision,
    activation: Activation,
    pre: Ptr,
    rows: usize,
    width: usize,
    out: Ptr,
) -> Result<(), Error> {
    let count = rows * width;
    let arguments = Arguments::new().i32(activation as i32).ptr(pre).u64(count as u64).ptr(out);
    launch_vectors(device, typed!(precision, "activation_forward"), count.div_ceil(lanes(precision)), &arguments)
}

#[allow(clippy::too_many_arguments, reason = "a kernel's operands")]
pub(crate) fn activation_backward(
    device: &Device,
    precision: Precision,
    activation: Activation,
    pre: Ptr,
    d: Ptr,
    rows: usize,
    width: usize,
    partials: Ptr,
) -> Result<(), Error> {
    let arguments = Arguments::new().i32(activation as i32).ptr(pre).ptr(d).size(rows).size(width);
    let arguments = arguments.size(column_rows(rows)).ptr(partials);
    launch_columns(device, precision, typed!(precision, "activation_backward"), rows, width, &arguments)
}

pub(crate) fn column_sum(
    device: &Device,
    precision: Precision,
    x: Ptr,
    stride: usize,
    rows: usize,
    width: usize,
    partials: Ptr,
) -> Result<(), Error> {
    let arguments = Arguments::new().ptr(x).size(stride).size(rows).size(width).size(column_rows(rows)).ptr(partials);
    launch_columns(device, precision, typed!(precision, "column_sum"), rows, width, &arguments)
}

/// `tokens` is the length of `order`; it decides how many warps share a segment.
#[allow(clippy::too_many_arguments, reason = "a kernel's operands")]
pub(crate) fn lookup_gradient(
    device: &Device,
    d: Ptr,
    order: Ptr,
    segments: Ptr,
    table_rows: Ptr,
    tokens: usize,
    segment_count: usize,
    width: usize,
    table_gradient: Ptr,
) -> Result<(), Error> {
    let arguments = Arguments::new().ptr(d).ptr(order).ptr(segments).ptr(table_rows).size(width).ptr(table_gradient);
    // Most words of a batch are looked up once or twice, positions by every row, types by every token.
    let warps = (tokens / segment_count.max(1)).next_power_of_two().clamp(4, 32);
    launch(device, "lookup_gradient", [segment_count, width.div_ceil(128)], 32 * warps, 0, &arguments)
}

pub(crate) fn gather_rows(
    device: &Device,
    precision: Precision,
    from: Ptr,
    which: Ptr,
    rows: usize,
    width: usize,
    to: Ptr,
) -> Result<(), Error> {
    let arguments = Arguments::new().ptr(from).ptr(which).size(rows).size(width).ptr(to);
    launch_matrix(device, precision, typed!(precision, "gather_rows"), rows, width, &arguments)
}

pub(crate) fn scatter_add_rows(
    device: &Device,
    precision: Precision,
    from: Ptr,
    which: Ptr,
    rows: usize,
    width: usize,
    to: Ptr,
) -> Result<(), Error> {
    let arguments = Arguments::new().ptr(from).ptr(which).size(rows).size(width).ptr(to);
    launch_matrix(device, precision, typed!(precision, "scatter_add_rows"), rows, width, &arguments)
}

pub(crate) fn dropout_rows(
    device: &Device,
    precision: Precision,
    x: Ptr,
    dropout: Option<DropoutSite>,
    rows: usize,
    width: usize,
) -> Result<(), Error> {
    if dropout.is_none() {
        return Ok(());
    }
    let arguments = Arguments::new().ptr(x).dropout(dropout).size(rows).size(width);
    launch_matrix(device, precision, typed!(precision, "dropout_rows"), rows, width, &arguments)
}

pub(crate) fn add_bias(
    device: &Device,
    precision: Precision,
    x: Ptr,
    bias: Ptr,
    rows: usize,
    width: usize,
) -> Result<(), Error> {
    let arguments = Arguments::new().ptr(x).ptr(bias).size(rows).size(width);
    launch_matrix(device, precision, typed!(precision, "add_bias"), rows, width, &arguments)
}

#[allow(clippy::too_many_arguments, reason = "a kernel's operands")]
pub(crate) fn soft_hard_loss(
    device: &Device,
    precision: Precision,
    student: Ptr,
    teacher: Ptr,
    labels: Ptr,
    soft_weight: f32,
    temperature: f32,
    hard_weight: f32,
    rows: usize,
    classes: usize,
    d_logits: Ptr,
    row_losses: Ptr,
) -> Result<(), Error> {
    let arguments = Arguments::new().ptr(student).ptr(teacher).ptr(labels).f32(soft_weight).f32(temperature);
    let arguments = arguments.f32(hard_weight).size(rows).size(classes).ptr(d_logits).ptr(row_losses);
    launch(device, typed!(precision, "soft_hard_loss"), [rows.div_ceil(4), 1], 128, 0, &arguments)
}

/// `sums [columns] +=` the sum of the rows of `x [rows, columns]`, for few columns.
pub(crate) fn sum_rows(device: &Device, x: Ptr, rows: usize, columns: usize, sums: Ptr) -> Result<(), Error> {
    let arguments = Arguments::new().ptr(x).size(rows).size(columns).ptr(sums);
    launch(device, "sum_rows", [1, 1], 256, 0, &arguments)
}

pub(crate) fn sum_of_squares(device: &Device, x: Ptr, count: usize, partials: Ptr) -> Result<(), Error> {
    let arguments = Arguments::new().ptr(x).u64(count as u64).ptr(partials);
    launch(device, "sum_of_squares", [SUM_PARTIALS, 1], 256, 0, &arguments)
}

/// `control` is `f32 [4]`.
pub(crate) fn gradient_scale(device: &Device, partials: Ptr, max_norm: f32, control: Ptr) -> Result<(), Error> {
    let arguments = Arguments::new().ptr(partials).size(SUM_PARTIALS).f32(max_norm).ptr(control);
    launch(device, "gradient_scale", [1, 1], 32, 0, &arguments)
}

#[allow(clippy::too_many_arguments, reason = "a kernel's operands")]
pub(crate) fn adamw(
    device: &Device,
    parameters: Ptr,
    gradients: Ptr,
    first_moment: Ptr,
    second_moment: Ptr,
    shadow: Ptr,
    count: usize,
    control: Ptr,
    step: f32,
    decay: f32,
    root_correction: f32,
) -> Result<(), Error> {
    let arguments = Arguments::new().ptr(parameters).ptr(gradients).ptr(first_moment).ptr(second_moment).ptr(shadow);
    let arguments = arguments.u64(count as u64).ptr(control).f32(step).f32(decay).f32(root_correction);
    launch_vectors(device, "adamw", count.div_ceil(4), &arguments)
}

pub(crate) fn cast(device: &Device, precision: Precision, from: Ptr, count: usize, to: Ptr) -> Result<(), Error> {
    let arguments = Arguments::new().ptr(from).u64(count as u64).ptr(to);
    launch_vectors(device, typed!(precision, "cast"), count.div_ceil(lanes(precision)), &arguments)
}

/// What attention reads: queries, keys and values of packed sequences. Strides are in elements from row to row; values
/// stand `heads * head_size` behind keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    pub(crate) query: Ptr,
    pub(crate) query_stride: usize,
    pub(crate) key_value: Ptr,
    pub(crate) key_value_stride: usize,
    /// `u32 [sequences + 1]`: where each sequence's keys begin.
    pub(crate) starts: Ptr,
    /// `u32 [sequences + 1]`: where its queries begin, which are its first tokens; NULL if all tokens are queries.
    pub(crate) query_starts: Ptr,
    pub(crate) sequences: usize,
    /// Rows of `query`.
    pub(crate) queries: usize,
    /// Rows of `key_value`.
    pub(crate) tokens: usize,
    pub(crate) heads: usize,
    pub(crate) head_size: usize,
    /// Tokens of the longest sequence.
    pub(crate) longest: usize,
    pub(crate) dropout: Option<DropoutSite>,
    /// Longest sequence the model takes, for the dropout mask.
    pub(crate) max_length: usize,
}

impl Attention {
    /// The head size whose kernels run on tensor cores here; `None` where the plain kernels are needed.
    fn tiles(&self, precision: Precision) -> Option<Tiles> {
        let aligned = |ptr: Ptr, stride: usize| ptr.0.is_multiple_of(16) && stride.is_multiple_of(8);
        let fits = precision == Precision::Bf16
            && aligned(self.query, self.query_stride)
            && aligned(self.key_value, self.key_value_stride)
            && self.sequences <= 65535;
        let (forward, backward) = match self.head_size {
            32 => ("attention_forward_tiles_32", "attention_backward_tiles_32"),
            64 => ("attention_forward_tiles_64", "attention_backward_tiles_64"),
            128 => ("attention_forward_tiles_128", "attention_backward_tiles_128"),
            _ => return None,
        };
        fits.then_some(Tiles { forward, backward, row_bytes: (self.head_size + 8) * 2 })
    }

    fn arguments(&self) -> Arguments {
        let arguments = self.operands().size(self.sequences).size(self.heads).size(self.head_size);
        arguments.f32(self.scale()).dropout(self.dropout).size(self.max_length)
    }

    fn tile_arguments(&self) -> Arguments {
        let arguments = self.operands().size(self.heads);
        arguments.f32(self.scale()).dropout(self.dropout).size(self.max_length)
    }

    fn operands(&self) -> Arguments {
        let query_starts = if self.query_starts == Ptr::NULL { self.starts } else { self.query_starts };
        let arguments = Arguments::new().ptr(self.query).size(self.query_stride).ptr(self.key_value);
        arguments.size(self.key_value_stride).ptr(self.starts).ptr(query_starts)
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_size as f32).sqrt()
    }

    /// Queries of the sequence with most of them.
    fn most_queries(&self) -> usize {
        if self.queries == self.sequences { 1 } else { self.longest }
    }

    /// A warp a row: rows, shared memory of one warp in floats.
    fn launch_rows(
        &self,
        device: &Device,
        kernel: &'static str,
        rows: usize,
        floats: usize,
        arguments: &Arguments,
    ) -> Result<(), Error> {
        let warps = row_warps(floats * 4);
        launch(device, kernel, [rows.div_ceil(warps), self.heads], 32 * warps, warps * floats * 4, arguments)
    }
}

/// The kernels for one head size.
struct Tiles {
    forward: &'static str,
    backward: &'static str,
    /// Of one row in shared memory.
    row_bytes: usize,
}

/// Warps of a block that owns 16 rows a warp of a sequence of `rows`: no more than such a sequence needs.
fn tile_warps(rows: usize) -> usize {
    match rows {
        0..=16 => 1,
        17..=32 => 2,
        _ => 4,
    }
}

/// Writes `context [queries, heads * head_size]` and `lse f32 [queries, heads]`.
pub(crate) fn attention_forward(
    device: &Device,
    precision: Precision,
    attention: &Attention,
    context: Ptr,
    lse: Ptr,
) -> Result<(), Error> {
    if let Some(tiles) = attention.tiles(precision) {
        let rows = attention.most_queries();
        let warps = tile_warps(rows);
        let grid = [rows.div_ceil(16 * warps), attention.heads, attention.sequences];
        let key_rows = attention.longest.next_multiple_of(16).min(64);
        let shared_bytes = (16 * warps + 2 * key_rows) * tiles.row_bytes;
        let arguments = attention.tile_arguments().size(key_rows).ptr(context).ptr(lse);
        return launch_blocks(device, tiles.forward, grid, 32 * warps, shared_bytes, &arguments);
    }
    let arguments = attention.arguments().size(attention.queries).size(attention.longest).ptr(context).ptr(lse);
    let floats = attention.head_size + attention.longest;
    attention.launch_rows(device, typed!(precision, "attention_forward"), attention.queries, floats, &arguments)
}

/// Writes `d_query` and `d_key_value`, laid out as query and key_value, which they may not overlap.
#[allow(clippy::too_many_arguments, reason = "a kernel's operands")]
pub(crate) fn attention_backward(
    device: &Device,
    precision: Precision,
    attention: &Attention,
    context: Ptr,
    d_context: Ptr,
    lse: Ptr,
    d_query: Ptr,
    d_key_value: Ptr,
) -> Result<(), Error> {
    let Attention { queries, tokens, head_size, longest, .. } = *attention;
    if let Some(tiles) = attention.tiles(precision) {
        let warps = tile_warps(longest);
        let rows = 16 * warps;
        let grid = [longest.div_ceil(rows), attention.heads, attention.sequences];
        // Keys, values, queries and their gradients; two floats a query.
        let shared_bytes = rows * (4 * tiles.row_bytes + 2 * 4);
        let arguments = attention.tile_arguments().ptr(context).ptr(d_context).ptr(lse).ptr(d_query).ptr(d_key_value);
        return launch_blocks(device, tiles.backward, grid, 32 * warps, shared_bytes, &arguments);
    }
    let operands = |rows| attention.arguments().size(rows).size(longest).ptr(context).ptr(d_context).ptr(lse);
    let kernel = typed!(precision, "attention_backward_query");
    attention.launch_rows(device, kernel, queries, 2 * head_size + longest, &operands(queries).ptr(d_query))?;
    let kernel = typed!(precision, "attention_backward_key_value");
    attention.launch_rows(device, kernel, tokens, 2 * (head_size + longest), &operands(tokens).ptr(d_key_value))
}

/// Elements of 16 bytes.
fn lanes(precision: Precision) -> usize {
    16 / precision.bytes()
}

/// Warps of a block that keep a row each in shared memory: within what a block may have without asking, wherever that
/// leaves room for more than one. Far from all GPUs have more than 99 KiB for a block that asks.
fn row_warps(row_bytes: usize) -> usize {
    ((48 << 10) / row_bytes).clamp(1, 4)
}

/// A warp a row that keeps the row as floats in shared memory.
fn launch_norm_rows(
    device: &Device,
    kernel: &'static str,
    rows: usize,
    width: usize,
    arguments: &Arguments,
) -> Result<(), Error> {
    let row_bytes = width.next_multiple_of(8) * 4;
    let warps = row_warps(row_bytes);
    launch(device, kernel, [rows.div_ceil(warps), 1], 32 * warps, warps * row_bytes, arguments)
}

/// Threads that share the columns of a row in the norms' backward kernels without many of them idle.
fn norm_threads(precision: Precision, width: usize) -> usize {
    let vectors = width.div_ceil(lanes(precision));
    let groups = (256 / vectors).max(1);
    (vectors * groups).next_multiple_of(32).min(256)
}

/// A thread a vector of a matrix.
fn launch_matrix(
    device: &Device,
    precision: Precision,
    kernel: &'static str,
    rows: usize,
    width: usize,
    arguments: &Arguments,
) -> Result<(), Error> {
    launch_vectors(device, kernel, rows * width.div_ceil(lanes(precision)), arguments)
}

fn launch_vectors(device: &Device, kernel: &'static str, vectors: usize, arguments: &Arguments) -> Result<(), Error> {
    launch(device, kernel, [vectors.div_ceil(256), 1], 256, 0, arguments)
}

/// A thread a vector of columns, rows cut into blocks.
fn launch_columns(
    device: &Device,
    precision: Precision,
    kernel: &'static str,
    rows: usize,
    width: usize,
    arguments: &Arguments,
) -> Result<(), Error> {
    let vectors = width.div_ceil(lanes(precision));
    let threads = vectors.next_multiple_of(32).min(128);
    launch(device, kernel, [vectors.div_ceil(threads), column_partials(rows)], threads, 0, arguments)
}

fn launch(
    device: &Device,
    kernel: &'static str,
    [x, y]: [usize; 2],
    threads: usize,
    shared_bytes: usize,
    arguments: &Arguments,
) -> Result<(), Error> {
    launch_blocks(device, kernel, [x, y, 1], threads, shared_bytes, arguments)
}

/// Launches unless there is nothing to do: a grid without blocks is an error to CUDA.
fn launch_blocks(
    device: &Device,
    kernel: &'static str,
    grid: [usize; 3],
    threads: usize,
    shared_bytes: usize,
    arguments: &Arguments,
) -> Result<(), Error> {
    if grid.contains(&0) {
        return Ok(());
    }
    let launch = Launch {
        kernel,
        grid: grid.map(|blocks| blocks as u32),
        block: [threads as u32, 1, 1],
        shared_bytes: shared_bytes as u32,
    };
    device.launch(launch, arguments)
}

impl Arguments {
    /// A mask's four scalars; threshold 0 drops nothing.
    fn dropout(self, site: Option<DropoutSite>) -> Self {
        let (key, threshold, scale) = site.map_or(([0, 0], 0, 1.0), DropoutSite::scalars);
        self.u32(key[0]).u32(key[1]).u32(threshold).f32(scale)
    }

    fn size(self, size: usize) -> Self {
        self.i32(size as i32)
    }
}
