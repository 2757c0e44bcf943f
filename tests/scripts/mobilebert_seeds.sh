#!/usr/bin/env bash
# A MobileBERT student of Banking77 beside one in DistilBERT's form with as many parameters (6.1 million): six layers from a
# random start each, 20 epochs, the demo's teacher. Each form takes the learning rate, of those tried, that is best on the
# validation rows over the seeds.
#
# usage: mobilebert_seeds.sh OUTPUT SEED..        e.g. mobilebert_seeds.sh /tmp/forms 1 2 3
# Each run's reports go to OUTPUT; one that is there is not run again. Prints the accuracies on the test rows, and the mean
# difference with a 95 % interval (Student's t over the seeds). On 2 CPU cores a run takes about ten minutes.
# DISTILL names the program (default: distill), DEVICE where it computes (auto), JOBS how many runs at a time (1), RATES the
# learning rates (3e-4 1e-3), EPOCHS how long (20).
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2; }
export output=$1 distill=${DISTILL:-distill} device=${DEVICE:-auto} epochs=${EPOCHS:-20}; shift
rates=${RATES:-3e-4 1e-3}
demo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../distill/demo" && pwd); export demo
mkdir -p "$output"
[ -e "$output/cache" ] || "$distill" cache --teacher "$demo/teacher" --data "$demo/banking77/train.jsonl.gz" \
  --device "$device" --output "$output/cache"

one() { # FORM SEED RATE
  local name="$1-$2-$3" sizes
  [ -e "$output/$name.test.json" ] && return
  case $1 in
    mobilebert) sizes="--model-type mobilebert --hidden-size 512 --bottleneck-size 128 --num-heads 4" ;;
    distilbert) sizes="--model-type distilbert --hidden-size 256 --intermediate-size 1024 --num-heads 4" ;;
  esac
  # shellcheck disable=SC2086 # flags
  "$distill" train --teacher "$demo/teacher" --cache "$output/cache" --data "$demo/banking77/train.jsonl.gz" $sizes \
    --layers random --num-layers 6 --epochs "$epochs" --learning-rate "$3" --seed "$2" --device "$device" \
    --output "$output/$name" --overwrite --json > "$output/$name.train.json" 2> "$output/$name.log"
  "$distill" evaluate --model "$output/$name" --data "$demo/banking77/test.jsonl.gz" --device "$device" --json \
    > "$output/$name.new" 2>> "$output/$name.log"
  mv "$output/$name.new" "$output/$name.test.json"; rm -r "${output:?}/$name"
}
export -f one
for form in mobilebert distilbert; do for seed in "$@"; do for rate in $rates; do echo "$form $seed $rate"; done; done; done |
  xargs -P "${JOBS:-1}" -L 1 bash -euc 'one "$@"' one

python3 - "$output" "$rates" "$@" <<'PYTHON'
import json, math, sys

folder, rates, seeds = sys.argv[1], sys.argv[2].split(), sys.argv[3:]
# 97.5 % quantiles of Student's t for 1 to 9 degrees of freedom.
quantile = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262]


def accuracy(form, seed, rate, rows):
    report = json.load(open(f"{folder}/{form}-{seed}-{rate}.{rows}.json"))
    return report["accuracy"]


def mean(values):
    return sum(values) / len(values)


tests = {}
for form in ("mobilebert", "distilbert"):
    on_validation = {rate: mean([accuracy(form, seed, rate, "train") for seed in seeds]) for rate in rates}
    rate = max(rates, key=on_validation.get)
    tests[form] = [accuracy(form, seed, rate, "test") for seed in seeds]
    tried = ", ".join(f"{rate}: {value:.4f}" for rate, value in on_validation.items())
    print(f"{form}: learning rate {rate} (validation {tried}); test {' '.join(f'{value:.4f}' for value in tests[form])}")
differences = [a - b for a, b in zip(tests["mobilebert"], tests["distilbert"])]
n = len(differences)
text = f"mobilebert {mean(tests['mobilebert']):.4f}, distilbert {mean(tests['distilbert']):.4f}, difference {mean(differences):+.4f}"
if n > 1:
    deviation = math.sqrt(sum((d - mean(differences)) ** 2 for d in differences) / (n - 1))
    half = quantile[min(n - 1, 9) - 1] * deviation / math.sqrt(n)
    text += f", 95 % interval {mean(differences) - half:+.4f} to {mean(differences) + half:+.4f}"
print(text)
PYTHON
