#!/usr/bin/env python3
"""How far software alone moves a run: what can be known of a program that nobody has timed yet.

    scripts/planner_twins.py runs.csv

Dense runs of one size, hardware family and precision, by each collection that has some: its best rate against the
median of the others' best. The error of the latter as a forecast is what a planner that knows everything but
the software is up against."""
import csv
import math
import re
import statistics
import sys


def flops(row):
    """6N FLOP/s of one accelerator, or nothing where the row does not tell."""
    number = {c: float(row[c] or 0) for c in ("params_B", "n_gpus", "tokens_per_s_per_gpu", "iteration_time_s",
                                             "global_batch", "seq_len", "tflops_per_gpu")}
    rate = number["tokens_per_s_per_gpu"]
    if not rate and number["iteration_time_s"] and number["n_gpus"]:
        rate = number["global_batch"] * number["seq_len"] / number["iteration_time_s"] / number["n_gpus"]
    if not rate and row["flops_convention"] != "hardware" and number["params_B"]:
        rate = number["tflops_per_gpu"] * 1e12 / (6e9 * number["params_B"])
    return rate * 6e9 * number["params_B"]


def main():
    best = {}
    for file in sys.argv[1:]:
        for row in csv.DictReader(open(file)):
            rate = flops(row) if row["row_kind"] == "dense" else 0
            if not rate:
                continue
            size = round(2 * math.log2(float(row["params_B"]))) / 2  # within a fifth of each other
            precision = "16 bits" if row["precision_class"] in ("fp16", "bf16") else row["precision_class"]
            collection = re.sub(r"\d.*$", "", row["id"]).rstrip("-")
            group = best.setdefault((size, row["gpu_family"], precision), {})
            group[collection] = max(group.get(collection, 0), rate)
    groups = [g for g in best.values() if len(g) > 1]
    errors = sorted(abs(statistics.median(v for other, v in g.items() if other != name) / rate - 1)
                    for g in groups for name, rate in g.items())
    print(f"{len(groups)} sizes on hardware that several collections ran, {len(errors)} forecasts from the others: "
          f"median error {100 * statistics.median(errors):.0f} %, 90th percentile {100 * errors[int(0.9 * len(errors))]:.0f} %")


if __name__ == "__main__":
    main()
