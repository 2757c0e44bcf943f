"""What the peers share: the flags of `distill bench`, rows from the same files, repeats timed by the same rules, and one
line or one JSON object as a result. The models and what is done with them are in the scripts beside this one."""

import argparse
import csv
import gzip
import json
import random
import resource
import statistics
import time

# As in `distill bench`: a warm-up of at least a pass and half a second, then repeats of about a quarter of a second.
WARM_UP_SECONDS, REPEAT_SECONDS, LEAST_REPEATS = 0.5, 0.25, 3


def parser(description, sizes=True):
    flags = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    flags.add_argument("what", choices=["capture", "train"])
    flags.add_argument("--model", help="folder with tokenizer and, for capture without sizes, weights")
    if sizes:
        flags.add_argument("--model-type", choices=["bert", "distilbert", "mobilebert"], help="by default as ours")
        for name in ("layers", "hidden-size", "heads", "intermediate-size", "vocab-size"):
            flags.add_argument(f"--{name}", type=int)
    flags.add_argument("--labels", type=int, help="classes; by default as many as the data has, or 77")
    flags.add_argument("--dropout", type=float, default=0.1)
    flags.add_argument("--data", help="rows: .jsonl, .tsv or .csv, or gzipped; made up if not given")
    flags.add_argument("--text-column", default="text")
    flags.add_argument("--label-column", default="label")
    flags.add_argument("--limit", type=int, help="no more than the first rows of --data")
    flags.add_argument("--max-length", type=int, default=128, help="tokens kept of a text")
    flags.add_argument("--batch-rows", type=int, default=32)
    flags.add_argument("--length", type=int, default=128, help="tokens of each made-up row")
    flags.add_argument("--seconds", type=float, default=5.0)
    flags.add_argument("--repeats", type=int, help="this many repeats, however long they take")
    flags.add_argument("--seed", type=int, default=42)
    flags.add_argument("--threads", type=int, default=2, help="CPU threads")
    flags.add_argument("--json", action="store_true", help="one JSON object instead of a line a case")
    return flags


class Rows:
    """Token ids and labels. `ids` is a list of lists; `classes` counts the whole file, since it may be sorted."""

    def __init__(self, flags, vocabulary):
        randomly = random.Random(flags.seed)
        self.source = flags.data
        if flags.data:
            if not flags.model:
                raise SystemExit("--data needs --model's tokenizer")
            # Not through `transformers`, which brings PyTorch into the memory of those who do without.
            from tokenizers import Tokenizer

            texts, labels = read(flags.data, flags.text_column, flags.label_column)
            names = sorted(set(labels))
            numbers = {name: number for number, name in enumerate(names)}
            self.classes = flags.labels or len(names)
            texts, labels = texts[: flags.limit], labels[: flags.limit]
            tokenizer = Tokenizer.from_file(f"{flags.model}/tokenizer.json")
            tokenizer.no_padding()
            tokenizer.enable_truncation(flags.max_length)
            self.ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
            self.labels = [numbers[label] for label in labels]
        else:
            self.classes = flags.labels or 77
            self.ids = [[randomly.randrange(vocabulary) for _ in range(flags.length)] for _ in range(flags.batch_rows)]
            self.labels = [randomly.randrange(self.classes) for _ in self.ids]
        self.tokens = sum(map(len, self.ids))

    def __len__(self):
        return len(self.ids)

    def by_length(self, batch_rows):
        """Batches of rows of like length: what dynamic padding costs least with."""
        order = sorted(range(len(self)), key=lambda row: len(self.ids[row]))
        return [order[first : first + batch_rows] for first in range(0, len(order), batch_rows)]

    def in_buckets(self, batch_rows, seed, batches=50):
        """Whole batches in an order that training would see: shuffled, sorted within buckets, shuffled again."""
        shuffled, order = random.Random(seed), list(range(len(self)))
        shuffled.shuffle(order)
        found = []
        for first in range(0, len(order), batches * batch_rows):
            bucket = sorted(order[first : first + batches * batch_rows], key=lambda row: len(self.ids[row]))
            found += [bucket[at : at + batch_rows] for at in range(0, len(bucket), batch_rows)]
        found = [batch for batch in found if len(batch) == batch_rows]
        shuffled.shuffle(found)
        return found

    def padded(self, batch, multiple=1):
        """Ids and mask of a batch as lists, padded to its longest row, rounded up to a multiple."""
        longest = max(len(self.ids[row]) for row in batch)
        longest = -(-longest // multiple) * multiple
        ids = [self.ids[row] + [0] * (longest - len(self.ids[row])) for row in batch]
        mask = [[1] * len(self.ids[row]) + [0] * (longest - len(self.ids[row])) for row in batch]
        return ids, mask


def read(path, text_column, label_column):
    """Texts and labels of a file, the label '' where there is none."""
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf8", newline="") as file:
        plain = path.removesuffix(".gz")
        if plain.endswith((".jsonl", ".json")):
            rows = [json.loads(line) for line in file if line.strip()]
        elif plain.endswith(".tsv"):
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        elif plain.endswith(".csv"):
            rows = list(csv.DictReader(file))
        else:
            raise SystemExit(f"{path}: not .jsonl, .tsv or .csv")
    return [row[text_column] for row in rows], [str(row.get(label_column, "")) for row in rows]


def measure(flags, passes):
    """Times `passes(n)`, which does the work n times and returns when it is done. Seconds of one pass, a repeat each."""

    def timed(count):
        start = time.perf_counter()
        passes(count)
        return time.perf_counter() - start

    start, one = time.perf_counter(), timed(1)
    while time.perf_counter() - start < WARM_UP_SECONDS:
        one = timed(1)
    count = max(1, round(REPEAT_SECONDS / one))
    seconds, start = [], time.perf_counter()
    while True:
        seconds.append(timed(count) / count)
        enough = len(seconds) >= LEAST_REPEATS and time.perf_counter() - start >= flags.seconds
        if len(seconds) >= flags.repeats if flags.repeats else enough:
            return count, seconds


def report(flags, peer, name, rows, times, steps, done_rows=None, done_tokens=None, **more):
    """Prints one case. `done_rows` and `done_tokens` are those of one pass where it leaves some of the rows out."""
    passes, seconds = times
    median = statistics.median(seconds)
    done_rows, done_tokens = done_rows or len(rows), done_tokens or rows.tokens
    case = {
        "case": name,
        "passes_per_repeat": passes,
        "seconds": seconds,
        "median_seconds": median,
        "spread": (max(seconds) - min(seconds)) / median,
        "steps": steps,
        "samples_per_second": done_rows / median,
        "tokens_per_second": done_tokens / median,
        **more,
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result = {
        "schema_version": 1,
        "bench": flags.what,
        "peer": peer,
        "threads": flags.threads,
        "data": {"source": rows.source, "rows": done_rows, "tokens": done_tokens, "batch_rows": flags.batch_rows},
        "cases": [case],
        "process_peak_memory_bytes": peak,
    }
    if flags.json:
        print(json.dumps(result), flush=True)
    else:
        print(
            f"{flags.what} {name}, {peer}: {case['samples_per_second']:.1f} rows/s {case['tokens_per_second']:.0f} tokens/s "
            f"{1e3 * median / steps:.3f} ms a step, spread {100 * case['spread']:.1f} %, {peak / 1e6:.0f} MB",
            flush=True,
        )
