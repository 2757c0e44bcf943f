#!/usr/bin/env python3
"""Kill trainings at random moments, again and again: each must end with the bytes of one that was never stopped.

usage:  kill_training.py [--kills 100] [--seed 1] [--teacher FOLDER --cache FOLDER --data FILE] [--flags "..."]

A training with a plateau schedule, early stopping, evaluations between epochs and a checkpoint every few steps is killed
with SIGKILL and resumed until it is done; then the next one begins. DISTILL names the program (default: distill); without
--teacher, --cache and --data it is the fixture's. Python's standard library alone. Prints one line, and ends with an error
where anything is not as it has to be.
"""

import argparse, os, random, shutil, signal, subprocess, sys, tempfile, time
from pathlib import Path

PROGRAM = os.environ.get("DISTILL", "distill")
FIXTURE = Path(__file__).resolve().parent.parent / "fixtures/e2e"
FLAGS = (
    "--layers 0 --epochs 12 --schedule plateau --plateau-patience 1 --plateau-factor 0.5 --evaluate-steps 7 "
    "--metric loss --patience 40 --checkpoint-every 3 --ema-decay 0.9 --layer-decay 0.8 --head-learning-rate 2e-4 "
    "--freeze embeddings --max-gradient-value 0.1 --recompute --class-weights balanced --focal-gamma 1 --r-drop 1"
)

def check(good, message):
    if not good:
        sys.exit(f"error: {message}")

def start(line, output, *flags):
    command = [PROGRAM, *line, "--output", str(output), *flags]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

def succeed(line, output, *flags):
    process = start(line, output, *flags)
    _, stderr = process.communicate()
    check(process.returncode == 0, f"{line} ends with {process.returncode}: {stderr}")

def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage:  ")[1].splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--teacher", default=str(FIXTURE / "teacher"))
    parser.add_argument("--cache")
    parser.add_argument("--data", default=str(FIXTURE / "train.tsv"))
    parser.add_argument("--flags", default=FLAGS, help="of the training")
    parser.add_argument("--keep", help="folder to copy everything to where the bytes are others")
    args = parser.parse_args()
    dice = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        cache = args.cache or str(folder / "cache")
        if not args.cache:
            succeed(["cache", "--teacher", args.teacher, "--data", args.data], cache)
        line = ["train", "--teacher", args.teacher, "--cache", cache, "--data", args.data, *args.flags.split()]
        begun = time.monotonic()
        succeed(line, folder / "undisturbed")
        seconds, wanted = time.monotonic() - begun, files(folder / "undisturbed")
        kills = trainings = 0
        while kills < args.kills:
            output = folder / "out"
            shutil.rmtree(output, ignore_errors=True)
            trainings, done = trainings + 1, False
            while not done:
                resume = ["--resume"] if (output / "metrics.jsonl").exists() else []
                process = start(line, output, *resume)
                try:
                    _, stderr = process.communicate(timeout=dice.uniform(0.05, max(0.5, seconds / 3)))
                    check(process.returncode == 0, f"{line} ends with {process.returncode}: {stderr}")
                    done = True
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.communicate()
                    kills += 1
            found = files(output)
            other = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
            if other and args.keep:
                shutil.copytree(folder, args.keep)
            check(not other, f"training {trainings} ends with other {', '.join(other)}, after {kills} kills")
        print(f"{kills} kills of {trainings} trainings of {seconds:.1f} s: each ends with the same bytes")

if __name__ == "__main__":
    main()
