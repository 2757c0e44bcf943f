// What all kernels share: elements of either type as floats, sums over a warp, the dropout mask.
//
// T is the type of activations, bf16 or float; all arithmetic is in float. Sums are in a fixed order everywhere and no
// kernel uses atomics, so a launch gives the same bits each time.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#include "device.cuh"
#else
#include "emulation/device.h"
#endif

typedef unsigned int u32;
typedef unsigned long long u64;

/// Elements in 16 bytes.
template <class T>
constexpr int LANES = 16 / sizeof(T);

template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
    return x;
}
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) {
    return to_bf16(x);
}
__device__ __forceinline__ float to_float(float x) { return x; }

/// What is left of x once it is stored as T.
template <class T>
__device__ __forceinline__ float stored(float x) {
    return to_float(from_float<T>(x));
}

__device__ __forceinline__ void load_whole(const float* from, float (&to)[4]) {
    const Bytes16 bytes = load16(from);
    to[0] = bits_to_float(bytes.x);
    to[1] = bits_to_float(bytes.y);
    to[2] = bits_to_float(bytes.z);
    to[3] = bits_to_float(bytes.w);
}

__device__ __forceinline__ void load_whole(const float* from, float (&to)[8]) {
    float low[4], high[4];
    load_whole(from, low);
    load_whole(from + 4, high);
#pragma unroll
    for (int i = 0; i < 4; i++) to[i] = low[i], to[4 + i] = high[i];
}

__device__ __forceinline__ void load_whole(const bf16* from, float (&to)[8]) {
    const Bytes16 bytes = load16(from);
    const u32 words[4] = {bytes.x, bytes.y, bytes.z, bytes.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        to[2 * i] = bits_to_float(words[i] << 16);
        to[2 * i + 1] = bits_to_float(words[i] & 0xffff0000u);
    }
}

__device__ __forceinline__ void store_whole(float* to, const float (&from)[4]) {
    store16(to, {float_to_bits(from[0]), float_to_bits(from[1]), float_to_bits(from[2]), float_to_bits(from[3])});
}

__device__ __forceinline__ void store_whole(float* to, const float (&from)[8]) {
    store16(to, {float_to_bits(from[0]), float_to_bits(from[1]), float_to_bits(from[2]), float_to_bits(from[3])});
    store16(to + 4, {float_to_bits(from[4]), float_to_bits(from[5]), float_to_bits(from[6]), float_to_bits(from[7])});
}

__device__ __forceinline__ void store_whole(bf16* to, const float (&from)[8]) {
    store16(to, {pack_bf16(from[0], from[1]), pack_bf16(from[2], from[3]), pack_bf16(from[4], from[5]),
                 pack_bf16(from[6], from[7])});
}

/// N elements from `from` on, or the first `count` of them and zeros. `whole`: all N are there, and aligned.
template <class E, int N>
__device__ __forceinline__ void load(const E* from, bool whole, int count, float (&to)[N]) {
    if (whole) {
        load_whole(from, to);
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) to[i] = i < count ? to_float(from[i]) : 0.0f;
    }
}

/// N elements, or the first `count` of them.
template <class E, int N>
__device__ __forceinline__ void store(E* to, bool whole, int count, const float (&from)[N]) {
    if (whole) {
        store_whole(to, from);
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) {
            if (i < count) to[i] = from_float<E>(from[i]);
        }
    }
}

/// Elements that a thread takes at a time where rows are whole and aligned, of either type.
constexpr int EIGHT = 8;

/// Eight elements as they stand in memory. Fetched first and unpacked later, many are under way at once.
template <class E>
struct Packed {
    Bytes16 parts[sizeof(E) / 2];
};

template <class E>
__device__ __forceinline__ Packed<E> fetch(const E* from) {
    Packed<E> packed;
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(E) / 2); i++) packed.parts[i] = load16(from + i * LANES<E>);
    return packed;
}

__device__ __forceinline__ void unpack(const Packed<bf16>& packed, float (&to)[8]) {
    const u32 words[4] = {packed.parts[0].x, packed.parts[0].y, packed.parts[0].z, packed.parts[0].w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        to[2 * i] = bits_to_float(words[i] << 16);
        to[2 * i + 1] = bits_to_float(words[i] & 0xffff0000u);
    }
}

