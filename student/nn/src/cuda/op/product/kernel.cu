// Products that cuBLASLt refuses, and the bias behind those whose epilogue it does not take. For every shape, layout and
// address; slow, since hardly anything comes here.

/// c[m][n] = the sum over k of a[m][k] b[k][n] (+ c[m][n]) (+ bias[n]); `a_m` from a row of a to the next, `a_k` from a
/// column to the next, and so on. c and bias are float or T. Sums are in float: over 16 terms, then over those.
TYPED_KERNEL(product, 256, const T* __restrict__ a, long long a_m, long long a_k, const T* __restrict__ b,
             long long b_k, long long b_n, void* __restrict__ c, long long c_m, const void* __restrict__ bias,
             int c_is_float, int accumulate, int m, int n, int k) {
    constexpr int TILE = 16;
    __shared__ float a_tile[TILE][TILE + 1], b_tile[TILE][TILE + 1];
    const int x = threadIdx.x % TILE, y = threadIdx.x / TILE;
    const int first_row = blockIdx.x * TILE, first_column = blockIdx.y * TILE;
    const int row = first_row + y, column = first_column + x;
    // Neighbouring threads read neighbours in memory.
    const int a_row = a_k == 1 ? y : x, a_inner = a_k == 1 ? x : y;
    const int b_column = b_n == 1 ? x : y, b_inner = b_n == 1 ? y : x;
    float sum = 0.0f;
    for (int first = 0; first < k; first += TILE) {
        const bool in_a = first_row + a_row < m && first + a_inner < k;
        const bool in_b = first_column + b_column < n && first + b_inner < k;
        a_tile[a_row][a_inner] = in_a ? to_float(a[(first_row + a_row) * a_m + (first + a_inner) * a_k]) : 0.0f;
        b_tile[b_inner][b_column] = in_b ? to_float(b[(first + b_inner) * b_k + (first_column + b_column) * b_n]) : 0.0f;
        __syncthreads();
        float part = 0.0f;
#pragma unroll
        for (int i = 0; i < TILE; i++) part += a_tile[y][i] * b_tile[i][x];
        sum += part;
        __syncthreads();
    }
    if (row >= m || column >= n) return;
    const long long at = row * c_m + column;
    if (c_is_float) {
        float* to = static_cast<float*>(c) + at;
        if (accumulate) sum += *to;
        if (bias) sum += static_cast<const float*>(bias)[column];
        *to = sum;
    } else {
        T* to = static_cast<T*>(c) + at;
        if (accumulate) sum += to_float(*to);
        if (bias) sum += to_float(static_cast<const T*>(bias)[column]);
        *to = from_float<T>(sum);
    }
}

/// x[r][c] += bias[c]: x [R, W], rows `stride` apart; bias [W] at any address.
TYPED_KERNEL(add_bias, 256, T* __restrict__ x, long long stride, const T* __restrict__ bias, int rows, int width) {
    const bool aligned = aligned16(x) && stride % LANES<T> == 0;
    each_vector(rows, width, [&](int row, int column, bool whole, int count) {
        float value[LANES<T>], addend[LANES<T>];
        T* destination = x + row * stride + column;
        load(destination, whole && aligned, count, value);
        load(bias + column, false, count, addend);
#pragma unroll
        for (int i = 0; i < LANES<T>; i++) value[i] += addend[i];
        store(destination, whole && aligned, count, value);
    });
}
