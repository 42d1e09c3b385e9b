#!/usr/bin/env python3
"""Fits power.compute_fraction and power.wait_fraction of catalog/figures.csv to measured node power.

usage: fit_power.py mlperf_power.csv

Model: W per accelerator = maximum * (wait + (compute - wait) * u) + host, where u is the share of time spent computing.
u of a multi-node run of a benchmark is accelerator-hours on one node over accelerator-hours on many (same benchmark, same
submitter; another's single node where it has none). Fitted on MLPerf v4.0 rows (H100), tested on the later rounds.
"""
import csv
import sys

HOST_W = 235.0
MAXIMUM = {"H100-SXM5-80GB": 700.0, "B200-SXM-180GB": 1000.0}


def main() -> None:
    rows = list(csv.DictReader(open(sys.argv[1], newline="")))
    hours = {}
    for r in rows:
        r["hours"] = float(r["run_minutes"]) / 60 * int(r["n_accelerators"])
        if int(r["nodes"]) == 1:
            hours[(r["benchmark"], r["accelerator"], r["submitter"])] = r["hours"]
            hours.setdefault((r["benchmark"], r["accelerator"]), r["hours"])
    for r in rows:
        single = hours.get((r["benchmark"], r["accelerator"], r["submitter"])) or hours.get((r["benchmark"], r["accelerator"]))
        r["u"] = min(1.0, single / r["hours"]) if single else 1.0
        r["share"] = (float(r["W_per_accelerator_node_share"]) - HOST_W) / MAXIMUM[r["accelerator"]]
    fit = [r for r in rows if r["mlperf"] == "v4.0"]
    n = len(fit)
    mx, my = sum(r["u"] for r in fit) / n, sum(r["share"] for r in fit) / n
    slope = sum((r["u"] - mx) * (r["share"] - my) for r in fit) / sum((r["u"] - mx) ** 2 for r in fit)
    wait, compute = my - slope * mx, my + slope * (1 - mx)
    print(f"wait_fraction {wait:.3f}  compute_fraction {compute:.3f}  (host {HOST_W:.0f} W, {n} rows)")
    for r in rows:
        predicted = MAXIMUM[r["accelerator"]] * (wait + slope * r["u"]) + HOST_W
        measured = float(r["W_per_accelerator_node_share"])
        part = "fit " if r["mlperf"] == "v4.0" else "test"
        print(f"{part} {r['benchmark']:16} {r['system']:34} u {r['u']:.2f} measured {measured:7.1f} W"
              f" predicted {predicted:7.1f} W {100 * (predicted / measured - 1):+6.1f} %")


main()
