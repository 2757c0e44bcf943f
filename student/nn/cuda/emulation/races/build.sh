#!/usr/bin/env bash
# Builds what looks for races in the kernels, with ThreadSanitizer: their library, its copy, and `replay`.
# usage: student/nn/cuda/emulation/races/build.sh FOLDER
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2,3s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
flags=(-std=c++17 -g -fsanitize=thread -ffp-contract=off -Wall -Wno-unknown-pragmas)
"${CXX:-g++}" "${flags[@]}" -O1 -fPIC -shared -fvisibility=hidden -I "$here/../../../src/cuda/op" \
  -o "$1/kernels.so" "$here/threads.cpp"
cp "$1/kernels.so" "$1/kernels-copy.so"
"${CXX:-g++}" "${flags[@]}" -O1 -o "$1/replay" "$here/replay.cpp" -ldl -pthread
