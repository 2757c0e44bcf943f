#!/usr/bin/env bash
# Builds the emulated device: every kernel and a scheduler in one shared library, for tests without a GPU.
# usage: student/nn/cuda/emulation/build.sh OUT.so [further compiler flags]
set -euo pipefail
out=$1; shift
here=$(cd "$(dirname "$0")" && pwd)
# No fused multiply-add by the compiler's choice, so that results do not depend on the machine that builds.
"${CXX:-g++}" -std=c++17 -O2 -fPIC -shared -fvisibility=hidden -ffp-contract=off -Wall -Wno-unknown-pragmas "$@" \
  -I "$here/../../src/cuda/op" -Wl,-soname,libdistill-kernels.so -o "$out.building" "$here/library.cpp"
mv "$out.building" "$out"
