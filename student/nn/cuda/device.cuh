// What kernels need of the device beyond plain C++: declarations of kernels and shared memory, bfloat16, 16-byte
// accesses, and the warp-wide instructions of tensor cores. `emulation/device.h` has the same for a processor.
#pragma once

/// Defines a kernel for blocks of at most `threads` threads; its parameters follow. The 1 lets the compiler take the
/// registers that it needs: without it, it spills some for an occupancy that nobody asked for.
#define KERNEL(name, threads, ...) RESIDENT_KERNEL(name, threads, 1, __VA_ARGS__)
/// The same with registers for at least `blocks` blocks on a multiprocessor.
#define RESIDENT_KERNEL(name, threads, blocks, ...)                                                                    \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(__VA_ARGS__)
/// Names the shared memory that a launch asks for.
#define DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]

// NVRTC comes without math.h.
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

/// A bfloat16 number by its bits.
struct bf16 {
    unsigned short bits;
};

struct __align__(16) Bytes16 {
    unsigned x, y, z, w;
};

/// To the nearest, ties to even; a NaN stays one.
__device__ __forceinline__ bf16 to_bf16(float x) {
    bf16 result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
    return result;
}

__device__ __forceinline__ float bits_to_float(unsigned bits) { return __uint_as_float(bits); }
__device__ __forceinline__ unsigned float_to_bits(float value) { return __float_as_uint(value); }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }

__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

/// 2^x in one instruction, to two units in the last place; 0 for -inf.
__device__ __forceinline__ float exp2_fast(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

/// 1 / x in one instruction, to one unit in the last place.
__device__ __forceinline__ float reciprocal_fast(float x) {
    float result;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

__device__ __forceinline__ bool aligned16(const void* p) { return reinterpret_cast<unsigned long long>(p) % 16 == 0; }
__device__ __forceinline__ Bytes16 load16(const void* p) { return *static_cast<const Bytes16*>(p); }
__device__ __forceinline__ void store16(void* p, Bytes16 value) { *static_cast<Bytes16*>(p) = value; }

__device__ __forceinline__ void store4(void* p, unsigned value) { *static_cast<unsigned*>(p) = value; }

/// Two words at a multiple of 8.
__device__ __forceinline__ void store8(void* p, unsigned first, unsigned second) {
    *static_cast<uint2*>(p) = make_uint2(first, second);
}

__device__ __forceinline__ unsigned shared_address(const void* p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

/// Copies 16 bytes to shared memory in the background; there after `copies_wait` and a barrier.
__device__ __forceinline__ void copy16_async(void* shared, const void* global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
__device__ __forceinline__ void copies_wait() { asm volatile("cp.async.wait_group 0;" ::: "memory"); }

/// c [16, 8] += a [16, 16] b [16, 8] in bfloat16 with float sums, spread over the lanes of a warp. With group = lane /
/// 4 and pair = lane % 4 * 2, a lane holds c[group (+ 8)][pair (+ 1)], a[group (+ 8)][pair (+ 1) (+ 8)] in the order
/// rows first, and b[pair (+ 1) (+ 8)][group].
__device__ __forceinline__ void mma_16x8x16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// Four 8 x 8 matrices from shared memory: lane 8 m + r gives the address of row r of matrix m, and receives of each
/// matrix the elements [lane / 4][lane % 4 * 2 (+ 1)].
__device__ __forceinline__ void load_matrices(const void* row, unsigned (&result)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(result[0]), "=r"(result[1]), "=r"(result[2]), "=r"(result[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/// The same, each matrix transposed.
__device__ __forceinline__ void load_matrices_transposed(const void* row, unsigned (&result)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(result[0]), "=r"(result[1]), "=r"(result[2]), "=r"(result[3])
                 : "r"(shared_address(row))
                 : "memory");
}
