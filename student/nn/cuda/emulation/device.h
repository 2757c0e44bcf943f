// A device to test kernels on without one: the kernels' sources as plain C++17, threads of a block as fibers.
//
// Blocks run one after another. Within a block every thread runs until it waits, for its warp (shuffles, mma,
// `__syncwarp`) or for its block (`__syncthreads`); what it waits for happens when all have come. Odd blocks run their
// warps and lanes backwards, and every other launch its blocks, so that a missing barrier changes results.
// A launch faults, with the place, on: threads that finish or wait elsewhere while others wait, warp operations that
// not all lanes take part in, vector accesses at unaligned addresses, and blocks larger than a kernel's bound. Shared
// memory is filled with NaN before each block. It knows nothing of speed, and does not check bounds of global memory.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <cstddef>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))
// Variables of blocks lie in a section of their own, so that they can be filled before each block.
#define __shared__ __attribute__((section("emulated_shared"))) static
#define DYNAMIC_SHARED(name) unsigned char* const name = emulation::dynamic_shared()
#define KERNEL(name, threads, ...)                                                                                     \
    extern "C" void name(__VA_ARGS__);                                                                                 \
    static const emulation::Registration registration_of_##name{#name, threads, &emulation::call<&name>};              \
    extern "C" void name(__VA_ARGS__)
#define RESIDENT_KERNEL(name, threads, blocks, ...) KERNEL(name, threads, __VA_ARGS__)

// Where a block's threads are threads of the machine (`races`), each has its own number.
#ifndef EACH_THREAD_S
#define EACH_THREAD_S
#endif

struct Index3 {
    unsigned x, y, z;
};
extern EACH_THREAD_S Index3 threadIdx;
extern Index3 blockIdx, blockDim, gridDim;

namespace emulation {

/// A kernel by its name; the list is filled before `main`.
struct Registration {
    const char* name;
    unsigned threads;
    void (*run)(void** arguments);
    const Registration* next;
    Registration(const char* name, unsigned threads, void (*run)(void**));
};

template <class F>
struct Unpack;
template <class... A>
struct Unpack<void (*)(A...)> {
    template <size_t... I>
    static void with(void (*f)(A...), void** arguments, std::index_sequence<I...>) {
        f(*static_cast<A*>(arguments[I])...);
    }
    static void with(void (*f)(A...), void** arguments) { with(f, arguments, std::index_sequence_for<A...>{}); }
};

template <auto F>
void call(void** arguments) {
    Unpack<decltype(F)>::with(F, arguments);
}

struct Site {
    const char* file;
    int line;
};

unsigned char* dynamic_shared();
/// Waits for the other threads of the block.
void block_barrier(Site site);
/// Waits for the other lanes; the last to come calls `resolve` with every lane's operand.
void warp_collective(void (*resolve)(void* const* lanes), void* operand, Site site, unsigned mask);
/// What a copy in the background does when it is asked for and when it is waited for.
void copy_begins(void* shared, const void* global);
void copies_arrive();
/// A lane's row of a matrix is about to be read by its warp.
void row_is_read(const void* row);
/// Ends the launch with a message.
[[noreturn]] void fault(const char* message, Site site);

}  // namespace emulation


inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    emulation::block_barrier({file, line});
}

inline void __syncwarp(unsigned mask = ~0u, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    emulation::warp_collective([](void* const*) {}, nullptr, {file, line}, mask);
}

namespace emulation {

template <class V>
struct Shuffle {
    V value;
    unsigned from;
    V result;
};

template <class V>
V shuffle(unsigned mask, V value, unsigned from, Site site) {
    Shuffle<V> operand{value, from & 31, value};
    warp_collective(
        [](void* const* lanes) {
            for (int lane = 0; lane < 32; lane++) {
                auto* mine = static_cast<Shuffle<V>*>(lanes[lane]);
                mine->result = static_cast<Shuffle<V>*>(lanes[mine->from])->value;
            }
        },
        &operand, site, mask);
    return operand.result;
}

}  // namespace emulation

template <class V>
V __shfl_sync(unsigned mask, V value, int from, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return emulation::shuffle(mask, value, from, {file, line});
}

template <class V>
V __shfl_xor_sync(unsigned mask, V value, int bits, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return emulation::shuffle(mask, value, (threadIdx.x & 31) ^ bits, {file, line});
}

template <class A>
inline A min(A a, A b) { return b < a ? b : a; }
template <class A>
inline A max(A a, A b) { return a < b ? b : a; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }

// From here on what `device.cuh` has in inline assembly.

/// A bfloat16 number by its bits.
struct bf16 {
    unsigned short bits;
};

struct alignas(16) Bytes16 {
    unsigned x, y, z, w;
};

