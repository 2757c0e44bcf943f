// The kernels that exist for both types; included once for each.

#include "columns.cuh"
#include "norm.cuh"
#include "vectors.cuh"
#include "whole_norm.cuh"

#include "activate/kernel.cu"
#include "attention/kernel.cu"
#include "embed/kernel.cu"
#include "loss/kernel.cu"
#include "norm/kernel.cu"
#include "product/kernel.cu"
#include "rows/kernel.cu"
#include "sums/kernel.cu"
#include "trigram/kernel.cu"
