// The kernels that exist for both types; included once for each.

#include "norm.cu"

#include "activation.cu"
#include "attention.cu"
#include "embedding.cu"
#include "loss.cu"
#include "rows.cu"
