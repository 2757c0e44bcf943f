// Layer norm (Ba et al., 2016) as kernels share it, forward and backward, and what stands in its place where nothing is
// normalised (Sun et al., 2020). Agrees with cpu/norm.rs, except that the sum before the norm is kept as T and normalised
// as kept: so the backward pass sees the numbers that were normalised. Included once for each type.

/// Mean and 1 / sqrt(variance + epsilon) of a row that one warp keeps as floats in shared memory, each lane reading the
/// elements that it wrote. Below zero, epsilon says that nothing is normalised: then 0 and 1.
__device__ __forceinline__ void row_statistics(const float* row, int width, float epsilon, float& mean, float& rstd) {
    constexpr int N = LANES<T>;
    const int lane = threadIdx.x % 32;
    mean = 0.0f, rstd = 1.0f;
    if (epsilon < 0.0f) return;
    float sum = 0.0f;
    for (int column = lane * N; column < width; column += 32 * N) {
#pragma unroll
        for (int i = 0; i < N; i++) sum += row[column + i];
    }
    mean = warp_sum(sum) / width;
    float squares = 0.0f;
    for (int column = lane * N; column < width; column += 32 * N) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float centred = column + i < width ? row[column + i] - mean : 0.0f;
            squares += centred * centred;
        }
    }
    rstd = rsqrtf(warp_sum(squares) / width + epsilon);
}

/// The end of a norm's forward pass, of a row that one warp keeps as above: out = normalised * norm_weight + norm_bias,
/// then dropped out by the mask behind the norm.
__device__ __forceinline__ void norm_row(const float* kept, const float* norm_weight, const float* norm_bias,
                                         float epsilon, const Dropout& behind, MaskRow mask, float* mean_out,
                                         float* rstd_out, T* out, int width) {
    constexpr int N = LANES<T>;
    const int lane = threadIdx.x % 32;
    const bool rows_whole = width % N == 0;
    const bool vectors_whole = rows_whole && aligned16(norm_weight) && aligned16(norm_bias);
    float mean, rstd;
    row_statistics(kept, width, epsilon, mean, rstd);
    if (lane == 0) *mean_out = mean, *rstd_out = rstd;
    for (int column = lane * N; column < width; column += 32 * N) {
        const int count = width - column;
        float value[N], weight[N], bias[N];
        load_whole(kept + column, value);
        load(norm_weight + column, vectors_whole, count, weight);
        load(norm_bias + column, vectors_whole, count, bias);
#pragma unroll
        for (int i = 0; i < N; i++) value[i] = (value[i] - mean) * rstd * weight[i] + bias[i];
        behind.apply(mask, column, value);
        store(out + column, rows_whole, count, value);
    }
}

/// A mask that drops nothing.
__device__ __forceinline__ Dropout no_dropout() { return {0, 0, 0, 1.0f, 0}; }

/// The two means that the backward pass of a norm subtracts from a row: of d * weight, and of d * weight * normalised.
struct Projections {
    float mean, along;
};

/// d_out and sum are one row; `mask` is its row of `behind`, the mask behind the norm. One warp.
__device__ __forceinline__ Projections project(const T* d_out, const T* sum, const float* norm_weight, float mean,
                                               float rstd, const Dropout& behind, MaskRow mask, int width,
                                               bool rows_whole, bool vectors_whole) {
    constexpr int N = LANES<T>;
    float total = 0.0f, along = 0.0f;
    for (int column = threadIdx.x % 32 * N; column < width; column += 32 * N) {
        const int count = width - column;
        float d[N], x[N], weight[N];
        load(d_out + column, rows_whole, count, d);
        load(sum + column, rows_whole, count, x);
        load(norm_weight + column, vectors_whole, count, weight);
        behind.apply(mask, column, d);
#pragma unroll
        for (int i = 0; i < N; i++) {
            // Beyond the row d and weight are zero.
            const float scaled = d[i] * weight[i];
            total += scaled;
            along += scaled * ((x[i] - mean) * rstd);
        }
    }
    return {warp_sum(total) / width, warp_sum(along) / width};
}

/// Most rows of one block of a backward kernel; `op/norm/launch.rs` knows it too.
constexpr int NORM_ROWS = 64;

struct NormScratch {
    float mean[NORM_ROWS], rstd[NORM_ROWS], projected_mean[NORM_ROWS], projected_along[NORM_ROWS];
    MaskRow mask[NORM_ROWS];
};

