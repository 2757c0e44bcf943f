#!/usr/bin/env bash
# Checks a built `distill` on a machine with a GPU: every kernel against its reference, the speeds of capture and training
# beside PyTorch's and what each launch takes, the loss curves of CPU and GPU, and what NVIDIA's sanitizer and profiler say.
# Needs the NVIDIA driver and cuBLASLt, no Rust, no network; python3 with torch, transformers and tokenizers for the peers
# alone, compute-sanitizer and ncu for the parts that are named after them. Prints a short table last. Exit status 0 if every
# check that ran has passed, 1 if one failed or none ran; what could not be run, and a speed below its goal, is said and
# fails nothing.
#
# usage: verify_gpu.sh [flags]
#   --distill FILE     the program [distill]
#   --device DEVICE    [cuda:0]; with cpu, a rehearsal without a GPU
#   --rehearsal        tiny sizes, for a driver that is none (student/nn/cuda/emulation)
#   --model FOLDER     a BERT's config.json and tokenizer.json, for real rows; with its weights, for the loss curves too
#   --data FILE        rows with labels, such as Banking77; given again, another data set, such as AG News
#   --peers FOLDER     the repository's benches/peers [beside this script, or in the repository]
#   --python FILE      [python3]
#   --kernels FILE     kernels with line numbers (student/nn/cuda/build.sh --lineinfo), for the sanitizer
#   --parts LIST       of kernels, bench, launches, masked (captures of a masked-language model), curves, large (the kernels
#                      at training's sizes), peers, sanitizer and ncu, with commas [all, in this order: what teaches most in a
#                      second comes first]
#   --cases LIST       patterns of cases, with commas, such as 'train-6x768-*' [all]
#   --quick            four of the cases, and eager PyTorch alone: about four minutes
#   --budget SECONDS   what has not begun by then is left out, what runs is stopped [570]
#   --epochs N         of the loss curves [5; with --quick 1]
#   --output FOLDER    gets summary.txt and verify-gpu.tar.gz: every result as JSON, and what the programs said [verify-gpu]
#   --keep             results that stand in --output from an earlier call stay in the table, with what each call's machine
#                      was and the order of the calls: a machine that is lent for minutes is asked part by part, and its folder
#                      carried to the next
#
# What has to travel: the program (`strip` and `xz` bring it from 45 MB to 18 MB), this script, benches/peers (40 kB), the
# data (Banking77 is 1 MB, less with gzip), and of the model config.json and tokenizer.json (0.5 MB) or all of it (90 MB in
# f32; `distill export --dtype f16` halves it; the demo's teacher, distill/demo/teacher, is 12 MB):
#   strip -o /tmp/distill target/release/distill && tar -C /tmp -cJf gpu.tar.xz distill
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2; }
arguments="$*"

distill=distill device=cuda:0 model='' peers='' python=python3 kernels='' quick='' budget=570 epochs='' keep='' rehearsal=''
parts=kernels,bench,launches,masked,curves,large,peers,sanitizer,ncu case_patterns='*' target=verify-gpu data=()
while [ $# -gt 0 ]; do
  case $1 in --quick) quick=yes; shift; continue ;; --keep) keep=yes; shift; continue ;; --rehearsal) rehearsal=yes; shift; continue ;; esac
  [ $# -ge 2 ] || usage
  case $1 in
    --distill) distill=$2 ;; --device) device=$2 ;; --model) model=$2 ;; --data) data+=("$2") ;; --peers) peers=$2 ;;
    --python) python=$2 ;; --kernels) kernels=$2 ;; --parts) parts=$2 ;; --cases) case_patterns=$2 ;; --budget) budget=$2 ;;
    --epochs) epochs=$2 ;; --output) target=$2 ;;
    *) usage ;;
  esac
  shift 2
done
if [ -z "$peers" ]; then
  for peers in "$here/peers" "$here/../../benches/peers"; do [ -e "$peers/torch_gpu.py" ] && break; done
fi
[ -n "$epochs" ] || epochs=$([ -n "$quick$rehearsal" ] && echo 1 || echo 5)
[ "$device" = cpu ] && rehearsal=yes

