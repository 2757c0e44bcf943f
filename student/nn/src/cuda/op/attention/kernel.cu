// Scaled dot-product attention over sequences of a packed batch (Vaswani et al., 2017), for any head size and type: a
// warp a row. Agrees with cpu/op/attention.rs; probabilities are computed again in the backward pass, from the
// log-sum-exp that the forward pass keeps. tiles.cu has the fast kernels for common head sizes.
//
// query [Q, heads * D]; key, value [T, heads * D]; all of these and their gradients with rows a stride of their own
// apart; context, d_context [Q, heads * D]; lse [Q, heads]. Sequence b has the keys from starts[b] to starts[b + 1] and
// the queries from query_starts[b] to query_starts[b + 1]; query_tokens [Q] says which tokens of the batch these are, for
// the mask; null: query q is token q. survivors is for tiles.cu alone.

/// What both passes read, in elements of type E.
#define ATTENTION_PARAMETERS(E)                                                                                        \
    const E *__restrict__ query, int query_stride, const E *__restrict__ key, int key_stride,                          \
        const E *__restrict__ value, int value_stride, const u32 *__restrict__ starts,                                 \
        const u32 *__restrict__ query_starts, const u32 *__restrict__ query_tokens, int sequences, int queries,        \
        int tokens, int heads, int head_size, int longest, float scale, DROPOUT_PARAMETERS, int max_length,            \
        u32 *__restrict__ survivors

/// What all kernels of the backward pass take: each writes some of the gradients.
#define ATTENTION_BACKWARD_PARAMETERS(E)                                                                               \
    ATTENTION_PARAMETERS(E), const E *__restrict__ context, const E *__restrict__ d_context,                           \
        const float *__restrict__ lse, E *__restrict__ d_query, int d_query_stride, E *__restrict__ d_key,             \
        int d_key_stride, E *__restrict__ d_value, int d_value_stride

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

/// context and lse of every query. blockIdx.x counts groups of queries, a warp each, blockIdx.y heads; shared memory:
/// for each warp head_size + longest floats.
TYPED_KERNEL(attention_forward, 128, ATTENTION_PARAMETERS(T), T* __restrict__ context, float* __restrict__ lse) {
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
    const u32 token = query_tokens ? query_tokens[row] : row;
    const T* keys = key + static_cast<size_t>(first) * key_stride + head * head_size;
    const T* values = value + static_cast<size_t>(first) * value_stride + head * head_size;
    const bool keys_whole = head_size % LANES<T> == 0 && key_stride % LANES<T> == 0 && aligned16(key);
    const Dropout dropout = DROPOUT;
    const MaskRow mask = dropout.row(token, max_length, heads, head);

    keep(kept, query + static_cast<size_t>(row) * query_stride + head * head_size, head_size);
    __syncwarp();
    float largest = -INFINITY;
    for (int k = lane; k < length; k += 32) {
        const float score = dot(kept, keys + static_cast<size_t>(k) * key_stride, head_size, keys_whole) * scale;
        scores[k] = score;
        largest = fmaxf(largest, score);
    }
    largest = warp_max(largest);
    float sum = 0.0f;
    for (int k = lane; k < length; k += 32) {
        const float probability = expf(scores[k] - largest);
        sum += probability;
        scores[k] = probability * (dropout.threshold ? dropout.factor(mask, k) : 1.0f);
    }
    sum = warp_sum(sum);
    if (lane == 0) lse[static_cast<size_t>(row) * heads + head] = largest + logf(sum);
    __syncwarp();
    const float inverse = 1.0f / sum;
    for (int i = lane; i < head_size; i += 32) {
        float total = 0.0f;
        for (int k = 0; k < length; k++) {
            total += scores[k] * to_float(values[static_cast<size_t>(k) * value_stride + i]);
        }
        context[static_cast<size_t>(row) * hidden + head * head_size + i] = from_float<T>(total * inverse);
    }
}

