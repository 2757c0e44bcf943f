#!/usr/bin/env python3
"""Kill captures at random moments, again and again: each must end with the content of one that was never stopped.

usage:  kill_cache.py [--kills 200] [--rows 20000] [--seed 1] [--flags "--dtype f16"]

A capture of made-up rows is killed with SIGKILL and started again until it is done; then the next one begins. After
every kill `cache verify` must find nothing wrong, or there is no cache yet. DISTILL names the program (default:
distill); the teacher is the fixture's. Python's standard library alone. Prints one line, and ends with an error where
anything is not as it has to be.
"""

import argparse, json, os, random, shutil, signal, subprocess, sys, tempfile, time
from pathlib import Path

PROGRAM = os.environ.get("DISTILL", "distill")
TEACHER = Path(__file__).resolve().parent.parent / "fixtures/e2e/teacher"

def check(good, message):
    if not good:
        sys.exit(f"error: {message}")

def write_rows(path, count):
    """Distinct rows of three made-up words each."""
    words = [a + b + c + d for a in "bdfgk" for b in "aei" for c in "lmnr" for d in "ou"]
    check(count <= len(words) ** 3, f"more than {len(words) ** 3} rows")
    order = random.Random(0).sample(range(len(words) ** 3), count)
    lines = (" ".join(words[n // len(words) ** place % len(words)] for place in range(3)) for n in order)
    path.write_text("".join(f"{line}\n" for line in lines))

def distill(*arguments):
    """Runs a command; its exit code, the object that it prints, and what it says on stderr."""
    done = subprocess.run([PROGRAM, *map(str, arguments), "--json"], capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr

def succeed(*arguments):
    code, report, stderr = distill(*arguments)
    check(code == 0, f"{arguments} ends with {code}: {stderr}")
    return report

def capture(data, output, flags):
    """A capture in small windows, so that there is much to be stopped in."""
    return ["cache", "--teacher", TEACHER, "--data", data, "--batch-tokens", "32", "--output", output, *flags]

def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage:  ")[1].splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--flags", default="", help="of the capture, such as its form of storage")
    args = parser.parse_args()
    dice, flags = random.Random(args.seed), args.flags.split()
    with tempfile.TemporaryDirectory() as folder:
        data, cache, undisturbed = (Path(folder) / name for name in ("rows.txt", "cache", "undisturbed"))
        write_rows(data, args.rows)
        start = time.monotonic()
        report = succeed(*capture(data, undisturbed, flags))
        seconds = time.monotonic() - start
        check(report["unique"] == args.rows, f"{report['unique']} of {args.rows} rows are different to the teacher")
        wanted = succeed("cache", "inspect", undisturbed)
        kills = early = captures = begun = 0
        while kills < args.kills or begun:
            process = subprocess.Popen([PROGRAM, *map(str, capture(data, cache, flags))], stderr=subprocess.PIPE,
                                       stdout=subprocess.DEVNULL, text=True)
            # The last one goes on to its end.
            delay = dice.uniform(0, 0.75 * seconds) if kills < args.kills else None
            try:
                stderr = process.communicate(timeout=delay)[1]
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                stderr = process.communicate()[1]
            if process.returncode == -signal.SIGKILL:
                kills, begun = kills + 1, True
                if (cache / "manifest.json").exists():
                    succeed("cache", "verify", cache)
                else:
                    early += 1
                    check(not list(cache.glob("*.safetensors")), "rows without a manifest")
                continue
            check(process.returncode == 0, f"kill {kills}: a capture ends with {process.returncode}: {stderr}")
            succeed("cache", "verify", cache)
            found = succeed("cache", "inspect", cache)
            for field in ("content", "rows", "unreachable_rows", "fingerprint", "recorded_error"):
                check(found[field] == wanted[field], f"kill {kills}: {field} is {found[field]}, not {wanted[field]}")
            captures, begun = captures + 1, False
            shutil.rmtree(cache)
        print(f"{kills} kills ({early} before there was a cache) over {captures} captures of {args.rows} rows: "
              f"content identical each time, {wanted['content'][:16]}; undisturbed {seconds:.2f} s")

if __name__ == "__main__":
    main()