# All work is done elsewhere: what comes back from a lent machine is small and one file.
mkdir -p "$target"
work=$(mktemp -d "${TMPDIR:-/tmp}/verify-gpu.XXXXXX"); output=$work/results; mkdir "$output"
[ -n "$keep" ] && [ -e "$target/verify-gpu.tar.gz" ] && tar -C "$output" -xzf "$target/verify-gpu.tar.gz"
pack() {
  # Logs that are too long keep their end.
  find "$output" -type f -size +1M | while read -r file; do tail -c 500000 "$file" > "$work/end" && mv "$work/end" "$file"; done
  tar -C "$output" -czf "$target/verify-gpu.tar.gz" .
  # A lent machine gives files back up to 16 MiB.
  if [ "$(stat -c %s "$target/verify-gpu.tar.gz")" -gt 16000000 ]; then
    tar -C "$output" --exclude '*.again.*' --exclude '*cublaslt.log' --exclude 'ncu-*' -czf "$target/verify-gpu.tar.gz" .
  fi
  rm -rf "$work"
}
trap pack EXIT
trap 'exit 130' INT TERM
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false TORCHINDUCTOR_CACHE_DIR="$work/inductor" CUDA_CACHE_PATH="$work/cuda-cache"
export CUBLASLT_LOG_LEVEL=1 CUBLASLT_LOG_FILE="$output/cublaslt.log"
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
# The calls whose results are here, in their order, and what came of each part of them.
calls=$output/calls.txt
call=$(($(grep -c '^call ' "$calls" 2> /dev/null) + 1))
echo "call $call: ${arguments:-no flags}" >> "$calls"

say() { printf '\n== %s (%s s)\n' "$*" "$SECONDS"; }
wanted() { [[ ",$parts," == *",$1,"* ]]; }
wanted_case() { # NAME
  local pattern patterns; IFS=, read -ra patterns <<< "$case_patterns"
  # shellcheck disable=SC2053 # a pattern
  for pattern in "${patterns[@]}"; do [[ $(file_of "$1") == $pattern ]] && return 0; done
  return 1
}
file_of() { echo "${1// /-}"; }
# The first figure of this name in a result; nothing if there is none.
field() { grep -oE "\"$1\": *-?[0-9][0-9.eE+-]*" "$2" 2>/dev/null | head -n 1 | grep -oE '[0-9.eE+-]+$'; }
divide() { awk -v a="$1" -v b="$2" 'BEGIN { if (a != "" && b + 0 > 0) printf "%.2f", a / b; else printf "-" }'; }

# Says how something ended, here, in NAME.status and in the list of calls.
conclude() { # NAME VERDICT [SECONDS]
  echo "$2" > "$output/$1.status"
  echo "  $1: $2" >> "$calls"
  printf '%-34s %s\n' "$1" "${3:-$2}"
}

# Runs a command within the limit and what is left of the budget. Its stdout goes to NAME.json among the results; how it
# ended to NAME.status: passed, FAILED or skipped, and why. What failed or crashed on a GPU is run once more, for its log:
# with launches that are waited for, and with all that cuBLASLt has to say.
try() { # NAME LIMIT COMMAND..
  local name=$1 limit=$2 left=$((budget - SECONDS)) start=$SECONDS code; shift 2
  if [ "$left" -lt 5 ]; then skip "$name" "out of time"; return 1; fi
  [ "$limit" -gt "$left" ] && limit=$left
  timeout --kill-after=5 "$limit" "$@" > "$output/$name.json" 2> "$output/$name.log"; code=$?
  if [ "$code" -eq 0 ]; then conclude "$name" passed "$((SECONDS - start)) s"; return 0; fi
  local why stopped=''
  why=$(grep -E '^error|Error|failed' "$output/$name.log" | tail -n 1 | cut -c 1-150)
  case $code in
    124 | 137) stopped=yes why="stopped after $limit s" ;;
    # The shell's statuses of programs that a signal ended.
    129 | 1[3-9]?) why="crashed by signal $((code - 128))${why:+, after: $why}" ;;
  esac
  conclude "$name" "FAILED: ${why:-exit status $code}"
  left=$((budget - SECONDS)); [ "$limit" -gt "$left" ] && limit=$left
  if [ "$device" != cpu ] && [ -z "$stopped" ] && [ "$limit" -ge 5 ] && [[ $name != peer-* ]]; then
    CUDA_LAUNCH_BLOCKING=1 CUBLASLT_LOG_LEVEL=5 CUBLASLT_LOG_FILE="$output/$name.cublaslt.log" RUST_BACKTRACE=1 \
      timeout --kill-after=5 "$limit" "$@" > "$output/$name.again.out" 2> "$output/$name.again.log"
    printf '%-34s again, waiting for each launch: exit status %s\n' '' "$?"
  fi
  return 1
}
skip() { conclude "$1" "skipped: $2"; }

