#!/usr/bin/env bash
# Compiles the kernels to kernels.ptx.gz, which the program embeds and the driver turns into a GPU's own code (compute
# capability 8.0 or later), and writes the hash of the sources beside it, which a test compares. Prints for Ampere and
# Hopper what each kernel takes: registers, spills, shared memory.
# With --lineinfo it writes kernels.lineinfo.ptx instead, in which instructions know their lines of the sources, for
# NVIDIA's tools: DISTILL_CUDA_KERNELS=kernels.lineinfo.ptx compute-sanitizer --target-processes all distill bench kernels --only norm
# usage: student/nn/cuda/build.sh [--lineinfo]
set -euo pipefail
cd "$(dirname "$0")"
case "${1:-}" in
  '' | --lineinfo) ;;
  *) echo "usage: student/nn/cuda/build.sh [--lineinfo]" >&2; exit 2 ;;
esac
eval "$(./toolkit.sh)"
if [ "${1:-}" = --lineinfo ]; then
  python3 compile.py "$NVRTC" compute_80 kernels.lineinfo.ptx --generate-line-info
  echo "student/nn/cuda/kernels.lineinfo.ptx: name it in DISTILL_CUDA_KERNELS"
  exit
fi
trap "rm -f kernels.ptx.building" EXIT
python3 compile.py "$NVRTC" compute_80 kernels.ptx.building
for architecture in sm_80 sm_90; do
  "$PTXAS" -v "-arch=$architecture" -o /dev/null kernels.ptx.building 2>&1 | awk -v architecture="$architecture" '
    /Compiling entry function/ { split($0, part, "\047"); kernel = part[2] }
    /bytes stack frame/ { stack = $1; stores = $5; loads = $9 }
    /Used [0-9]+ registers/ {
      match($0, /[0-9]+ registers/); registers = substr($0, RSTART, RLENGTH)
      shared = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART, RLENGTH) : "0 bytes smem"
      printf "%s %-42s %s, %s static, stack %d, spilled %d + %d bytes\n", architecture, kernel, registers, shared, stack, stores, loads
      if (stores + loads > 0) spills = 1
    }
    /error|warning/ { print }
    END { exit spills }' && ended=("${PIPESTATUS[@]}") || ended=("${PIPESTATUS[@]}")
  [ "${ended[0]}" = 0 ] || { echo "ptxas refuses the kernels" >&2; exit 1; }
  [ "${ended[1]}" = 0 ] || { echo "a kernel spills registers" >&2; exit 1; }
done
gzip -9nc kernels.ptx.building > kernels.ptx.gz
(cd .. && find cuda src/cuda/op -name '*.cu' -o -name '*.cuh' | LC_ALL=C sort | while read -r file; do echo "$file"; cat "$file"; done) |
  sha256sum | cut -d ' ' -f 1 > kernels.sha256
