#!/usr/bin/env bash
# Lays out what compiles kernels, without a GPU, a driver or an installed CUDA: NVIDIA's run-time compiler (NVRTC) and its
# assembler (ptxas), both from PyPI. The wheels of CUDA 12 have no nvcc; NVRTC is the same compiler as a library.
# usage: eval "$(student/nn/cuda/toolkit.sh)"     sets NVRTC (the library) and PTXAS (the program)
# CUDA 12.4: drivers from 550 on take its PTX. About 70 MB of downloads the first time, into ~/.cache.
set -euo pipefail
version=12.4
folder=${XDG_CACHE_HOME:-$HOME/.cache}/distill-cuda-$version
if [ ! -e "$folder/complete" ]; then
  rm -rf "$folder"
  PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --no-deps --target "$folder" "nvidia-cuda-nvrtc-cu12==$version.*" "nvidia-cuda-nvcc-cu12==$version.*" >&2
  chmod +x "$folder/nvidia/cuda_nvcc/bin/ptxas"
  touch "$folder/complete"
fi
echo "export NVRTC='$folder/nvidia/cuda_nvrtc/lib/libnvrtc.so.12'"
echo "export PTXAS='$folder/nvidia/cuda_nvcc/bin/ptxas'"