{
  say "$("$distill" --version 2>&1 | head -n 1) on $device"
  if command -v nvidia-smi > /dev/null; then
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,temperature.gpu,power.draw --format=csv,noheader
  fi
  echo "$(nproc) CPU cores, $(uname -sr), $(ldd --version 2>/dev/null | head -n 1)"
  echo "DISTILL_CUDA_LIBRARIES=${DISTILL_CUDA_LIBRARIES:-} LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}"
  ldconfig -p 2>/dev/null | grep -E 'libcuda\.so|libcublasLt' | sed 's/^[[:space:]]*//'
} 2>&1 | sed "1s/^\$/call $call/" | tee -a "$output/machine.txt"

precision() { "$distill" "$@" --help 2>/dev/null | grep -q -- '--precision'; }

# ---- kernels

if wanted kernels; then
  say "every kernel against its reference"
  if [ "$device" = cpu ]; then
    skip kernels "a rehearsal on the CPU"
  else
    # A part that hangs leaves time for the others, and for the table.
    try kernels 180 "$distill" bench kernels --device "$device" --limit 60 \
      --only norm,embed,activation,rows,loss,attention,optimizer,products,engine || tail -n 40 "$output/kernels.log"
  fi
  tail -n 14 "$output/kernels.json" 2>/dev/null
fi

# ---- benchmarks of ours: NAME|what|flags|data set, from 1, or 0, or mixed|peer's modes|goals, one a mode
# Those without a peer are to be held against the case that has their name's beginning; LOG.md says what was predicted.
# Goals are ratios to PyTorch's torch.compile and to the whole step as a CUDA graph (for 3x384: to eager and graph).

base='--layers 6 --hidden-size 768 --heads 12 --intermediate-size 3072'
small='--layers 3 --hidden-size 384 --heads 12 --intermediate-size 1536'
bert='--layers 12 --hidden-size 768 --heads 12 --intermediate-size 3072'
if [ -n "$rehearsal" ]; then
  base='--layers 2 --hidden-size 32 --heads 2 --intermediate-size 64' small=$base bert=$base
fi
cases=(
  "train 6x768 256x128|train|$base --batch-rows 256 --length 128|0|compile graph|1.25 1.25"
  "train 6x768 32x128|train|$base --batch-rows 32 --length 128|0|compile graph|3 1.3"
  "train 3x384 data1 32 rows|train|$small --batch-rows 32|1|eager graph|12 1.5"
  "train 6x768 data1 64 rows|train|$base --batch-rows 64|1|compile graph|6 1.5"
  "train 6x768 data1 256 rows|train|$base --batch-rows 256|1|compile graph|3 1.5"
  "capture bert-base 256x128|capture|$bert --batch-rows 256 --length 128|0|compile|1.15"
  "capture bert-base data1|capture|$bert --batch-rows 256|1|compile|2"
  "train 6x768 data2 64 rows|train|$base --batch-rows 64|2|compile graph|5 1.4"
  "train 6x768 data2 256 rows|train|$base --batch-rows 256|2|compile graph|2 1.4"
  "capture bert-base data2|capture|$bert --batch-rows 256|2|compile|1.5"
  "train 6x768 256x128 autotune|train|$base --batch-rows 256 --length 128 --autotune|0||"
  "train 6x768 32x128 autotune|train|$base --batch-rows 32 --length 128 --autotune|0||"
  "capture bert-base 256x128 autotune|capture|$bert --batch-rows 256 --length 128 --autotune|0||"
  "train 6x768 256x128 recompute|train|$base --batch-rows 256 --length 128 --recompute|0||"
  "train 6x768 256x128 ema|train|$base --batch-rows 256 --length 128 --ema-decay 0.999|0||"
  "train 6x768 mixed lengths|train|$base --batch-rows 256|mixed||"
  "train 6x768 data1 256 rows 4096 tokens|train|$base --batch-rows 256 --batch-tokens 4096|1||"
  "train 6x768 data1 256 rows 16384 tokens|train|$base --batch-rows 256 --batch-tokens 16384|1||"
  "capture bert-base data1 4096 tokens|capture|$bert --batch-rows 256 --batch-tokens 4096|1||"
  "capture bert-base data1 16384 tokens|capture|$bert --batch-rows 256 --batch-tokens 16384|1||"
)
if [ -n "$quick" ]; then cases=("${cases[@]:0:3}" "${cases[5]}"); fi
core=("${cases[@]:0:3}" "${cases[@]:$([ -n "$quick" ] && echo 3 || echo 5):1}")
for entry in "${cases[@]}"; do [[ $entry != *'mixed lengths'* ]] || core+=("$entry"); done

