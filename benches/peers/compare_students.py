#!/usr/bin/env python3
"""Trains the same student with `distill train` and with PyTorch (`torch_student.py`), seed by seed from the same initial
weights, and prints the accuracies on the test rows with their means and the difference.

usage: compare_students.py OUTPUT --teacher FOLDER --data TRAIN --test TEST --epochs N --learning-rate RATE
       [--seeds 1,2,3,4,5] [--student "FLAGS OF distill train"] [--dropout 0.1] [--threads 2] [--by-length]

e.g.   compare_students.py /tmp/banking --teacher teacher --data train.jsonl --test test.jsonl --epochs 10 \\
         --learning-rate 1e-3 --student "--layers random --num-layers 2 --hidden-size 128" --dropout 0

Each run's result stays in OUTPUT, and a run that is there is not repeated. DISTILL names the program (default: distill).
--by-length trains in PyTorch once more, on batches of rows of similar length."""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAM = os.environ.get("DISTILL", "distill")


def run(command):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}")
    return json.loads(done.stdout)


def kept(path, settings, make):
    """The result in a file, made if it is not there or was made with other settings."""
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("settings") != settings:
        found = {**make(), "settings": settings}
        path.with_suffix(".new").write_text(json.dumps(found))
        path.with_suffix(".new").rename(path)
    return found


def interval(values):
    """Mean, standard deviation, and half a 95 % interval of the mean by Student's t."""
    quantile = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262]
    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return mean, math.nan, math.nan
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    return mean, deviation, quantile[min(n - 1, 9) - 1] * deviation / math.sqrt(n)


def main():
    flags = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    flags.add_argument("output", type=Path)
    for name in ("teacher", "data", "test", "epochs", "learning-rate"):
        flags.add_argument(f"--{name}", required=True)
    flags.add_argument("--seeds", default="1,2,3,4,5")
    flags.add_argument("--student", default="")
    flags.add_argument("--dropout", default="0.1")
    flags.add_argument("--threads", default="2")
    flags.add_argument("--by-length", action="store_true")
    flags = flags.parse_args()
    output = flags.output
    output.mkdir(parents=True, exist_ok=True)
    cache = output / "cache"
    if not (output / "cache.json").exists():
        made = run([PROGRAM, "cache", "--json", "--teacher", flags.teacher, "--data", flags.data, "--output", cache])
        (output / "cache.json").write_text(json.dumps(made))
    of_teacher = ["--teacher", flags.teacher, "--data", flags.data]

    def ours(seed, rate):
        line = [PROGRAM, "train", "--json", *of_teacher, "--cache", cache, "--validation", flags.test, "--keep", "last"]
        line += ["--epochs", flags.epochs, "--learning-rate", rate, "--evaluate-every", flags.epochs]
        line += ["--dropout", flags.dropout, "--seed", seed, "--overwrite"]
        line += ["--temperature", 2, "--weight-soft", 0.5, "--weight-hard", 0.5]
        line += ["--threads", flags.threads, *flags.student.split()]
        return line

    def theirs(seed, *more):
        # A step at a rate of almost nothing: the initial weights, in a folder that `transformers` loads.
        start = output / f"start-{seed}"
        run([*ours(seed, "1e-30"), "--max-steps", 1, "--output", start])
        line = [sys.executable, HERE / "torch_student.py", "--start", start, *of_teacher, "--test", flags.test]
        line += ["--epochs", flags.epochs, "--learning-rate", flags.learning_rate, "--seed", seed]
        line += ["--threads", flags.threads, *more]
        found = run(line)
        shutil.rmtree(start)
        return found

    def distill(seed):
        folder = output / f"student-{seed}"
        found = run([*ours(seed, flags.learning_rate), "--output", folder])
        shutil.rmtree(folder)
        return found

    columns = {"distill": distill, "PyTorch": theirs}
    if flags.by_length:
        columns["PyTorch, by length"] = lambda seed: theirs(seed, "--by-length")
    seeds = flags.seeds.split(",")
    found = {name: [] for name in columns}
    settings = [flags.teacher, flags.data, flags.test, flags.epochs, flags.learning_rate, flags.student, flags.dropout]
    for seed in seeds:
        for name, make in columns.items():
            file = output / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}.json"
            found[name].append(kept(file, settings, lambda make=make, seed=seed: make(seed)))
            print(f"seed {seed}  {name}: {found[name][-1]['accuracy']:.4f}  {found[name][-1]['seconds']:.0f} s", flush=True)
    accuracies = {name: [report["accuracy"] for report in reports] for name, reports in found.items()}
    for name, values in accuracies.items():
        mean, deviation, half = interval(values)
        print(f"{name}: mean {mean:.4f}, deviation {deviation:.4f}, 95 % interval {mean - half:.4f} to {mean + half:.4f}")
    for name in list(columns)[1:]:
        differences = [a - b for a, b in zip(accuracies["distill"], accuracies[name])]
        mean, _, half = interval(differences)
        print(f"distill less {name}: {mean:+.4f}, 95 % interval {mean - half:+.4f} to {mean + half:+.4f}")


if __name__ == "__main__":
    main()