/// To the nearest, ties to even; a NaN stays one.
inline bf16 to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return {static_cast<unsigned short>(0x7fff)};
    return {static_cast<unsigned short>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

inline float to_float(bf16 x) {
    const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

inline unsigned pack_bf16(float low, float high) {
    return to_bf16(low).bits | static_cast<unsigned>(to_bf16(high).bits) << 16;
}

inline float bits_to_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

inline unsigned float_to_bits(float value) {
    unsigned bits;
    memcpy(&bits, &value, 4);
    return bits;
}

inline float exp2_fast(float x) { return exp2f(x); }
inline float reciprocal_fast(float x) { return 1.0f / x; }

inline bool aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

inline Bytes16 load16(const void* p, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    if (!aligned16(p)) emulation::fault("16 bytes read at an unaligned address", {file, line});
    return *static_cast<const Bytes16*>(p);
}

inline void store16(void* p, Bytes16 value, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    if (!aligned16(p)) emulation::fault("16 bytes written at an unaligned address", {file, line});
    *static_cast<Bytes16*>(p) = value;
}

inline void store4(void* p, unsigned value, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    if (reinterpret_cast<uintptr_t>(p) % 4 != 0) {
        emulation::fault("4 bytes written at an unaligned address", {file, line});
    }
    memcpy(p, &value, 4);
}

inline void store8(void* p, unsigned first, unsigned second, const char* file = __builtin_FILE(),
                   int line = __builtin_LINE()) {
    if (reinterpret_cast<uintptr_t>(p) % 8 != 0) {
        emulation::fault("8 bytes written at an unaligned address", {file, line});
    }
    memcpy(p, &first, 4);
    memcpy(static_cast<unsigned char*>(p) + 4, &second, 4);
}

inline void copy16_async(void* shared, const void* global, const char* file = __builtin_FILE(),
                         int line = __builtin_LINE()) {
    if (!aligned16(shared) || !aligned16(global)) emulation::fault("16 bytes copied at an unaligned address", {file, line});
    emulation::copy_begins(shared, global);
}
inline void copies_commit() {}
inline void copies_wait() { emulation::copies_arrive(); }

namespace emulation {

struct Mma {
    const unsigned *a, *b;
    float* c;
};

inline float half_of(unsigned pair, int which) { return bits_to_float(which ? pair & 0xffff0000u : pair << 16); }

}  // namespace emulation

/// c [16, 8] += a [16, 16] b [16, 8], spread over the lanes as PTX's `mma.sync.aligned.m16n8k16.row.col` wants it.
inline void mma_16x8x16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                        const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    emulation::Mma operand{a, b, c};
    emulation::warp_collective(
        [](void* const* lanes) {
            using emulation::half_of;
            float a[16][16], b[16][8];
            for (int lane = 0; lane < 32; lane++) {
                const auto* mine = static_cast<emulation::Mma*>(lanes[lane]);
                const int group = lane / 4, in_group = lane % 4;
                for (int half = 0; half < 2; half++) {
                    for (int r = 0; r < 4; r++) {
                        a[group + 8 * (r & 1)][in_group * 2 + half + 8 * (r >> 1)] = half_of(mine->a[r], half);
                    }
                    for (int r = 0; r < 2; r++) b[in_group * 2 + half + 8 * r][group] = half_of(mine->b[r], half);
                }
            }
            float product[16][8] = {};
            for (int row = 0; row < 16; row++) {
                for (int k = 0; k < 16; k++) {
                    for (int column = 0; column < 8; column++) product[row][column] += a[row][k] * b[k][column];
                }
            }
            for (int lane = 0; lane < 32; lane++) {
                auto* mine = static_cast<emulation::Mma*>(lanes[lane]);
                for (int i = 0; i < 4; i++) mine->c[i] += product[lane / 4 + 8 * (i >> 1)][lane % 4 * 2 + (i & 1)];
            }
        },
        &operand, {file, line}, ~0u);
}

namespace emulation {

struct LoadMatrices {
    const bf16* row;
    unsigned* result;
};

template <bool TRANSPOSED>
void load_matrices(const void* row, unsigned (&result)[4], Site site) {
    if (!aligned16(row)) fault("a matrix row at an unaligned address", site);
    row_is_read(row);
    LoadMatrices operand{static_cast<const bf16*>(row), result};
    warp_collective(
        [](void* const* lanes) {
            const auto at = [&](int matrix, int row, int column) -> unsigned {
                return static_cast<LoadMatrices*>(lanes[8 * matrix + row])->row[column].bits;
            };
            for (int lane = 0; lane < 32; lane++) {
                const int row = lane / 4, column = lane % 4 * 2;
                for (int m = 0; m < 4; m++) {
                    const unsigned low = TRANSPOSED ? at(m, column, row) : at(m, row, column);
                    const unsigned high = TRANSPOSED ? at(m, column + 1, row) : at(m, row, column + 1);
                    static_cast<LoadMatrices*>(lanes[lane])->result[m] = low | high << 16;
                }
            }
        },
        &operand, site, ~0u);
}

}  // namespace emulation

/// Four 8 x 8 matrices from shared memory: lane 8 m + r gives the address of row r of matrix m.
inline void load_matrices(const void* row, unsigned (&result)[4], const char* file = __builtin_FILE(),
                          int line = __builtin_LINE()) {
    emulation::load_matrices<false>(row, result, {file, line});
}

/// The same, each matrix transposed.
inline void load_matrices_transposed(const void* row, unsigned (&result)[4], const char* file = __builtin_FILE(),
                                     int line = __builtin_LINE()) {
    emulation::load_matrices<true>(row, result, {file, line});
}