# Rows of 4 to 40 words, and one in sixteen that is longer than attention takes in one block.
mixed=$work/mixed.tsv
awk 'BEGIN {
  print "text\tlabel"
  for (row = 0; row < 4096; row++) {
    words = row % 16 == 7 ? 130 + row % 70 : 4 + row * 7 % 37
    text = "word"
    for (i = 1; i < words; i++) text = text " word"
    print text "\t" row % 7
  }
}' > "$mixed"

seconds=(--seconds "$([ -n "$rehearsal" ] && echo 0.5 || echo 2)")

# The flags of a case that ours and the peer share; fails, with the reason, where its rows are not there.
shared() { # SIZES NUMBER_OF_DATA_SET
  shared=($1)
  [ -z "$rehearsal" ] || shared=(${1/--length 128/--length 16})
  [ "$2" = 0 ] && return 0
  [ -n "$model" ] || { reason="no --model"; return 1; }
  if [ "$2" = mixed ]; then
    shared+=(--model "$model" --data "$mixed")
    [ -z "$rehearsal" ] || shared+=(--limit 48)
    return 0
  fi
  [ "${#data[@]}" -ge "$2" ] || { reason="no --data for data set $2"; return 1; }
  shared+=(--model "$model" --data "${data[$(($2 - 1))]}")
  [ -z "$rehearsal" ] || shared+=(--limit 512)
}
# The flags of a case for our program.
flags_of() { # SIZES NUMBER_OF_DATA_SET WHAT
  shared "$1" "$2" || return 1
  flags=("${shared[@]}" --device "$device" --json)
  [[ $1 == *--batch-tokens* ]] || flags+=(--batch-tokens 65536)
  precision bench "$3" && [ -z "$rehearsal" ] && flags+=(--precision bf16)
  return 0
}

if wanted bench; then
  say "speeds of ours"
  for entry in "${cases[@]}"; do
    IFS='|' read -r name what sizes set _ _ <<< "$entry"
    wanted_case "$name" || continue
    flags_of "$sizes" "$set" "$what" || { skip "ours-$(file_of "$name")" "$reason"; continue; }
    try "ours-$(file_of "$name")" 90 "$distill" bench "$what" "${flags[@]}" "${seconds[@]}"
  done
  command -v nvidia-smi > /dev/null &&
    nvidia-smi --query-gpu=clocks.sm,clocks.mem,temperature.gpu,power.draw,clocks_event_reasons.active --format=csv,noheader |
    tee -a "$output/machine.txt"
fi

# ---- what each launch takes, by the program's own events

if wanted launches && [ "$device" != cpu ]; then
  say "what each launch takes"
  for entry in "${core[@]}"; do
    IFS='|' read -r name what sizes set _ _ <<< "$entry"
    wanted_case "$name" || continue
    flags_of "$sizes" "$set" "$what" || { skip "launches-$(file_of "$name")" "$reason"; continue; }
    flags=("${flags[@]/--json/--launches}" --repeats 3)
    [ "$set" = 0 ] || [ -n "$rehearsal" ] || flags+=(--limit 2048)
    try "launches-$(file_of "$name")" 60 "$distill" bench "$what" "${flags[@]}" &&
      grep -A 12 '^launches' "$output/launches-$(file_of "$name").json"
  done
fi

# ---- captures of a masked-language model: the largest logits alone leave the device