/// d_query. Launched as attention_forward; shared memory: for each warp 2 head_size + longest floats.
TYPED_KERNEL(attention_backward_query, 128, ATTENTION_BACKWARD_PARAMETERS(T)) {
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
    const u32 token = query_tokens ? query_tokens[row] : row;
    const T* keys = key + static_cast<size_t>(first) * key_stride + head * head_size;
    const T* values = value + static_cast<size_t>(first) * value_stride + head * head_size;
    const bool keys_whole = head_size % LANES<T> == 0 && key_stride % LANES<T> == 0 && aligned16(key);
    const bool values_whole = head_size % LANES<T> == 0 && value_stride % LANES<T> == 0 && aligned16(value);
    const Dropout dropout = DROPOUT;
    const MaskRow mask = dropout.row(token, max_length, heads, head);
    const size_t at = static_cast<size_t>(row) * hidden + head * head_size;

    keep(kept, query + static_cast<size_t>(row) * query_stride + head * head_size, head_size);
    keep(d_kept, d_context + at, head_size);
    __syncwarp();
    // What softmax's backward pass subtracts: the sum of d_probability * probability, which is d_context * context.
    float projection = 0.0f;
    for (int i = lane; i < head_size; i += 32) projection += d_kept[i] * to_float(context[at + i]);
    projection = warp_sum(projection);
    const float row_lse = lse[static_cast<size_t>(row) * heads + head];
    for (int k = lane; k < length; k += 32) {
        const T* key_row = keys + static_cast<size_t>(k) * key_stride;
        const float probability = expf(dot(kept, key_row, head_size, keys_whole) * scale - row_lse);
        float d = dot(d_kept, values + static_cast<size_t>(k) * value_stride, head_size, values_whole);
        if (dropout.threshold) d *= dropout.factor(mask, k);
        d_scores[k] = probability * (d - projection) * scale;
    }
    __syncwarp();
    for (int i = lane; i < head_size; i += 32) {
        float total = 0.0f;
        for (int k = 0; k < length; k++) {
            total += d_scores[k] * to_float(keys[static_cast<size_t>(k) * key_stride + i]);
        }
        d_query[static_cast<size_t>(row) * d_query_stride + head * head_size + i] = from_float<T>(total);
    }
}

/// d_key and d_value. A warp a key; shared memory: for each warp 2 head_size + 2 longest floats.
TYPED_KERNEL(attention_backward_key_value, 128, ATTENTION_BACKWARD_PARAMETERS(T)) {
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
    const int count = query_starts[sequence + 1] - first_query;
    const int k = row - first;
    const size_t context_at = static_cast<size_t>(first_query) * hidden + head * head_size;
    const T* my_queries = query + static_cast<size_t>(first_query) * query_stride + head * head_size;
    const bool whole = head_size % LANES<T> == 0 && query_stride % LANES<T> == 0 && aligned16(query);
    const bool context_whole = head_size % LANES<T> == 0;
    const Dropout dropout = DROPOUT;

    keep(kept_key, key + static_cast<size_t>(row) * key_stride + head * head_size, head_size);
    keep(kept_value, value + static_cast<size_t>(row) * value_stride + head * head_size, head_size);
    __syncwarp();
    for (int q = lane; q < count; q += 32) {
        const size_t at = context_at + static_cast<size_t>(q) * hidden;
        const float row_lse = lse[static_cast<size_t>(first_query + q) * heads + head];
        const float score = dot(kept_key, my_queries + static_cast<size_t>(q) * query_stride, head_size, whole) * scale;
        const float probability = expf(score - row_lse);
        const float d = dot(kept_value, d_context + at, head_size, context_whole);
        float projection = 0.0f;
        for (int i = 0; i < head_size; i++) projection += to_float(d_context[at + i]) * to_float(context[at + i]);
        const u32 token = query_tokens ? query_tokens[first_query + q] : first_query + q;
        const MaskRow mask = dropout.row(token, max_length, heads, head);
        const float factor = dropout.threshold ? dropout.factor(mask, k) : 1.0f;
        dropped[q] = probability * factor;
        d_scores[q] = probability * (d * factor - projection) * scale;
    }
    __syncwarp();
    for (int i = lane; i < head_size; i += 32) {
        float key_sum = 0.0f, value_sum = 0.0f;
        for (int q = 0; q < count; q++) {
            key_sum += d_scores[q] * to_float(my_queries[static_cast<size_t>(q) * query_stride + i]);
            value_sum += dropped[q] * to_float(d_context[context_at + static_cast<size_t>(q) * hidden + i]);
        }
        d_key[static_cast<size_t>(row) * d_key_stride + head * head_size + i] = from_float<T>(key_sum);
        d_value[static_cast<size_t>(row) * d_value_stride + head * head_size + i] = from_float<T>(value_sum);
    }
}
