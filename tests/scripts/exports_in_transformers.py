"""Export students of every kind of vocabulary and compare their answers with those of `transformers` on the same folders.

For WordPiece, byte-level byte-pair encoding and Unigram: a teacher with tests/fixtures/tokenizers' vocabulary, a student of
it, one with a pruned vocabulary, and both exported; and an XLM-RoBERTa and a CamemBERT, fine-tuned and exported. Each export
is loaded by `AutoTokenizer` and `AutoModelForSequenceClassification` of whichever version runs this; logits further off
than 1e-4 or another label fail (see transformers_parity.py).

usage:
    DISTILL=target/release/distill exports_in_transformers.py

Last run whole with transformers 4.57.6 and 5.23.0.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures"
DISTILL = os.path.abspath(os.environ["DISTILL"])
ROWS = 640


def distill(*arguments, stdin=None):
    done = subprocess.run([DISTILL, *map(str, arguments)], input=stdin, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: distill {' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout


def model_with(folder, base, form, model_type, tokenizer_class, pad):
    """A model of the fixture `base` with embeddings for the tokenizer `form`."""
    folder.mkdir()
    for file in (FIXTURES / "tokenizers" / form).iterdir():
        if file.name not in ("config.json", "ids.json"):
            shutil.copy(file, folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer_class} if tokenizer_class else {}))
    config = json.loads((FIXTURES / base / "config.json").read_text())
    config |= {"model_type": model_type, "vocab_size": ROWS, "pad_token_id": pad, "problem_type": None}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(FIXTURES / base / "model.safetensors")
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    torch.manual_seed(0)
    weights[name] = torch.randn(ROWS, weights[name].shape[1]) * 0.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def compare(place, export):
    """Compares the answers of an export; returns whether they are equal."""
    texts = [row for row in json.loads((FIXTURES / "tokenizers" / "rows.json").read_text()) if isinstance(row, str)]
    # One text is one line to predict.
    texts = [one for one in (" ".join(text.split()) for text in texts) if one and len(one) < 5000]
    rows, printed = place / "rows.jsonl", place / "logits.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    lines = place / "rows.txt"
    lines.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    printed.write_text(distill("predict", "--model", export, "--json", "--logits", "--max-length", 24, lines))
    parity = pathlib.Path(__file__).parent / "transformers_parity.py"
    done = subprocess.run(
        [sys.executable, parity, export, rows, printed, str(len(texts)), "--max-length", "24"], capture_output=True, text=True
    )
    # A comparison of answers that hardly depend on the text would say nothing.
    logits = torch.tensor([json.loads(line)["logits"] for line in printed.read_text().splitlines()])
    spread = float((logits.amax(0) - logits.amin(0)).min())
    tokenizer, serialized = AutoTokenizer.from_pretrained(export), Tokenizer.from_file(str(export / "tokenizer.json"))
    same = sum(tokenizer(text)["input_ids"] == serialized.encode(text).ids for text in texts)
    good = done.returncode == 0 and spread > 0.01 and same == len(texts)
    said = done.stdout.replace("\n", ", ").rstrip(", ") or done.stderr.strip().splitlines()[-1]
    said += f", over logits that differ by {spread:.2f}; ids of tokenizer.json in {same} rows"
    print(f"{export.name}: {'equal' if good else 'DIFFERENT'}: {said}", flush=True)
    return good


def main():
    print("transformers", transformers.__version__)
    train, equal = FIXTURES / "e2e" / "train.tsv", []
    forms = [("bert-vocab", "BertTokenizer", 0), ("roberta-files", "RobertaTokenizer", 1), ("xlmr-spm", "XLMRobertaTokenizer", 1)]
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        for form, tokenizer_class, pad in forms:
            teacher, cache = place / f"{form}-teacher", place / f"{form}-cache"
            model_with(teacher, "e2e/teacher", form, "bert", tokenizer_class, pad)
            distill("cache", "--teacher", teacher, "--data", train, "--output", cache, "--force")
            for flags in (["distilbert"], ["distilbert", "--prune-vocabulary"], ["bert", "--prune-vocabulary"]):
                name = "-".join([form, *flags]).replace("---", "-")
                student, export = place / f"{name}-student", place / f"{name}-export"
                distill("train", "--teacher", teacher, "--cache", cache, "--data", train, "--output", student, "--epochs", 3,
                        "--learning-rate", 0.003, "--force", "--model-type", *flags)
                distill("export", "--model", student, "--output", export)
                equal.append(compare(place, export))
        for model_type, form in (("roberta", "roberta-files"), ("xlm-roberta", "xlmr-spm"), ("camembert", "camembert-spm")):
            base, tuned, export = (place / f"{model_type}-{what}" for what in ("base", "tuned", "export"))
            model_with(base, "tiny-roberta", form, model_type, None, 1)
            distill("finetune", "--model", base, "--data", train, "--output", tuned, "--epochs", 3, "--learning-rate", 0.003, "--max-length", 24)
            distill("export", "--model", tuned, "--output", export)
            equal.append(compare(place, export))
    sys.exit(0 if all(equal) else 1)


if __name__ == "__main__":
    main()