if wanted masked; then
  say "captures of a masked-language model"
  if [ -z "$model" ] || [ "${#data[@]}" -eq 0 ]; then
    skip masked "needs --model with its weights, and --data"
  else
    # As many rows as a second or a few take.
    name=$(basename "${data[0]}" .gz)
    gzip -cdf "${data[0]}" | head -n "$([ -n "$rehearsal" ] && echo 65 || echo 1025)" > "$work/some-$name"
    if try masked-teacher 90 "$distill" finetune --task masked-lm --model "$model" --data "$work/some-$name" --max-steps 4 \
      --device "$device" --output "$work/masked-teacher" --overwrite --json; then
      # In the passes that the memory of the logits allows, and in those of before.
      for tokens in 16384 512; do
        try "masked-$tokens" 90 "$distill" cache --task masked-lm --teacher "$work/masked-teacher" --data "$work/some-$name" \
          --top-k 64 --batch-tokens "$tokens" --device "$device" --output "$work/masked-$tokens" --overwrite --force --json
      done
    fi
  fi
fi

# ---- loss curves

train() { # NAME DEVICE PRECISION
  local flags=(--teacher "$teacher" --cache "$work/cache" --data "${data[0]}" "${student[@]}" --epochs "$epochs"
    --keep last --device "$2" --output "$work/student-$1" --overwrite --json)
  precision train && flags+=(--precision "$3")
  try "curve-$1" 300 "$distill" train "${flags[@]}"
}

# Losses of the three runs at about eight steps, and the accuracies that they ended with.
curves() {
  awk -v OFS='\t' '
    FNR == 1 { run++ }
    /"event":"step"/ && match($0, /"step":[0-9]+/) {
      step = substr($0, RSTART + 7, RLENGTH - 7) + 0
      if (match($0, /"loss":[0-9.eE+-]+/)) loss[run, step] = substr($0, RSTART + 7, RLENGTH - 7)
      if (run == 1) steps[++count] = step
    }
    END {
      print "step", "CPU f32", "GPU f32", "GPU bf16"
      stride = count > 8 ? int(count / 8) : 1
      for (i = count; i > 0; i -= stride) shown[++lines] = steps[i]
      for (i = lines; i > 0; i--) {
        s = shown[i]
        printf "%d\t%.4f\t%.4f\t%.4f\n", s, loss[1, s], loss[2, s], loss[3, s]
      }
    }' "$@"
}

if wanted curves; then
  say "loss curves: the same training on the CPU in f32, on $device in f32 and in bf16"
  weights=''; [ -n "$model" ] && weights=$(find "$model/" -maxdepth 1 \( -name '*.safetensors' -o -name '*.bin' \) | head -n 1)
  if [ -z "$weights" ] || [ "${#data[@]}" -eq 0 ]; then
    skip curves "needs --model with its weights, and --data"
  else
    teacher=$work/teacher student=(--layers uniform --num-layers 3)
    grep -qE '"(hidden_size|dim)": *384' "$model/config.json" ||
      student=(--layers random --num-layers 3 --hidden-size 384 --num-heads 12 --intermediate-size 1536)
    [ -z "$rehearsal" ] || student=(--layers random --num-layers 1 --hidden-size 32 --num-heads 2)
    try curve-teacher 120 "$distill" finetune --model "$model" --data "${data[0]}" --epochs 2 --learning-rate 1e-4 \
      --device "$device" --output "$teacher" --overwrite --json &&
      try curve-cache 60 "$distill" cache --teacher "$teacher" --data "${data[0]}" --device "$device" \
        --output "$work/cache" --overwrite --force --json
    if [ "$(cat "$output/curve-cache.status" 2>/dev/null)" = passed ]; then
      train gpu-f32 "$device" f32; train gpu-bf16 "$device" bf16; train cpu-f32 cpu f32
      logs=("$work"/student-{cpu-f32,gpu-f32,gpu-bf16}/metrics.jsonl)
      for run in cpu-f32 gpu-f32 gpu-bf16; do cp "$work/student-$run/metrics.jsonl" "$output/metrics-$run.jsonl" 2> /dev/null; done
      if [ -e "${logs[0]}" ] && [ -e "${logs[1]}" ] && [ -e "${logs[2]}" ]; then
        curves "${logs[@]}" | tee "$output/curves.tsv" | awk -F '\t' '{ printf "%6s  %9s  %9s  %9s\n", $1, $2, $3, $4 }'
      fi
      accuracies=(); for run in cpu-f32 gpu-f32 gpu-bf16; do accuracies+=("$(field accuracy "$output/curve-$run.json")"); done
      last=()
      for log in "${logs[@]}"; do
        grep '"event":"step"' "$log" 2> /dev/null | tail -n 1 > "$work/last-step"
        last+=("$(field loss "$work/last-step")")
      done
      curve_line=$(awk -v a="${accuracies[0]}" -v b="${accuracies[1]}" -v c="${accuracies[2]}" \
        -v x="${last[0]}" -v y="${last[1]}" -v z="${last[2]}" 'BEGIN {
          printf "CPU f32 %.4f, GPU f32 %.4f, GPU bf16 %.4f; last loss %.4f, %.4f, %.4f", a, b, c, x, y, z }')
      echo "$curve_line" > "$output/curves.line"
      echo "validation accuracy $curve_line"
      # Two standard errors of an accuracy near 0.9 on 1,000 rows.
      if awk -v a="${accuracies[0]}" -v b="${accuracies[1]}" -v c="${accuracies[2]}" 'BEGIN {
          if (a == "" || b == "" || c == "") exit 1
          if ((a - b) ^ 2 > 0.0004 || (a - c) ^ 2 > 0.0004) exit 1 }'; then
        conclude curves passed
      else
        conclude curves "FAILED: accuracies further apart than 0.02, or missing"
      fi
    else
      skip curves "no teacher or no cache to learn from"
    fi
  fi
