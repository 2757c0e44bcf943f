// Scaled dot-product attention over sequences of a packed batch (Vaswani et al., 2017), for any head size and type: a
// warp a row. Agrees with attention.rs; probabilities are computed again in the backward pass, from the log-sum-exp
// that the forward pass keeps. attention_tiles.cu has the fast kernels for common head sizes.
//
// query [Q, heads * D], rows query_stride apart; keys [K, heads * D] at key_value, values heads * D behind them, rows
// key_value_stride apart; context, d_context [Q, heads * D]; lse [Q, heads]. Sequence b has the keys from starts[b] to
// starts[b + 1] and the queries from query_starts[b] to query_starts[b + 1]; its queries are its first tokens.

/// What both passes read.
#define ATTENTION_PARAMETERS                                                                                           \
    const T *__restrict__ query, int query_stride, const T *__restrict__ key_value, int key_value_stride,              \
        const u32 *__restrict__ starts, const u32 *__restrict__ query_starts, int sequences, int heads, int head_size, \
        float scale, DROPOUT_PARAMETERS, int max_length

/// The sequence that a row belongs to: the last one that begins at or before it.
__device__ __forceinline__ int sequence_of(const u32* starts, int sequences, u32 row) {
    int low = 0, high = sequences - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (starts[middle] <= row) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

/// The scalar product of a row of floats in shared memory and one of T.
__device__ __forceinline__ float dot(const float* kept, const T* row, int size, bool whole) {
    constexpr int N = LANES<T>;
    float sum = 0.0f;
    if (whole) {
        for (int i = 0; i < size; i += N) {
            float value[N];
            load_whole(row + i, value);
#pragma unroll
            for (int j = 0; j < N; j++) sum += kept[i + j] * value[j];
        }
    } else {
        for (int i = 0; i < size; i++) sum += kept[i] * to_float(row[i]);
    }
    return sum;
}

/// A warp copies a row to shared memory as floats.
__device__ __forceinline__ void keep(float* kept, const T* row, int size) {
    for (int i = threadIdx.x % 32; i < size; i += 32) kept[i] = to_float(row[i]);
}

/// The number of a pair's element in the dropout mask, without the key.
__device__ __forceinline__ u32 mask_row(u32 token, int heads, int head, int max_length) {
    return (token * heads + head) * static_cast<u32>(max_length);
}

/// context and lse of every query. blockIdx.x counts groups of queries, a warp each, blockIdx.y heads; shared memory:
/// for each warp head_size + longest floats.
TYPED_KERNEL(attention_forward, 128, ATTENTION_PARAMETERS, int queries, int longest, T* __restrict__ context,
             float* __restrict__ lse) {
    DYNAMIC_SHARED(shared);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, head = blockIdx.y;
    const int row = blockIdx.x * (blockDim.x / 32) + warp;
    if (row >= queries) return;
    float* kept = reinterpret_cast<float*>(shared) + warp * (head_size + longest);
    float* scores = kept + head_size;
    const int hidden = heads * head_size;
    const int sequence = sequence_of(query_starts, sequences, row);
    const u32 first = starts[sequence];
    const int length = starts[sequence + 1] - first;
    const u32 token = first + (row - query_starts[sequence]);
    const T* keys = key_value + static_cast<size_t>(first) * key_value_stride + head * head_size;
    const T* values = keys + hidden;
    const bool whole = head_size % LANES<T> == 0 && key_value_stride % LANES<T> == 0 && aligned16(key_value);
    const Dropout dropout = DROPOUT;

    keep(kept, query + static_cast<size_t>(row) * query_stride + head * head_size, head_size);
    __syncwarp();
    float largest = -INFINITY;
    for (int k = lane; k < length; k += 32) {
        const float score = dot(kept, keys + static_cast<size_t>(k) * key_value_stride, head_size, whole) * scale;
        scores[k] = score;
        largest = fmaxf(largest, score);
    }
    largest = warp_max(largest);
    float sum = 0.0f;
    const u32 element = mask_row(token, heads, head, max_length);
    for (int k = lane; k < length; k += 32) {
        const float probability = expf(scores[k] - largest);
        sum += probability;
        scores[k] = probability * (dropout.threshold ? dropout.factor(element + k) : 1.0f);
    }
    sum = warp_sum(sum);
    if (lane == 0) lse[static_cast<size_t>(row) * heads + head] = largest + logf(sum);
    __syncwarp();
    const float inverse = 1.0f / sum;
    for (int i = lane; i < head_size; i += 32) {
        float total = 0.0f;
        for (int k = 0; k < length; k++) {
            total += scores[k] * to_float(values[static_cast<size_t>(k) * key_value_stride + i]);
        }
        context[static_cast<size_t>(row) * hidden + head * head_size + i] = from_float<T>(total * inverse);
    }
}

/// d_query, rows d_query_stride apart. Launched as attention_forward; shared memory: for each warp 2 head_size +
/// longest floats.
TYPED_KERNEL(attention_backward_query, 128, ATTENTION_PARAMETERS, int queries, int longest,
             const T* __restrict__ context, const T* __restrict__ d_context, const float* __restrict__ lse,
             T* __restrict__ d_query) {
    DYNAMIC_SHARED(shared);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, head = blockIdx.y;
    const int row = blockIdx.x * (blockDim.x / 32) + warp;
    if (row >= queries) return;
    float* kept = reinterpret_cast<float*>(shared) + warp * (2 * head_size + longest);
    float* d_kept = kept + head_size;
    float* d_scores = d_kept + head_size;
    const int hidden = heads * head_size;
    const int sequence = sequence_of(query_starts, sequences, row);
    const u32 first = starts[sequence];
    const int length = starts[sequence + 1] - first;
    const u32 token = first + (row - query_starts[sequence]);
    const T* keys = key_value + static_cast<size_t>(first) * key_value_stride + head * head_size;
    const T* values = keys + hidden;
    const bool whole = head_size % LANES<T> == 0 && key_value_stride % LANES<T> == 0 && aligned16(key_value);
    const Dropout dropout = DROPOUT;
    const size_t at = static_cast<size_t>(row) * hidden + head * head_size;

    keep(kept, query + static_cast<size_t>(row) * query_stride + head * head_size, head_size);
    keep(d_kept, d_context + at, head_size);
    __syncwarp();
    // What softmax's backward pass subtracts: the sum of d_probability * probability, which is d_context * context.
    float projection = 0.0f;
    for (int i = lane; i < head_size; i += 32) projection += d_kept[i] * to_float(context[at + i]);
    projection = warp_sum(projection);
    const float row_lse = lse[static_cast<size_t>(row) * heads + head];
    const u32 element = mask_row(token, heads, head, max_length);
    for (int k = lane; k < length; k += 32) {
        const size_t offset = static_cast<size_t>(k) * key_value_stride;
        const float probability = expf(dot(kept, keys + offset, head_size, whole) * scale - row_lse);
        float d = dot(d_kept, values + offset, head_size, whole);
        if (dropout.threshold) d *= dropout.factor(element + k);
        d_scores[k] = probability * (d - projection) * scale;
    }
    __syncwarp();
    for (int i = lane; i < head_size; i += 32) {
        float total = 0.0f;
        for (int k = 0; k < length; k++) {
            total += d_scores[k] * to_float(keys[static_cast<size_t>(k) * key_value_stride + i]);
        }
        d_query[static_cast<size_t>(row) * query_stride + head * head_size + i] = from_float<T>(total);
    }
}

/// d_key_value, keys' and values' gradients laid out as key_value. A warp a key; shared memory: for each warp
/// 2 head_size + 2 longest floats.
TYPED_KERNEL(attention_backward_key_value, 128, ATTENTION_PARAMETERS, int tokens, int longest,
             const T* __restrict__ context, const T* __restrict__ d_context, const float* __restrict__ lse,
             T* __restrict__ d_key_value) {
    DYNAMIC_SHARED(shared);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, head = blockIdx.y;
    const int row = blockIdx.x * (blockDim.x / 32) + warp;
    if (row >= tokens) return;
    float* kept_key = reinterpret_cast<float*>(shared) + warp * 2 * (head_size + longest);
    float* kept_value = kept_key + head_size;
    float* d_scores = kept_value + head_size;
    float* dropped = d_scores + longest;
    const int hidden = heads * head_size;
    const int sequence = sequence_of(starts, sequences, row);
    const u32 first = starts[sequence], first_query = query_starts[sequence];
    const int queries = query_starts[sequence + 1] - first_query;
    const int k = row - first;
    const size_t key_at = static_cast<size_t>(row) * key_value_stride + head * head_size;
    const size_t context_at = static_cast<size_t>(first_query) * hidden + head * head_size;
    const T* my_queries = query + static_cast<size_t>(first_query) * query_stride + head * head_size;
    const bool whole = head_size % LANES<T> == 0 && query_stride % LANES<T> == 0 && aligned16(query);
    const bool context_whole = head_size % LANES<T> == 0;
    const Dropout dropout = DROPOUT;

    keep(kept_key, key_value + key_at, head_size);
    keep(kept_value, key_value + key_at + hidden, head_size);
    __syncwarp();
    for (int q = lane; q < queries; q += 32) {
        const size_t at = context_at + static_cast<size_t>(q) * hidden;
        const float row_lse = lse[static_cast<size_t>(first_query + q) * heads + head];
        const float score = dot(kept_key, my_queries + static_cast<size_t>(q) * query_stride, head_size, whole) * scale;
        const float probability = expf(score - row_lse);
        const float d = dot(kept_value, d_context + at, head_size, context_whole);
        float projection = 0.0f;
        for (int i = 0; i < head_size; i++) projection += to_float(d_context[at + i]) * to_float(context[at + i]);
        const u32 element = mask_row(first + q, heads, head, max_length) + k;
        const float factor = dropout.threshold ? dropout.factor(element) : 1.0f;
        dropped[q] = probability * factor;
        d_scores[q] = probability * (d * factor - projection) * scale;
    }
    __syncwarp();
    for (int i = lane; i < head_size; i += 32) {
        float d_key = 0.0f, d_value = 0.0f;
        for (int q = 0; q < queries; q++) {
            d_key += d_scores[q] * to_float(my_queries[static_cast<size_t>(q) * query_stride + i]);
            d_value += dropped[q] * to_float(d_context[context_at + static_cast<size_t>(q) * hidden + i]);
        }
        d_key_value[key_at + i] = from_float<T>(d_key);
        d_key_value[key_at + hidden + i] = from_float<T>(d_value);
    }
}
