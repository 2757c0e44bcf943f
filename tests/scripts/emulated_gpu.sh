#!/usr/bin/env bash
# Runs a built `distill` on a GPU that is none: every kernel's checks, a capture and a training through the driver's own
# interface, with work run as late as allowed and at once, with and without what a driver or cuBLASLt may lack; then the
# launches that were made, with a thread for each of theirs, under ThreadSanitizer. Prints a line for each part. Exit
# status 0 if all of them passed. About six minutes on two cores; the tests have a smaller version.
#
# usage: tests/scripts/emulated_gpu.sh [DISTILL [MODE..]]
#   DISTILL   the program [target/release/distill]
#   MODE      words for EMULATED_GPU, see student/nn/cuda/emulation/driver/ [four, as below]
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
distill=$(realpath "${1:-$root/target/release/distill}"); shift
[ $# -gt 0 ] && modes=("$@") || modes=("" eager
  no-pool,other-sizes-refused,first-refused,misaligned-bias no-algorithm)
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
# All but those for a real GPU.
parts=norm,embed,activation,rows,loss,attention,optimizer,products,engine
emulation=$root/student/nn/cuda/emulation fixture=$root/tests/fixtures/e2e failed=0

# Runs a command, which has to end with this status, and prints a line.
part() { # STATUS NAME COMMAND..
  local status=$1 name=$2 start=$SECONDS found; shift 2
  rm -f "$work/report"
  "$@" > "$work/out" 2> "$work/log"; found=$?
  local result=passed complaints
  # Of each process that had the driver.
  complaints=$(awk '/^complaints / { sum += $2 } END { print sum + 0 }' "$work/report" 2> /dev/null)
  [ "$found" -eq "$status" ] || result="FAILED with status $found"
  [ "${complaints:-0}" -eq 0 ] || result="FAILED with $complaints complaints"
  [ "$1" != on_gpu ] || [ -s "$work/report" ] || result="FAILED: nobody has reported"
  printf '%-58s %4d s  %s\n' "$name" "$((SECONDS - start))" "$result"
  [ "$result" = passed ] && return
  failed=$((failed + 1)); grep -v '^train:' "$work/log" | tail -n 20
}
# The program with the libraries of the emulated GPU.
on_gpu() { # MODE COMMAND..
  local mode=$1; shift
  EMULATED_GPU=$mode EMULATED_GPU_REPORT=$work/report LD_LIBRARY_PATH=$work/gpu "$distill" "$@" --device cuda:0
}

part 0 "the emulated GPU is built" "$emulation/driver/build.sh" "$work/gpu"
for mode in "${modes[@]}"; do
  title=${mode:-as late as allowed} words=$mode
  # Launches are the same in every mode.
  [ -e "$work/launches" ] || words=${mode:+$mode,}record=$work/launches,record-each=2
  part 0 "checks: $title" on_gpu "$words" bench kernels --only "$parts"
  tail -n 1 "$work/out"
  part 0 "capture: $title" on_gpu "$mode" cache --teacher "$fixture/teacher" --data "$fixture/train.tsv" \
    --output "$work/cache" --overwrite
  part 0 "training: $title" on_gpu "$mode" train --teacher "$fixture/teacher" --cache "$work/cache" \
    --data "$fixture/train.tsv" --epochs 2 --output "$work/student" --overwrite
  # With products of another make the bits are others.
  [[ $mode == *no-algorithm* ]] || sha256sum < "$work/student/model.safetensors" >> "$work/students"
done
part 0 "the same student in each mode with the same products" test "$(sort -u "$work/students" | wc -l)" -eq 1

# Where addresses are too random for it, older ThreadSanitizers need this.
fixed=(setarch --addr-no-randomize); "${fixed[@]}" true 2> /dev/null || fixed=()
replay() { "${fixed[@]}" "$work/races/replay" "$@" "$work/races/kernels.so" "$work/races/kernels-copy.so"; }
if part 0 "what looks for races is built" "$emulation/races/build.sh" "$work/races" && [ -e "$work/races/replay" ]; then
  for kernel in exchange copy; do
    part 66 "a planted race: $kernel" replay --planted "planted_$kernel"
    part 0 "the same without: $kernel" replay --planted "clean_$kernel"
  done
  part 66 "a planted race: early copy" replay --planted planted_early_copy
  part 66 "a planted race: between blocks" replay --planted planted_between_blocks
  part 0 "races" replay --blocks 3 "$work/launches"
  tail -n 1 "$work/out"
fi
[ "$failed" -eq 0 ] && echo "all passed, in $SECONDS s" || { echo "$failed failed, in $SECONDS s"; exit 1; }
