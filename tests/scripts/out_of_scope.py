#!/usr/bin/env python3
"""Whether a classifier's confidence tells texts of its classes from texts of none.

usage:  out_of_scope.py INSIDE OUTSIDE MODEL..

INSIDE and OUTSIDE are rows in JSON lines with `text`: of the model's classes, and of none of them. For each model it prints the area
under the ROC curve of the largest probability (1: every text inside is surer than every one outside; 0.5: no difference), the
part of the texts outside that pass where 95 % of those inside do, and the mean of the largest probability on each side. DISTILL
names the program (default: distill); Python's standard library alone.
"""

import json, math, os, subprocess, sys

PROGRAM = os.environ.get("DISTILL", "distill")

def confidence(model, path):
    with open(path, encoding="utf-8") as lines:
        texts = [json.loads(line)["text"].replace("\n", " ") for line in lines]
    done = subprocess.run([PROGRAM, "predict", "--model", model, "--json", "--logits"], input="\n".join(texts) + "\n",
                          stdout=subprocess.PIPE, text=True, check=True)
    def largest(line):
        logits = json.loads(line)["logits"]
        logits = list(logits.values()) if isinstance(logits, dict) else logits
        return 1 / sum(math.exp(logit - max(logits)) for logit in logits)
    return [largest(line) for line in done.stdout.splitlines()]

def area(inside, outside):
    """The Mann-Whitney statistic over the number of pairs; equals count half."""
    both = sorted([(value, 1) for value in inside] + [(value, 0) for value in outside])
    ranks, start = 0.0, 0
    while start < len(both):
        end = start
        while end < len(both) and both[end][0] == both[start][0]:
            end += 1
        ranks += sum(side for _, side in both[start:end]) * (start + 1 + end) / 2
        start = end
    return (ranks - len(inside) * (len(inside) + 1) / 2) / (len(inside) * len(outside))

def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__.strip())
    for model in sys.argv[3:]:
        inside, outside = (confidence(model, path) for path in sys.argv[1:3])
        limit = sorted(inside)[int(0.05 * len(inside))]
        passed = sum(value >= limit for value in outside) / len(outside)
        means = [sum(side) / len(side) for side in (inside, outside)]
        print(f"{model}: area {area(inside, outside):.4f}, {100 * passed:.1f} % outside pass where 95 % inside do, "
              f"mean confidence {means[0]:.3f} inside and {means[1]:.3f} outside")

main()
