#!/usr/bin/env python3
"""`stoker data build` beside datatrove: the same JSON lines, one core each, interleaved, medians of CPU seconds.

    compare_datatrove.py STOKER DIRECTORY... [--python PYTHON] [--megabytes 12] [--rounds 3] [--results FILE]

DIRECTORY holds texts (.rst .txt .gz). Two jobs: whole fuzzy dedup (JSON lines to JSON lines of what stays) and text to
token shards (quality rules, dedup, tokens). PYTHON has datatrove, spacy and tokenizers; ./dev bench data makes one.
With --results, rounds are added to that file and the medians are over all rounds in it."""
import argparse
import gzip
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def gather(directories, limit):
    paths = []
    for directory in directories:
        for folder, _, names in os.walk(directory):
            paths += [os.path.join(folder, n) for n in names if n.endswith((".rst", ".txt", ".rst.gz", ".txt.gz"))]
    paths.sort()
    random.Random(1).shuffle(paths)
    texts, size = [], 0
    for path in paths:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as f:
            text = f.read().decode("utf-8", "replace")
        if len(text) < 200 or len(text) > 500000:  # spaCy refuses documents over 1 MB
            continue
        texts.append((path, text))
        size += len(text.encode())
        if size >= limit:
            break
    return texts, size


def stoker_recipe(work, source, stages, tokenizer):
    shards = f'[shards]\ntokenizer = "{tokenizer}"\n' if tokenizer else ""
    path = f"{work}/recipe.toml"
    with open(path, "w") as f:
        f.write(f'name = "bench"\noutput = "{work}/out"\nwork = "{work}/cache"\nthreads = 1\nstages = [{stages}]\n'
                f'[[source]]\nname = "docs"\npaths = ["{source}"]\n{shards}')
    return path


def run_stoker(stoker, work, source, stages, tokenizer):
    recipe = stoker_recipe(work, source, stages, tokenizer)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    out = subprocess.run([stoker, "data", "build", recipe, "--json"], check=True, stdout=subprocess.PIPE)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    counts = json.loads(out.stdout)
    return {"cpu_s": cpu, "wall_s": wall, "kept": counts["documents_out"]}


def count_kept(work):
    folder = f"{work}/kept"
    if not os.path.isdir(folder):
        return None
    return sum(sum(1 for _ in open(os.path.join(folder, n), "rb")) for n in os.listdir(folder) if n.endswith(".jsonl"))


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("stoker")
    args.add_argument("directory", nargs="+")
    args.add_argument("--python", default=sys.executable)
    args.add_argument("--megabytes", type=float, default=12)
    args.add_argument("--rounds", type=int, default=3)
    args.add_argument("--results")
    args = args.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as place:
        texts, size = gather(args.directory, args.megabytes * 1e6)
        os.mkdir(f"{place}/input")
        with open(f"{place}/input/docs.jsonl", "w", encoding="utf-8") as f:
            for path, text in texts:
                f.write(json.dumps({"text": text, "id": path}) + "\n")
        with open(f"{place}/all.txt", "w", encoding="utf-8", newline="") as f:
            f.write("\n".join(t for _, t in texts))
        tokenizer = f"{place}/tokenizer.json"
        subprocess.run([args.stoker, "data", "tokenizer", "train", f"{place}/all.txt", "-o", tokenizer, "--vocab-size", "32768"],
                       check=True, stdout=subprocess.DEVNULL)
        gopher = '{use = "quality", rules = ["gopher_quality", "gopher_repetition"]}'
        near = '{use = "near", parameters = "fineweb"}'
        jobs = {"dedup": (near, None), "shards": (f"{gopher}, {near}", tokenizer)}
        for _ in range(args.rounds):
            for job, (stages, vocabulary) in jobs.items():
                for tool in ("stoker", "datatrove"):
                    work = f"{place}/{tool}-{job}"
                    shutil.rmtree(work, ignore_errors=True)
                    os.mkdir(work)
                    if tool == "stoker":
                        row = run_stoker(args.stoker, work, f"{place}/input/docs.jsonl", stages, vocabulary)
                    else:
                        command = [args.python, f"{HERE}/peers/datatrove_job.py", job, f"{place}/input", work]
                        out = subprocess.run(command + ([tokenizer] if vocabulary else []), check=True, stdout=subprocess.PIPE)
                        row = json.loads(out.stdout.splitlines()[-1])
                        row["kept"] = count_kept(work)
                    rounds.append({"job": job, "tool": tool, "mb": size / 1e6, **row})
    if args.results:
        if os.path.exists(args.results):
            rounds = json.load(open(args.results)) + rounds
        json.dump(rounds, open(args.results, "w"), indent=1)
    version = subprocess.run([args.python, "-c", "import importlib.metadata as m; print(m.version('datatrove'))"],
                             check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    print(f"{len(texts)} texts, {size / 1e6:.1f} MB; datatrove {version}; CPU seconds (user and system), one core")
    for job, what in (("dedup", "fuzzy dedup, JSON lines to JSON lines"), ("shards", "text to token shards")):
        speed = {}
        for tool in ("stoker", "datatrove"):
            rows = [r for r in rounds if r["job"] == job and r["tool"] == tool]
            speed[tool] = statistics.median(r["mb"] / r["cpu_s"] for r in rows)
            kept = rows[-1]["kept"]
            print(f"  {what:40} {tool:10} {speed[tool]:9.2f} MB/s per core   ({len(rows)} rounds"
                  + (f", {kept} of {len(texts)} kept)" if kept is not None else ")"))
        print(f"  {'':40} {'ratio':10} {speed['stoker'] / speed['datatrove']:9.1f}x")


main()
