#!/usr/bin/env bash
# Ours and the peers on one CPU, alternately in one run: capture of a model, and training steps of three students, on the
# same rows with the same tokenizer and the same vocabulary; our student with a pruned vocabulary beside.
#
# usage: compare_cpu.sh --model FOLDER --data FILE [flags]
#   --model FOLDER     what is captured; its tokenizer reads the rows for all (such as all-MiniLM-L6-v2)
#   --data FILE        rows with labels: .jsonl, .tsv or .csv
#   --limit N          rows [2048]; the widest student takes a quarter of them
#   --rounds N         times that everything is measured, in turns [3]
#   --repeats N        passes over the rows that are timed in each round, behind a warm-up pass [1]
#   --threads N        for each of them [one a core]
#   --cases LIST       of capture, 3x384, 2x128, 6x768, mobilebert and mobilebert-capture (4 layers of the published
#                      widths, random weights), with commas [all]
#   --batch-rows N     rows in a step [32]
#   --text-column NAME, --label-column NAME
#   --output FOLDER    every result as JSON, to be kept [a temporary folder]
# DISTILL names the program [distill], PYTHON a python3 with torch, transformers, onnx and onnxruntime [python3].
# Each measurement is a process of its own. Prints medians over the rounds: rows a second, our ratio to each peer, and the
# peak memory of the process (getrusage of the peers; VmHWM of ours, which is the same figure of the kernel).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
distill=${DISTILL:-distill} python=${PYTHON:-python3}
model='' data='' limit=2048 rounds=3 repeats=1 threads=$(nproc) cases=capture,3x384,2x128,6x768,mobilebert,mobilebert-capture batch=32 output=''
columns=()
while [ $# -gt 0 ]; do
  case $1 in
    --model) model=$2 ;; --data) data=$2 ;; --limit) limit=$2 ;; --rounds) rounds=$2 ;; --repeats) repeats=$2 ;;
    --threads) threads=$2 ;; --cases) cases=$2 ;; --batch-rows) batch=$2 ;; --output) output=$2 ;;
    --text-column | --label-column) columns+=("$1" "$2") ;;
    *) sed -n '2,20s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
  [ $# -ge 2 ] || { echo "$1: its value is missing" >&2; exit 2; }
  shift 2
done
[ -n "$model" ] && [ -n "$data" ] || { sed -n '2,20s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ -n "$output" ] || { output=$(mktemp -d); trap 'rm -rf "$output"' EXIT; }
mkdir -p "$output"
# Some machines set these for another BLAS; they would slow the peers down.
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=$threads TOKENIZERS_PARALLELISM=false

measure() { # NAME COMMAND..: the JSON goes to OUTPUT/NAME.json, and what went wrong is shown
  local name=$1; shift
  echo "$name" >&2
  if ! "$@" --json > "$output/$name.json" 2> "$output/$name.log"; then
    echo "  failed:" >&2; tail -n 5 "$output/$name.log" >&2; rm "$output/$name.json"
  fi
}

measure_case() { # CASE ROUND
  local case=$1 round=$2 rows=$limit sizes=()
  local flags=(--model "$model" --data "$data" "${columns[@]}" --repeats "$repeats" --threads "$threads")
  case $case in
    capture)
      measure "capture.$round.distill" "$distill" bench capture "${flags[@]}" --limit "$rows"
      measure "capture.$round.torch" "$python" "$here/torch_cpu.py" capture "${flags[@]}" --limit "$rows"
      measure "capture.$round.onnx" "$python" "$here/onnx_cpu.py" capture "${flags[@]}" --limit "$rows" \
        --onnx "$output/model.onnx"
      return ;;
    3x384) sizes=(--layers 3 --hidden-size 384 --heads 12 --intermediate-size 1536) ;;
    mobilebert) sizes=(--model-type mobilebert --layers 4) ;;
    mobilebert-capture)
      flags+=(--model-type mobilebert --layers 4 --vocab-size "$vocabulary" --limit "$rows")
      measure "$case.$round.distill" "$distill" bench capture "${flags[@]}"
      measure "$case.$round.torch" "$python" "$here/torch_cpu.py" capture "${flags[@]}"
      return ;;
    2x128) sizes=(--layers 2 --hidden-size 128 --heads 2 --intermediate-size 512) ;;
    6x768) sizes=(--layers 6 --hidden-size 768 --heads 12 --intermediate-size 3072) rows=$((limit / 4)) ;;
    *) echo "no case $case" >&2; exit 2 ;;
  esac
  # The peer has no other way to know how many pieces the tokenizer has.
  flags+=("${sizes[@]}" --vocab-size "$vocabulary" --limit "$rows" --batch-rows "$batch")
  measure "$case.$round.distill" "$distill" bench train "${flags[@]}" --prune-vocabulary
  measure "$case.$round.torch" "$python" "$here/torch_cpu.py" train "${flags[@]}"
}

vocabulary=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1] + "/config.json"))["vocab_size"])' "$model")
for round in $(seq "$rounds"); do
  for case in ${cases//,/ }; do measure_case "$case" "$round"; done
done

"$python" - "$output" "$cases" <<'PYTHON'
import glob, json, os, statistics, sys

folder, cases = sys.argv[1], sys.argv[2].split(",")


def figures(case, who, vocabulary=0):
    """Median rows a second and peak bytes over the rounds, the spread of the rounds, and how many there were."""
    speeds, peaks = [], []
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), f"{case}.*.{who}.json"))):
        report = json.load(open(path))
        found = report["cases"][vocabulary]
        speeds.append(found["samples_per_second"])
        # A process of ours times the full vocabulary first: what it took at most is that one's. The pruned one's is counted
        # anew; the peers have one case a process.
        peaks.append(found["peak_memory_bytes"] if vocabulary else report["process_peak_memory_bytes"])
    if not speeds:
        return None
    peaks = [peak for peak in peaks if peak] or [0]
    median = statistics.median(speeds)
    return median, statistics.median(peaks), (max(speeds) - min(speeds)) / median, len(speeds)


def line(*cells):
    print("{:<22} {:>10} {:>8} {:>8} {:>8} {:>10} {:>8}".format(*cells))


print()
line("", "rows/s", "spread", "ratio", "rounds", "memory", "ratio")
for case in cases:
    peers = [("PyTorch", figures(case, "torch"))]
    if case == "capture":
        peers.append(("ONNX Runtime", figures(case, "onnx")))
    ours = [("distill", figures(case, "distill"))]
    if not case.endswith("capture"):
        ours.append(("distill, pruned", figures(case, "distill", 1)))
    full = ours[0][1]
    print(case)
    for name, found in ours + peers:
        if found is None:
            line(f"  {name}", "-", "-", "-", "0", "-", "-")
            continue
        speed, memory, spread, rounds = found
        peer = (name, found) in peers and full
        ratio = f"{full[0] / speed:.2f}" if peer else ""
        less = f"{full[1] / memory:.2f}" if peer and memory else ""
        line(f"  {name}", f"{speed:.1f}", f"{100 * spread:.1f} %", ratio, rounds, f"{memory / 1e6:.0f} MB", less)
print("\nratio: ours to the peer, both with the full vocabulary; of memory, less is better")
PYTHON
