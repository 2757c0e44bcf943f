#!/usr/bin/env python3
"""What a teacher is worth where a few rows of each class have a label: a small student at random that learns from its
teacher's answers to all texts, beside the same student from the same start on the labels alone, for as many steps.

usage:  few_labels.py MODEL TRAIN TEST OUTPUT [--labels 10] [--validation 1000] [--seeds 3] [--epochs 40] [--rate 3e-4]
                      [--set KEY=VALUE]..

MODEL is a folder or Hub name; TRAIN and TEST are labelled rows in JSON lines with `text` and `label`, plain or gzipped. Of
TRAIN, --labels rows a class keep their label and --validation rows are for choosing settings; the others are texts alone. The
teacher is MODEL fine-tuned on the labelled rows (--epochs, --rate), of which the best epoch on the validation rows is kept. The student is that of recipes/few-labels.toml, with
--set over it. TEST is read once, at the end. What is in OUTPUT already is kept if it was made with the same flags, else refused. DISTILL names the program (default: distill);
Python's standard library alone. Prints one line, and `compare`'s table on stderr; OUTPUT/compare.json has all of it.
"""

import argparse, gzip, json, os, random, subprocess, sys
from pathlib import Path

PROGRAM = os.environ.get("DISTILL", "distill")
RECIPE = Path(__file__).resolve().parent.parent.parent / "recipes/few-labels.toml"

def read(path):
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        return [{key: row[key] for key in ("text", "label")} for row in map(json.loads, lines)]

def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")

def split(rows, labels, validation):
    """Labelled rows, validation rows, and texts; the same for the same file."""
    random.Random(7).shuffle(rows)
    seen, few, rest = {}, [], []
    for row in rows:
        seen[row["label"]] = seen.get(row["label"], 0) + 1
        (few if seen[row["label"]] <= labels else rest).append(row)
    return few, rest[:validation], [{"text": row["text"]} for row in rest[validation:]]

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    for name in ("train", "test", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--labels", type=int, default=10)
    parser.add_argument("--validation", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--rate", default="3e-4")
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    files = {name: args.output / f"{name}.jsonl" for name in ("labelled", "validation", "texts", "test")}
    rows = split(read(args.train), args.labels, args.validation)
    for path, part in zip(files.values(), [*rows, read(args.test)]):
        write(path, part)
    teacher = args.output / "teacher"
    finetune = subprocess.run(
        [PROGRAM, "finetune", "--model", args.model, "--data", files["labelled"], "--validation", files["validation"],
         "--epochs", str(args.epochs), "--learning-rate", args.rate, "--output", teacher, "--resume"],
        stdout=subprocess.DEVNULL)
    if finetune.returncode != 0:
        sys.exit(finetune.returncode)
    settings = [f"teacher.model={teacher}", f"data.train={files['labelled']}", f"data.validation={files['validation']}",
                f"data.unlabelled={files['texts']}", f"data.test={files['test']}", "data.max_length=128", *args.set]
    command = [PROGRAM, "compare", RECIPE, "--seeds", str(args.seeds), "--output", args.output / "compare", "--json"]
    done = subprocess.run([*command, *(word for setting in settings for word in ("--set", setting))],
                          stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(done.returncode)
    (args.output / "compare.json").write_text(done.stdout)
    print(done.stdout.strip())

main()