/// Backward of a norm over one block's rows. First a warp a row finds the row's projections; then each thread goes down
/// one vector of columns and keeps their sums, several groups of threads sharing the rows where columns are few.
///
/// BRANCH: dropout stands on a branch before the norm, d_branch and a third column sum are written; else behind the
/// norm. Where the forward pass normalised nothing, nothing is subtracted. column_sums: 256 vectors of floats in shared
/// memory.
template <bool BRANCH, class D>
__device__ __forceinline__ void norm_backward(NormScratch& scratch, float* column_sums, const T* d_out, const T* sum,
                                              const float* means, const float* rstds, const float* norm_weight,
                                              bool normalises, const Dropout& dropout, const u32* row_tokens,
                                              int rows, int width, int rows_per_block, D* d_sum, T* d_branch,
                                              float* partials) {
    constexpr int N = LANES<T>;
    constexpr int SUMS = BRANCH ? 3 : 2;
    const int thread = threadIdx.x, threads = blockDim.x;
    const int first = blockIdx.x * rows_per_block;
    const int count = min(rows_per_block, rows - first);
    const bool rows_whole = width % N == 0;
    const bool vectors_whole = rows_whole && aligned16(norm_weight);
    const Dropout behind = BRANCH ? no_dropout() : dropout;

    for (int i = thread / 32; i < count; i += threads / 32) {
        const int row = first + i;
        const size_t start = static_cast<size_t>(row) * width;
        const MaskRow mask = dropout.row(row_tokens ? row_tokens[row] : row, width);
        const float mean = means[row], rstd = rstds[row];
        Projections projections = {0.0f, 0.0f};
        if (normalises) {
            projections = project(d_out + start, sum + start, norm_weight, mean, rstd, behind, mask, width, rows_whole,
                                  vectors_whole);
        }
        if (thread % 32 == 0) {
            scratch.mean[i] = mean;
            scratch.rstd[i] = rstd;
            scratch.projected_mean[i] = projections.mean;
            scratch.projected_along[i] = projections.along;
            scratch.mask[i] = mask;
        }
    }
    __syncthreads();

    const int vectors = (width + N - 1) / N;
    const int groups = max(1, threads / vectors);
    const int group = groups > 1 ? thread / vectors : 0;
    for (int base = 0; base < vectors; base += threads) {
        const int vector = groups > 1 ? thread % vectors : base + thread;
        const int column = vector * N, columns = width - column;
        const bool works = group < groups && vector < vectors;
        float sums[SUMS][N] = {};
        if (works) {
            float weight[N];
            load(norm_weight + column, vectors_whole, columns, weight);
            for (int i = group; i < count; i += groups) {
                const size_t at = static_cast<size_t>(first + i) * width + column;
                const MaskRow mask = scratch.mask[i];
                float d[N], x[N];
                load(d_out + at, rows_whole, columns, d);
                load(sum + at, rows_whole, columns, x);
                behind.apply(mask, column, d);
                const float mean = scratch.mean[i], rstd = scratch.rstd[i];
                const float projected_mean = scratch.projected_mean[i], along = scratch.projected_along[i];
#pragma unroll
                for (int j = 0; j < N; j++) {
                    const float normalised = (x[j] - mean) * rstd;
                    sums[0][j] += d[j] * normalised;
                    sums[1][j] += d[j];
                    d[j] = rstd * (d[j] * weight[j] - projected_mean - normalised * along);
                }
                store(d_sum + at, rows_whole, columns, d);
                if (BRANCH) {
                    dropout.apply(mask, column, d);
                    store(d_branch + at, rows_whole, columns, d);
#pragma unroll
                    for (int j = 0; j < N; j++) sums[SUMS - 1][j] += d[j];
                }
            }
        }
#pragma unroll
        for (int which = 0; which < SUMS; which++) {
            // Column sums lie element by element, so that neighbouring threads write to neighbouring banks.
            __syncthreads();
#pragma unroll
            for (int j = 0; j < N; j++) column_sums[j * threads + thread] = sums[which][j];
            __syncthreads();
            if (works && group == 0) {
                float* destination = partials + (static_cast<size_t>(blockIdx.x) * SUMS + which) * width + column;
#pragma unroll
                for (int j = 0; j < N; j++) {
                    float total = 0.0f;
                    for (int other = 0; other < groups; other++) {
                        total += column_sums[j * threads + other * vectors + thread];
                    }
                    if (j < columns) destination[j] = total;
                }
            }
        }
    }
}
