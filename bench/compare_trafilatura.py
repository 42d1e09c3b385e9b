#!/usr/bin/env python3
"""HTML to text beside trafilatura, on the same pages, one core each, interleaved.

    compare_trafilatura.py CORPUS_BENCH DIRECTORY... [--pages 200] [--rounds 3] [--source DIRECTORY]

CORPUS_BENCH is the program of that name (./dev bench data builds it). Pages are chosen from each DIRECTORY in equal parts
by a fixed seed. Agreement: words of a page as multisets; precision and recall of ours against theirs, F1.
--source: for pages made by Sphinx, where the reStructuredText they were made from lies (page a/b.html: a/b.rst or .rst.gz);
then both extractions are also compared with it: how much of the author's words is there (recall), how much of the output is
the author's (precision). Markup is in the source and not on the page, so neither can reach 1.
Needs PyPI's trafilatura and lxml_html_clean."""
import argparse
import collections
import gzip
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import tempfile
import time

import trafilatura


def words(text):
    return collections.Counter(re.findall(r"\w+", (text or "").lower()))


def overlap(found, truth):
    common = sum((found & truth).values())
    precision = common / max(1, sum(found.values()))
    recall = common / max(1, sum(truth.values()))
    return precision, recall, 2 * precision * recall / max(1e-9, precision + recall)


def report(name, rows):
    columns = list(zip(*rows))
    means = "  ".join(f"{what} {statistics.mean(c):.3f}" for what, c in zip(("precision", "recall", "F1"), columns))
    print(f"  {name:52} {means}  median F1 {statistics.median(columns[2]):.3f}  ({len(rows)} pages)")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("corpus_bench")
    args.add_argument("directory", nargs="+")
    args.add_argument("--pages", type=int, default=200)
    args.add_argument("--rounds", type=int, default=3)
    args.add_argument("--source")
    args = args.parse_args()
    chosen = []
    for directory in args.directory:
        found = sorted(os.path.join(f, n) for f, _, names in os.walk(directory) for n in names if n.endswith(".html"))
        random.Random(1).shuffle(found)
        chosen += [(p, os.path.relpath(p, directory)) for p in found[: args.pages // len(args.directory)]]
    with tempfile.TemporaryDirectory() as place:
        for i, (path, _) in enumerate(chosen):
            shutil.copyfile(path, f"{place}/{i:05d}.html")
        pages = [open(f"{place}/{i:05d}.html", "rb").read() for i in range(len(chosen))]
        size = sum(map(len, pages)) / 1e6
        ours, theirs, our_speed, their_speed = None, None, [], []
        for _ in range(args.rounds):
            out = subprocess.run([args.corpus_bench, "extract", place], check=True, capture_output=True)
            our_speed.append(float(re.search(rb"([0-9.]+) MB/s", out.stderr)[1]))
            ours = [json.loads(line)["text"] for line in out.stdout.splitlines()]
            start = time.process_time()
            theirs = [trafilatura.extract(p, favor_precision=True, include_comments=False) for p in pages]
            their_speed.append(size / (time.process_time() - start))
    print(f"{len(pages)} pages, {size:.1f} MB; trafilatura {trafilatura.__version__} (favor_precision, as FineWeb)")
    print(f"  speed, MB/s of HTML on one core, medians: ours {statistics.median(our_speed):.1f}, trafilatura {statistics.median(their_speed):.2f},"
          f" ratio {statistics.median(our_speed) / statistics.median(their_speed):.1f}x")
    print(f"  pages without text: ours {sum(not t.strip() for t in ours)}, trafilatura {sum(not (t or '').strip() for t in theirs)}")
    report("ours against trafilatura", [overlap(words(a), words(b)) for a, b in zip(ours, theirs) if b])
    if not args.source:
        return
    rows = [[], []]
    for (_, name), a, b in zip(chosen, ours, theirs):
        base = os.path.join(args.source, name.removesuffix(".html"))
        for path in (base + ".rst", base + ".rst.gz"):
            if os.path.exists(path):
                with (gzip.open if path.endswith(".gz") else open)(path, "rb") as f:
                    truth = words(f.read().decode("utf-8", "replace"))
                if sum(truth.values()) >= 50:
                    rows[0].append(overlap(words(a), truth))
                    rows[1].append(overlap(words(b), truth))
    report("ours against the page's source", rows[0])
    report("trafilatura against the page's source", rows[1])


main()
