#!/usr/bin/env python3
"""Flip single bytes of a cache: `verify` must find each, and none may change what a student learns from.

usage:  flip_cache.py [--flips 2000] [--rows 20000] [--seed 1] [--flags "--dtype f16"]

Half of the flips fall on any byte of all files, half on a file of each kind in turn. With each, `cache verify` must fail
and name the file, and `cache export`, which reads every row as training does, must fail or write the file that it wrote
before. So must `train`, on a tenth of the rows: an error, or the same student. DISTILL names the program (default: distill); the
teacher is the fixture's. Python's standard library alone. Prints one line, and ends with an error where anything is not
as it has to be.
"""

import argparse, itertools, os, random, shutil, tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kill_cache import TEACHER, capture, check, distill, succeed, write_rows

def kind(path):
    return path.name.split("-")[0]

def choose(cache, count, dice):
    """Where to flip, and by what: of a file, a position and a byte to combine with."""
    files = sorted(path for path in cache.iterdir() if path.stat().st_size > 0)
    sizes = [path.stat().st_size for path in files]
    kinds = [[path for path in files if kind(path) == name] for name in sorted({kind(path) for path in files})]
    for number in range(count):
        path = dice.choices(files, sizes)[0] if number % 2 else dice.choice(kinds[number // 2 % len(kinds)])
        yield path.name, dice.randrange(path.stat().st_size), dice.randrange(1, 256)

class Place:
    """A copy of the cache to spoil, for one thread."""

    def __init__(self, folder, name, cache, rows):
        self.folder, self.rows = folder / name, rows
        shutil.copytree(cache, self.folder / "cache")
        self.parquet, self.student = self.results()
        check(self.parquet and self.student, "a sound cache is not read")

    def results(self):
        """The bytes of the Parquet file and of the student; none of what failed."""
        output, student = self.folder / "rows.parquet", self.folder / "student"
        code, _, stderr = distill("cache", "export", self.folder / "cache", "--output", output, "--threads", "1")
        check(code in (0, 1), f"export ends with {code}: {stderr}")
        parquet = output.read_bytes() if code == 0 else None
        check(code == 0 or not output.exists(), "an export that failed leaves a file")
        code, _, stderr = distill("train", "--teacher", TEACHER, "--cache", self.folder / "cache", "--data", self.rows,
                                  "--epochs", "1", "--output", student, "--threads", "1")
        check(code in (0, 1), f"train ends with {code}: {stderr}")
        weights = (student / "model.safetensors").read_bytes() if code == 0 else None
        output.unlink(missing_ok=True)
        shutil.rmtree(student, ignore_errors=True)
        return parquet, weights

    def flip(self, flip):
        """What became of a flip: of its file's kind, whether export and training failed."""
        name, position, by = flip
        path = self.folder / "cache" / name
        def turn():
            with open(path, "r+b") as file:
                file.seek(position)
                byte = file.read(1)[0]
                file.seek(position)
                file.write(bytes([byte ^ by]))
        turn()
        where = f"byte {position} of {name} by {by}"
        code, report, _ = distill("cache", "verify", self.folder / "cache")
        check(code == 1 and not report["sound"] and any(name in text for text in report["damage"]), f"{where}: {report}")
        parquet, student = self.results()
        check(parquet in (None, self.parquet), f"{where}: another export")
        check(student in (None, self.student), f"{where}: another student")
        turn()
        return kind(path), parquet is None, student is None

def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage:  ")[1].splitlines()[0])
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--flags", default="", help="of the capture, such as its form of storage")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_rows(folder / "rows.txt", args.rows)
        succeed(*capture(folder / "rows.txt", folder / "cache", args.flags.split()))
        # A tenth of the rows, from all over the cache.
        some = (folder / "rows.txt").read_text().splitlines()[::10]
        (folder / "some.txt").write_text("".join(f"{line}\n" for line in some))
        flips = list(choose(folder / "cache", args.flips, random.Random(args.seed)))
        threads = os.cpu_count() or 1
        def work(number):
            place = Place(folder, f"place-{number}", folder / "cache", folder / "some.txt")
            mine = range(number, len(flips), threads)
            return [place.flip(flips[at]) for at in mine]
        with ThreadPoolExecutor(threads) as pool:
            found = list(itertools.chain.from_iterable(pool.map(work, range(threads))))
        kinds = ", ".join(f"{sum(name == of for name, _, _ in found)} in {of}" for of in sorted({of for of, _, _ in found}))
        same = [sum(not failed[place] for failed in found) for place in (1, 2)]
        print(f"{len(found)} flips ({kinds}): verify finds each; export fails, or writes the same file ({same[0]} times); "
              f"train fails, or gives the same student ({same[1]} times)")

if __name__ == "__main__":
    main()
