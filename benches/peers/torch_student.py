#!/usr/bin/env python3
"""Trains a student in PyTorch with `transformers`, as `distill train` does: from the same initial weights, on the same
teacher's logits and the same rows, with the same loss, optimiser, schedule and clipping. What differs is the order of the
rows, the dropout masks and the arithmetic.

usage: torch_student.py --start FOLDER --teacher FOLDER --data FILE --test FILE --epochs N --learning-rate RATE
       [--batch-rows 32] [--temperature 2] [--weight-soft 0.5] [--weight-hard 0.5] [--warmup-ratio 0.06]
       [--weight-decay 0.01] [--max-length 128] [--seed 42] [--threads 2] [--by-length]

--start is a folder with the student's initial weights, such as `compare_students.py` makes; its config.json has the dropout.
--by-length takes batches of rows of similar length instead of random ones. Prints a JSON object: accuracy on the test rows,
agreement with the teacher, loss of the last step, seconds."""

import argparse
import json
import random
import time

import torch
import torch.nn.functional as F
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

import common


def arguments():
    flags = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    for name in ("start", "teacher", "data", "test"):
        flags.add_argument(f"--{name}", required=True)
    flags.add_argument("--epochs", type=int, required=True)
    flags.add_argument("--learning-rate", type=float, required=True)
    for name, default in (
        ("temperature", 2.0), ("weight-soft", 0.5), ("weight-hard", 0.5), ("warmup-ratio", 0.06), ("weight-decay", 0.01),
    ):
        flags.add_argument(f"--{name}", type=float, default=default)
    for name, default in (("batch-rows", 32), ("max-length", 128), ("seed", 42), ("threads", 2)):
        flags.add_argument(f"--{name}", type=int, default=default)
    flags.add_argument("--by-length", action="store_true")
    return flags.parse_args()


def rows(path, tokenizer, ids, max_length):
    texts, labels = common.read(path, "text", "label")
    encoded = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    return encoded, torch.tensor([ids[label] for label in labels])


def padded(encoded, batch):
    longest = max(len(encoded[row]) for row in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    mask = torch.zeros(len(batch), longest, dtype=torch.long)
    for place, row in enumerate(batch):
        length = len(encoded[row])
        ids[place, :length], mask[place, :length] = torch.tensor(encoded[row]), 1
    return {"input_ids": ids, "attention_mask": mask}


@torch.inference_mode()
def logits(model, encoded, batch_rows=64):
    model.eval()
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
    found = torch.zeros(len(encoded), model.config.num_labels)
    for first in range(0, len(order), batch_rows):
        batch = order[first : first + batch_rows]
        found[batch] = model(**padded(encoded, batch)).logits
    return found


def batches(encoded, flags, randomly):
    """Of one epoch."""
    order = list(range(len(encoded)))
    randomly.shuffle(order)
    if flags.by_length:
        window = 50 * flags.batch_rows
        parts = [sorted(order[at : at + window], key=lambda row: len(encoded[row])) for at in range(0, len(order), window)]
        order = [row for part in parts for row in part]
    found = [order[at : at + flags.batch_rows] for at in range(0, len(order), flags.batch_rows)]
    if flags.by_length:
        randomly.shuffle(found)
    return found


def main():
    flags = arguments()
    torch.set_num_threads(flags.threads)
    torch.manual_seed(flags.seed)
    randomly = random.Random(flags.seed)
    teacher = AutoModelForSequenceClassification.from_pretrained(flags.teacher, dtype=torch.float32)
    student = AutoModelForSequenceClassification.from_pretrained(flags.start, dtype=torch.float32)
    # The student's vocabulary may be cut to the data.
    tokenizers = [AutoTokenizer.from_pretrained(model) for model in (flags.teacher, flags.start)]
    ids = teacher.config.label2id
    (for_teacher, labels), (encoded, _) = (rows(flags.data, of, ids, flags.max_length) for of in tokenizers)
    (test_for_teacher, answers), (test, _) = (rows(flags.test, of, ids, flags.max_length) for of in tokenizers)
    soft, said = logits(teacher, for_teacher), logits(teacher, test_for_teacher).argmax(-1)

    decays = [p for p in student.parameters() if p.ndim > 1]
    others = [p for p in student.parameters() if p.ndim < 2]
    groups = [{"params": decays, "weight_decay": flags.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=flags.learning_rate)
    steps = flags.epochs * -(-len(encoded) // flags.batch_rows)
    schedule = get_linear_schedule_with_warmup(optimizer, -int(-steps * flags.warmup_ratio // 1), steps)
    begun, t = time.perf_counter(), flags.temperature
    for _ in range(flags.epochs):
        student.train()
        for batch in batches(encoded, flags, randomly):
            z = student(**padded(encoded, batch)).logits
            kl = F.kl_div(F.log_softmax(z / t, -1), F.log_softmax(soft[batch] / t, -1), log_target=True, reduction="batchmean")
            loss = flags.weight_soft * t * t * kl + flags.weight_hard * F.cross_entropy(z, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    seconds = time.perf_counter() - begun
    chosen = logits(student, test).argmax(-1)
    report = {
        "accuracy": (chosen == answers).double().mean().item(),
        "agreement": (chosen == said).double().mean().item(),
        "loss": loss.item(),
        "seconds": seconds,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
