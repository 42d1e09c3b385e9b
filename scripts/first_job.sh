#!/usr/bin/env bash
# A first job with an unpacked package, on a machine with nothing else: first_job.sh PATH/TO/stoker
set -euo pipefail
stoker=$1
"$stoker" --version
"$stoker" doctor
