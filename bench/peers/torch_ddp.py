#!/usr/bin/env python3
"""Peer baseline: torch_gpt.py in several processes under PyTorch's DistributedDataParallel with gloo, timed.

  torch_ddp.py --processes 2 [--namespaces stkd] -- --layers 6 --hidden 384 ...

Starts the processes (each in network namespace PREFIX0, PREFIX1, ... when one is named), waits, and prints rank 0's JSON line:
tokens/s of all processes together. DDP's defaults: 25 MB buckets, all-reduce while the backward pass still runs.
"""
import argparse
import os
import socket
import subprocess
import sys
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--processes", type=int, default=2)
parser.add_argument("--namespaces", default="", help="prefix of network namespaces")
parser.add_argument("--address", default="127.0.0.1", help="of rank 0, as the others dial it")
parser.add_argument("--interface", default="lo", help="network interface that gloo uses; {} is the rank")
parser.add_argument("model", nargs="*", help="arguments of torch_gpt.py, after --")
args = parser.parse_args()

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
script = str(Path(__file__).with_name("torch_gpt.py"))
children = []
for rank in range(args.processes):
    enter = ["ip", "netns", "exec", f"{args.namespaces}{rank}"] if args.namespaces else []
    environment = os.environ | {
        "RANK": str(rank), "WORLD_SIZE": str(args.processes), "MASTER_ADDR": args.address, "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": args.interface.format(rank), "OMP_NUM_THREADS": "1"}
    children.append(subprocess.Popen([*enter, sys.executable, script, "--ddp", "--threads", "1", *args.model], env=environment,
                                     stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL, text=True))
out, _ = children[0].communicate()
codes = [child.wait() for child in children]
if any(codes):
    sys.exit(f"torch_ddp: exit codes {codes}")
print(out.splitlines()[-1])
