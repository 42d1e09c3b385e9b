#!/usr/bin/env python3
"""Writes the error tables of docs/planner-model.md from the program's own JSON.

    stoker plan fit runs.csv oom.csv --folds 5 --leave-models-out --leave-sources-out --report held_out.json
    stoker plan validate runs.csv oom.csv --json > in_sample.json
    scripts/planner_tables.py in_sample.json held_out.json docs/planner-model.md

Replaces what stands between the lines <!-- tables --> and <!-- /tables -->; without a document, prints it."""
import json
import sys


def percent(value):
    return "-" if value is None else f"{100 * value:.1f} %"


def cells(part):
    m, equal = part["memory"], part["equal_sources"]
    return [percent(part["median_abs_error"]), percent(part["p90_abs_error"]),
            percent(equal["median_abs_error"]), percent(equal["p90_abs_error"]),
            percent(m["median_abs_error"]), percent(m["p90_abs_error"]), percent(part["oom_balanced_accuracy"])]


def overview(parts):
    head = ["", "step time, median", "90 %", "sources weighted equally", "90 %", "peak memory, median", "90 %",
            "out of memory, balanced accuracy"]
    rows = [head, ["---"] * len(head)] + [[name] + cells(part) for name, part in parts]
    return "\n".join("| " + " | ".join(r) + " |" for r in rows)


def pair(summary):
    if not summary or not summary["compared"]:
        return f"{'':>16}"
    return f"{percent(summary['median_abs_error']):>8}{percent(summary['p90_abs_error']):>8}"


def by(key, title, parts):
    lines = [f"    {title:<18}{'rows':>6}{'compared':>9}" + "".join(f"{name:>20}" for name, _ in parts)]
    first = parts[0][1][key]
    for name in sorted(first):
        s = first[name]
        line = f"    {name:<18}{s['rows']:>6}{s['compared']:>9}"
        lines.append((line + "".join(f"    {pair(part[key].get(name))}" for _, part in parts)).rstrip())
    return "\n".join(lines)


def main():
    in_sample = json.load(open(sys.argv[1]))
    held_out = json.load(open(sys.argv[2]))
    names = {"configurations": "configurations held out", "models": "models on hardware held out",
             "sources": "sources held out"}
    parts = [("in sample", in_sample)] + [(names[k], held_out[k]) for k in names if k in held_out]
    short = [("in sample", in_sample), ("held out", held_out["configurations"])]
    if "sources" in held_out:
        short.append(("source unseen", held_out["sources"]))
    text = "\n\n".join([
        overview(parts),
        f"{in_sample['compared']:,} rows state a time, rate or MFU, {in_sample['memory']['compared']} a peak of memory, "
        f"{in_sample['oom']['failed']} failed for want of memory.",
        "Median and 90th percentile of the step's error:",
        by("by_source", "source", short), by("by_hardware", "hardware", short[:2]), by("by_kind", "kind", short[:2])])
    if len(sys.argv) < 4:
        print(text)
        return
    page = open(sys.argv[3]).read()
    begin, end = "<!-- tables -->\n", "<!-- /tables -->"
    if begin not in page or end not in page:
        sys.exit(f"{sys.argv[3]}: no lines {begin.strip()} and {end} to write between")
    head, rest = page.split(begin, 1)
    tail = rest.split(end, 1)[1]
    open(sys.argv[3], "w").write(head + begin + "\n" + text + "\n\n" + end + tail)


if __name__ == "__main__":
    main()
