// How kernels go over a matrix element by element. Included once for each type.

/// Visits the vectors of a matrix [R, W], one a thread: visit(row, column, whole, count).
template <class Visit>
__device__ __forceinline__ void each_vector(int rows, int width, const Visit& visit) {
    constexpr int N = LANES<T>;
    const int vectors = (width + N - 1) / N;
    const long long at = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= static_cast<long long>(rows) * vectors) return;
    const int row = static_cast<int>(at / vectors), column = static_cast<int>(at % vectors) * N;
    visit(row, column, width % N == 0, width - column);
}