fi

# ---- the kernels over as much as training has, most of it computed again on the host

if wanted large && [ -z "$rehearsal" ]; then
  say "kernels at training's sizes"
  try large 200 "$distill" bench kernels --device "$device" --limit 190 --only large
  tail -n 4 "$output/large.json" 2>/dev/null
fi

# ---- peers, last: they take the longest, most of it in a compiler

if wanted peers; then
  say "speeds of PyTorch"
  if ! "$python" -c 'import torch, transformers, tokenizers; print("torch", torch.__version__)' 2> "$output/python.log"; then
    for entry in "${cases[@]}"; do
      [[ $entry == *'||' ]] || skip "peer-$(file_of "${entry%%|*}")" "no python3 with torch, transformers and tokenizers"
    done
  else
    for entry in "${cases[@]}"; do
      IFS='|' read -r name what sizes set modes _ <<< "$entry"
      wanted_case "$name" && [ -n "$modes" ] || continue
      shared "$sizes" "$set" || { skip "peer-$(file_of "$name")" "$reason"; continue; }
      [ -n "$quick$rehearsal" ] && modes=eager
      kind=(--device cuda); [ "$device" = cpu ] && kind=(--device cpu --precision f32)
      for mode in $modes; do
        flags=("${shared[@]}" "${seconds[@]}")
        # The order that these are measured against has this one at 16 tokens.
        [ "$mode" = graph ] && [[ $name == "train 3x384"* ]] && flags=(${small} --batch-rows 32 --length 16 "${seconds[@]}")
        try "peer-$(file_of "$name")-$mode" 120 "$python" "$peers/torch_gpu.py" "$what" "${flags[@]}" --mode "$mode" \
          "${kind[@]}" --json
      done
    done
  fi
fi

# ---- NVIDIA's tools, which slow a program down a hundredfold: small cases

small_case="--layers 2 --hidden-size 128 --heads 2 --intermediate-size 256 --labels 7 --batch-rows 6 --length 70 --repeats 1"
if wanted sanitizer; then
  say "compute-sanitizer"
  if [ "$device" = cpu ] || ! command -v compute-sanitizer > /dev/null; then
    skip sanitizer "no compute-sanitizer"
  else
    [ -z "$kernels" ] || export DISTILL_CUDA_KERNELS=$kernels
    for tool in memcheck racecheck synccheck initcheck; do
      # What is never written is read as padding here and there: reported, not counted.
      verdict=(--error-exitcode 1); [ "$tool" = initcheck ] && verdict=()
      for precision in bf16 f32; do
        [ "$tool" != initcheck ] || [ "$precision" = bf16 ] || continue
        try "sanitizer-$tool-$precision" 90 compute-sanitizer --tool "$tool" "${verdict[@]}" --print-limit 20 \
          --launch-timeout 60 "$distill" bench train $small_case --device "$device" --precision "$precision"
        grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$output/sanitizer-$tool-$precision.json"
      done
    done
    unset DISTILL_CUDA_KERNELS
  fi
