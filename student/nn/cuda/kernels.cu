// All kernels as one translation unit, from the folders of src/cuda/op. Those with activations are compiled for both
// types, their names ending in the type: `TYPED_KERNEL(name, ..)` defines `name_bf16` and `name_f32`, in which T is that
// type.

#include "common.cuh"

#include "embed/lookup.cu"
#include "optimizer/kernel.cu"
#include "sums/partials.cu"
#include "top_k/kernel.cu"

#define T bf16
#define TYPED_KERNEL(name, threads, ...) KERNEL(name##_bf16, threads, __VA_ARGS__)
#define TYPED_RESIDENT_KERNEL(name, threads, blocks, ...) RESIDENT_KERNEL(name##_bf16, threads, blocks, __VA_ARGS__)
namespace with_bf16 {
#include "typed.cuh"
}
#undef T
#undef TYPED_KERNEL
#undef TYPED_RESIDENT_KERNEL

#define T float
#define TYPED_KERNEL(name, threads, ...) KERNEL(name##_f32, threads, __VA_ARGS__)
#define TYPED_RESIDENT_KERNEL(name, threads, blocks, ...) RESIDENT_KERNEL(name##_f32, threads, blocks, __VA_ARGS__)
namespace with_f32 {
#include "typed.cuh"
}
#undef T
#undef TYPED_KERNEL
#undef TYPED_RESIDENT_KERNEL

#include "attention/tiles.cu"
