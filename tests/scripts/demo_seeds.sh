#!/usr/bin/env bash
# What the teacher is worth in the demo: the demo's student with and without it, over seeds.
#
# usage: demo_seeds.sh OUTPUT SEED..        e.g. demo_seeds.sh /tmp/seeds 1 2 3 4 5
# Each seed's report goes to OUTPUT/SEED.json; one that is there is not run again. Prints both accuracies a seed, and the
# mean of their differences with a 95 % interval (Student's t over the seeds).
# DISTILL names the program (default: distill).
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }
output=$1 distill=${DISTILL:-distill}; shift
mkdir -p "$output"
for seed in "$@"; do
  [ -e "$output/$seed.json" ] && continue
  "$distill" demo --json --seed "$seed" --output "$output/run-$seed" > "$output/$seed.json.new"
  mv "$output/$seed.json.new" "$output/$seed.json"; rm -r "$output/run-$seed"
done
python3 - "$output" "$@" <<'PYTHON'
import json, math, sys

folder, seeds = sys.argv[1], sys.argv[2:]
# 97.5 % quantiles of Student's t for 1 to 9 degrees of freedom.
quantile = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262]
differences = []
print("seed  teacher  with teacher  without  difference  seconds")
for seed in seeds:
    report = json.load(open(f"{folder}/{seed}.json"))
    teacher, student, baseline = (report[model]["accuracy"] for model in ("teacher", "student", "baseline"))
    differences.append(student - baseline)
    print(f"{seed:>4}  {teacher:.4f}   {student:.4f}        {baseline:.4f}   {student - baseline:+.4f}     {report['seconds']:.0f}")
n, mean = len(differences), sum(differences) / len(differences)
if n > 1:
    deviation = math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1))
    half = quantile[min(n - 1, 9) - 1] * deviation / math.sqrt(n)
    print(f"mean difference {mean:+.4f}, 95 % interval {mean - half:+.4f} to {mean + half:+.4f}, deviation {deviation:.4f}")
PYTHON