__device__ __forceinline__ void unpack(const Packed<float>& packed, float (&to)[8]) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        to[4 * i] = bits_to_float(packed.parts[i].x);
        to[4 * i + 1] = bits_to_float(packed.parts[i].y);
        to[4 * i + 2] = bits_to_float(packed.parts[i].z);
        to[4 * i + 3] = bits_to_float(packed.parts[i].w);
    }
}

/// The sum over the lanes of a warp, in every lane.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int bits = 16; bits > 0; bits /= 2) x += __shfl_xor_sync(~0u, x, bits);
    return x;
}

/// The sums over the lanes of a warp of eight values each: that of value v in lanes 4 v to 4 v + 3. Each exchange
/// halves the values that a lane still sums, so nine do what forty would one after another.
__device__ __forceinline__ float warp_sums(const float (&values)[8]) {
    const int lane = threadIdx.x % 32;
    float four[4], two[2];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const bool upper = lane & 16;
        four[i] = (upper ? values[i + 4] : values[i]) + __shfl_xor_sync(~0u, upper ? values[i] : values[i + 4], 16);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const bool upper = lane & 8;
        two[i] = (upper ? four[i + 2] : four[i]) + __shfl_xor_sync(~0u, upper ? four[i] : four[i + 2], 8);
    }
    const bool upper = lane & 4;
    float one = (upper ? two[1] : two[0]) + __shfl_xor_sync(~0u, upper ? two[0] : two[1], 4);
    one += __shfl_xor_sync(~0u, one, 2);
    return one + __shfl_xor_sync(~0u, one, 1);
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int bits = 16; bits > 0; bits /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, bits));
    return x;
}

/// One row of a mask: its key, which has the upper half of the number of the row's first element in it, and the lower.
struct MaskRow {
    u32 key0, key1, first;
};

/// A dropout mask as in `random.rs`, bit for bit: kept or dropped by a hash of the element's number, which counts in 64
/// bits from the optimiser step's first element on. Threshold 0 drops nothing.
struct Dropout {
    u32 key0, key1, threshold;
    float scale;
    /// Rows of the step before this launch's row 0.
    u64 rows_before;

    /// A row of `width` elements; of attention's probabilities, those of a token in one head.
    __device__ __forceinline__ MaskRow row(u32 row, int width, int heads = 1, int head = 0) const {
        const u64 number = ((rows_before + row) * static_cast<u32>(heads) + head) * static_cast<u32>(width);
        const u32 high = static_cast<u32>(number >> 32);
        return {key0 ^ high * 0x9e3779b9u, key1 + high * 0x85ebca6bu, static_cast<u32>(number)};
    }

    __device__ __forceinline__ bool keeps(MaskRow row, u32 column) const {
        u32 x = (row.first + column) ^ row.key0;
        x = (x ^ (x >> 16)) * 0x7feb352du;
        x = (x ^ (x >> 15)) * 0x846ca68bu;
        x = (x ^ (x >> 16)) + row.key1;
        x = (x ^ (x >> 16)) * 0x85ebca6bu;
        x = (x ^ (x >> 13)) * 0xc2b2ae35u;
        x ^= x >> 16;
        return x >= threshold;
    }

    __device__ __forceinline__ float factor(MaskRow row, u32 column) const {
        return keeps(row, column) ? scale : 0.0f;
    }

    /// Multiplies the elements of a row from `column` on by their factors.
    template <int N>
    __device__ __forceinline__ void apply(MaskRow row, u32 column, float (&values)[N]) const {
        if (threshold == 0) return;
#pragma unroll
        for (int i = 0; i < N; i++) values[i] *= factor(row, column + i);
    }
};

/// The five parameters that make a mask, handed on, and the mask of them.
#define DROPOUT_PARAMETERS                                                                                             \
    u32 dropout_key0, u32 dropout_key1, u32 dropout_threshold, float dropout_scale, u64 dropout_first
#define DROPOUT_ARGUMENTS dropout_key0, dropout_key1, dropout_threshold, dropout_scale, dropout_first
#define DROPOUT (Dropout{DROPOUT_ARGUMENTS})
