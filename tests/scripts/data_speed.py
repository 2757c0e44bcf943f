#!/usr/bin/env python3
"""Times the data commands on files of random sentences, by the clock and by the processor.

    python3 tests/scripts/data_speed.py target/release/distill [--megabytes 100] [--rows 1000000]

Needs nothing but Python's standard library. The sentences are made of a vocabulary of random words with Zipf's frequencies, so
that near duplicates, misspellings and links occur as often as is said below. On a machine that is busy with other things, the
seconds of the processor are the ones to compare; divided by the number of cores they are what a free machine needs at least.
"""

import argparse
import itertools
import json
import os
import random
import resource
import subprocess
import tempfile
import time

LETTERS = "etaoinshrdlucmfwypvbgk"


def vocabulary(count):
    return ["".join(random.choices(LETTERS, k=random.randint(2, 10))) for _ in range(count)]


def sentences(words, length):
    """Endless sentences of about so many words: one in 50 with a link, in 20 with HTML, in 30 with what was misread."""
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(words))))
    while True:
        chosen = random.choices(words, cum_weights=weights, k=max(3, int(random.gauss(length, length / 3))))
        if random.random() < 0.02:
            chosen.append("https://example.org/" + chosen[0])
        if random.random() < 0.05:
            chosen[0] = f"<b>{chosen[0]}</b>&nbsp;"
        if random.random() < 0.03:
            chosen[1] = chosen[1] + "â€™s"
        yield " ".join(chosen)


def misspelt(sentence):
    """One word in twenty with two letters swapped."""
    words = sentence.split()
    for at, word in enumerate(words):
        if random.random() < 0.05 and len(word) > 3:
            cut = random.randrange(len(word) - 1)
            words[at] = word[:cut] + word[cut + 1] + word[cut] + word[cut + 2 :]
    return " ".join(words)


def timed(program, flags, file, folder):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    command = [program, "data", "clean", file, *flags, "--output", os.path.join(folder, "out.jsonl"), "--overwrite", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return json.loads(done.stdout), seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rows", type=int, default=1_000_000)
    asked = parser.parse_args()
    random.seed(7)
    words = vocabulary(30_000)
    with tempfile.TemporaryDirectory() as folder:
        path = lambda name: os.path.join(folder, name)
        with open(path("words.txt"), "w", encoding="utf-8") as file:
            file.writelines(f"{word} {1_000_000 // (rank + 3)}\n" for rank, word in enumerate(dict.fromkeys(words)))
        source, written = sentences(words, 30), 0
        with open(path("texts.jsonl"), "w", encoding="utf-8") as file:
            while written < asked.megabytes * 1_000_000:
                written += file.write(json.dumps({"id": written, "text": next(source), "label": "x"}, ensure_ascii=False) + "\n")
        size = os.path.getsize(path("texts.jsonl"))
        usual = ["--usual", "--full-width", "--urls", "--emails"]
        for name, flags in [("whitespace alone", ["--whitespace"]), ("usual steps and links", usual)]:
            report, seconds, processor = timed(asked.program, flags, path("texts.jsonl"), folder)
            rate = size / 1e6 / seconds
            print(f"{name}: {report['rows']} rows, {rate:.0f} MB/s, {seconds:.1f} s, {processor:.1f} s of the processor")

        source, count = sentences(words, 12), 0
        with open(path("short.jsonl"), "w", encoding="utf-8") as file:
            earlier = [next(source)]
            for _ in range(asked.rows):
                # One row in ten is like an earlier one.
                text = misspelt(random.choice(earlier)) if random.random() < 0.1 else next(source)
                if len(earlier) < 10_000:
                    earlier.append(text)
                file.write(json.dumps({"text": text}) + "\n")
        report, seconds, processor = timed(asked.program, ["--near-duplicates"], path("short.jsonl"), folder)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        print(
            f"near duplicates: {report['rows']} rows, {report['rows'] - report['kept']} dropped, {seconds:.1f} s, "
            f"{processor:.1f} s of the processor, {peak:.2f} GB at most"
        )

        with open(path("short.jsonl"), encoding="utf-8") as file, open(path("typos.jsonl"), "w", encoding="utf-8") as out:
            for line in list(file)[: asked.rows // 4]:
                text = misspelt(json.loads(line)["text"])
                count += len(text.split())
                out.write(json.dumps({"text": text}) + "\n")
        report, seconds, processor = timed(asked.program, ["--spelling", path("words.txt")], path("typos.jsonl"), folder)
        print(
            f"spelling: {count} words, {count / seconds:.0f} a second, {seconds:.1f} s, {processor:.1f} s of the processor, "
            f"{report['changed']} rows changed"
        )


if __name__ == "__main__":
    main()