fi

if wanted ncu; then
  say "ncu: bytes, and how busy the multiprocessors are"
  if [ "$device" = cpu ] || ! command -v ncu > /dev/null; then
    skip ncu "no ncu"
  else
    metrics=gpu__time_duration.sum,dram__bytes_read.sum,dram__bytes_write.sum
    metrics+=,sm__throughput.avg.pct_of_peak_sustained_elapsed,sm__warps_active.avg.pct_of_peak_sustained_active
    for entry in "${core[@]}"; do
      IFS='|' read -r name what sizes set _ _ <<< "$entry"
      wanted_case "$name" || continue
      flags_of "$sizes" "$set" "$what" || { skip "ncu-$(file_of "$name")" "$reason"; continue; }
      try "ncu-$(file_of "$name")" 90 ncu --clock-control none --launch-skip 600 --launch-count 260 --metrics "$metrics" \
        --csv --page raw "$distill" bench "$what" "${flags[@]}" --seconds 0.1
    done
  fi
fi

# ---- the table

{
say "summary"
failed=0 passed=0
for status in "$output"/*.status; do
  [ -e "$status" ] || continue
  name=$(basename "$status" .status)
  case $(cat "$status") in
    passed) passed=$((passed + 1)) ;;
    FAILED*) failed=$((failed + 1)); printf '%-34s %s\n' "$name" "$(cat "$status")" ;;
    skipped*) [[ $name == peer-* ]] || printf '%-34s %s\n' "$name" "$(cat "$status")" ;;
  esac
done
printf '%-40s %10s %7s  %s\n' "rows a second" ours ceiling "PyTorch: rows a second, ratio (goal)"
for entry in "${cases[@]}"; do
  IFS='|' read -r name _ _ _ modes goals <<< "$entry"
  # What an earlier call has left stays.
  wanted_case "$name" || [ -e "$output/ours-$(file_of "$name").json" ] || continue
  ours=$(field samples_per_second "$output/ours-$(file_of "$name").json")
  line='' goals=($goals) number=0
  for mode in $modes; do
    theirs=$(field samples_per_second "$output/peer-$(file_of "$name")-$mode.json")
    if [ -n "$theirs" ]; then
      ratio=$(divide "$ours" "$theirs") goal=${goals[$number]}
      met=$(awk -v r="$ratio" -v g="$goal" 'BEGIN { print (r + 0 >= g + 0 ? "met" : "BELOW") }')
      [ -z "$rehearsal" ] || met=rehearsal
      line+=$(printf '%s %.0f, %s (%s: %s); ' "$mode" "$theirs" "$ratio" "$goal" "$met")
    fi
    number=$((number + 1))
  done
  eager=$(field samples_per_second "$output/peer-$(file_of "$name")-eager.json")
  if [[ " $modes " != *" eager "* ]] && [ -n "$eager" ]; then
    line+=$(printf 'eager %.0f, %s' "$eager" "$(divide "$ours" "$eager")")
  fi
  share=$(field gemm_share "$output/ours-$(file_of "$name").json")
  printf '%-40s %10s %7s  %s\n' "$name" "$(awk -v n="$ours" 'BEGIN { if (n != "") printf "%.0f", n; else printf "-" }')" \
    "$(awk -v n="$share" 'BEGIN { if (n != "") printf "%.0f %%", 100 * n; else printf "-" }')" "${line%; }"
done
for tokens in 16384 512; do
  rate=$(field rows_per_second "$output/masked-$tokens.json")
  [ -z "$rate" ] || printf '%-40s %10.0f\n' "capture masked-lm, $tokens tokens" "$rate"
done
[ ! -e "$output/curves.line" ] || echo "curves: validation accuracy $(cat "$output/curves.line")"
[ "$call" -eq 1 ] || { echo "calls:"; grep '^call ' "$calls" | sed 's/^/  /'; }
echo "$passed passed, $failed failed, in $SECONDS s; details in $target/verify-gpu.tar.gz"
# Nothing checked is nothing passed.
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
} | tee "$target/summary.txt"
