#!/usr/bin/env bash
# Lays out a folder with which a program runs on an emulated GPU through the driver's own interface: the emulated device,
# a libcuda and a libcublasLt on it.
# usage: student/nn/cuda/emulation/driver/build.sh FOLDER [KERNELS.so]
#        LD_LIBRARY_PATH=FOLDER [EMULATED_GPU=WORDS] distill bench kernels --device cuda:0
# KERNELS.so is the emulated device, if `../build.sh` has made it already. The words are in driver.cpp and cublaslt.cpp.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
kernels=libdistill-kernels.so
if [ $# -ge 2 ]; then cp "$2" "$1/$kernels"; else "$here/../build.sh" "$1/$kernels"; fi
cd "$1"
compile() { # OUT SOURCE FLAGS..
  local out=$1 source=$2; shift 2
  "${CXX:-g++}" -std=c++17 -O3 -fPIC -shared -fvisibility=hidden -ffp-contract=off -Wall -Wextra "$here/$source" \
    "-Wl,-soname,$out" -Wl,-rpath,'$ORIGIN' -o "$out.building" "$@"
  mv "$out.building" "$out"
}
compile libcuda.so.1 driver.cpp "./$kernels"
compile libcublasLt.so.13 cublaslt.cpp ./libcuda.so.1
# Under every name that is tried: with one of them missing, a real library might answer to it.
ln -sf libcublasLt.so.13 libcublasLt.so.12
ln -sf libcublasLt.so.13 libcublasLt.so
ln -sf libcuda.so.1 libcuda.so
