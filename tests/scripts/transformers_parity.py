"""Compare the logits that `distill predict` printed with those of Hugging Face `transformers` on the same folder.

The export promises a folder that `transformers` loads as it is, and the same answers there. This checks both: weights
that are missing, left over or of another shape are an error, and so is a logit further off than 1e-4 or another label.

usage:
    distill predict --model EXPORT --json --logits < TEXTS > LOGITS.jsonl
    transformers_parity.py MODEL_DIR ROWS.jsonl LOGITS.jsonl [N] [--max-length 128] [--batch-rows 1]

ROWS.jsonl      one object a line with `text`, and `text_b` where the task is about pairs
LOGITS.jsonl    one object a line, for the same rows in the same order: `logits` in the order of the ids, and `label`
N               rows to compare, from the start (default 200; fewer if the files hold fewer)

Prints the largest absolute difference and the number of rows with another label; exits 1 if either is too large.
Written for torch 2.15.0 and transformers 5.23.0.
"""

import argparse
import itertools
import json
import sys

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

TOLERANCE = 1e-4


def read_lines(path, count):
    """The first `count` objects of a JSONL file."""
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in itertools.islice(lines, count)]


def load_model(folder):
    """The model in f32, whatever the folder stores; exits unless every weight found its place."""
    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    wrong = {kind: sorted(map(str, names)) for kind, names in info.items() if names}
    if wrong:
        sys.exit(f"error: {folder}: the weights do not fit the model: {json.dumps(wrong)}")
    return model.eval()


def length_limit(model, max_length):
    """Tokens a row may have: the position table bounds it, and RoBERTa's first rows are not for tokens."""
    offset = model.config.pad_token_id + 1 if model.config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    return min(max_length, model.config.max_position_embeddings - offset)


@torch.inference_mode()
def logits_of(model, tokenizer, rows, max_length, batch_rows):
    parts = []
    for start in range(0, len(rows), batch_rows):
        part = rows[start : start + batch_rows]
        pairs = [row["text_b"] for row in part] if "text_b" in part[0] else None
        texts = [row["text"] for row in part]
        # One row at a time needs no padding, which is the plainest form of the question.
        encoded = tokenizer(
            texts, pairs, truncation=True, max_length=max_length, padding=batch_rows > 1, return_tensors="pt"
        )
        parts.append(model(**encoded).logits)
    return torch.cat(parts)


def main():
    parser = argparse.ArgumentParser(description="Compare printed logits with those of transformers.")
    parser.add_argument("model_dir")
    parser.add_argument("rows")
    parser.add_argument("logits")
    parser.add_argument("count", nargs="?", type=int, default=200, metavar="N")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--batch-rows", type=int, default=1)
    arguments = parser.parse_args()

    rows = read_lines(arguments.rows, arguments.count)
    printed = read_lines(arguments.logits, len(rows))
    if not rows or len(printed) < len(rows):
        sys.exit(f"error: {arguments.rows} gives {len(rows)} rows, {arguments.logits} only {len(printed)}")

    model = load_model(arguments.model_dir)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model_dir)
    expected = logits_of(
        model, tokenizer, rows, length_limit(model, arguments.max_length), arguments.batch_rows
    ).double()
    found = torch.tensor([row["logits"] for row in printed], dtype=torch.float64)
    if found.shape != expected.shape:
        sys.exit(f"error: logits are {list(found.shape)} in {arguments.logits}, {list(expected.shape)} in transformers")

    differences = (found - expected).abs().amax(dim=-1)
    worst = int(differences.argmax())
    names = [model.config.id2label[int(number)] for number in expected.argmax(dim=-1)]
    disagreements = [number for number, (row, name) in enumerate(zip(printed, names)) if row["label"] != name]
    print(f"rows: {len(rows)}")
    print(f"largest difference: {differences[worst]:.3e} (row {worst + 1})")
    print(f"label disagreements: {len(disagreements)}", *(f"(first: row {n + 1})" for n in disagreements[:1]))
    # Written so that a difference that is not a number fails too.
    sys.exit(0 if bool((differences <= TOLERANCE).all()) and not disagreements else 1)


if __name__ == "__main__":
    main()
