#!/usr/bin/env bash
# Slurm as it is when a node dies: its daemon is gone, the job is requeued elsewhere, and the old ranks still run. A real
# slurmctld with four slurmd on this machine, `srun stoker train` in an allocation; then
#   1. the allocation trains to the single worker's weights,
#   2. the daemon of one node is killed in the middle of a run: Slurm requeues the job while the first attempt still runs. The
#      second attempt takes over; every process of the first one must find itself fenced and write nothing more,
#   3. a rank that was stopped (SIGSTOP) and given up wakes: it writes neither gradients nor checkpoints.
# slurm_zombie.sh PROGRAM; exits 77 with the reason where Slurm is not installed (package slurm-wlm). No root needed.
set -euo pipefail
program=$(readlink -f "${1:?usage: slurm_zombie.sh PROGRAM}")
source=$(cd "$(dirname "$0")/.." && pwd)
. "$source/scripts/small_run.sh"
skip() { echo "skipped: $*"; exit 77; }
die() { echo "FAILED: $*" >&2; tail -n 5 "$place"/run*.out "$place"/run*/events.jsonl >&2 2>/dev/null || true; exit 1; }
export PATH=$PATH:/usr/sbin:/sbin
for tool in slurmctld slurmd srun sbatch scontrol; do
  command -v "$tool" >/dev/null || skip "$tool is not installed (package slurm-wlm)"
done

place=$(mktemp -d)
daemons=()
finish() {
  for pid in "${daemons[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  # Steps and ranks outlive their daemons: that is the point. What works in this place, or names it, is ended with it.
  cd /
  local at pid
  for at in /proc/[0-9]*; do
    pid=${at#/proc/}
    case "$pid $(readlink "$at/cwd" 2>/dev/null) $(tr '\0' ' ' 2>/dev/null <"$at/cmdline")" in
      "$$ "*) ;;
      *" $place"* | *"=$place"*) kill -9 "$pid" 2>/dev/null || true ;;
    esac
  done
  rm -rf "$place"
}
trap finish EXIT
user=$(id -un) host=$(hostname -s)
port=$((20000 + $$ % 20000))
export SLURM_CONF=$place/slurm.conf
cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
AuthType=auth/none
CredType=cred/none
SlurmUser=$user
SlurmdUser=$user
StateSaveLocation=$place/state
SlurmctldPidFile=$place/slurmctld.pid
SlurmctldLogFile=$place/slurmctld.log
SlurmdPidFile=$place/slurmd.%n.pid
SlurmdLogFile=$place/slurmd.%n.log
SlurmdSpoolDir=$place/spool.%n
TmpFS=$place/tmp.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=1,sched_interval=2
AuthInfo=cred_expire=5
ReturnToService=2
SlurmdTimeout=5
KillWait=2
MpiDefault=none
NodeName=n[0-3] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + 4))] CPUs=2 RealMemory=4000
PartitionName=all Nodes=n[0-3] Default=YES State=UP
CONF
mkdir "$place/state"
for n in n0 n1 n2 n3; do mkdir "$place/spool.$n" "$place/tmp.$n"; done
slurmctld -D >"$place/slurmctld.out" 2>&1 & daemons+=($!)
declare -A slurmd
for n in n0 n1 n2 n3; do slurmd -D -N "$n" >"$place/$n.out" 2>&1 & slurmd[$n]=$!; daemons+=($!); done
for _ in $(seq 100); do
  [ "$(sinfo -h -t idle -o %D 2>/dev/null || true)" = 4 ] && break
  sleep 0.2
done
[ "$(sinfo -h -t idle -o %D)" = 4 ] || die "four slurmd did not come up"
echo "slurmctld with four slurmd is up"

cd "$place"
export STOKER_LOOPBACK=1  # all nodes are this machine
make_small_run
train() { echo "train recipe.toml --quiet --zero 1 --transport tcp --timeout 2"; }

"$program" train recipe.toml --quiet >/dev/null
single=$(weights single)
# shellcheck disable=SC2046
timeout 120 srun -N4 -n4 --kill-on-bad-exit=1 "$program" $(train) --set run.dir='"run1"' >run1.out 2>&1 || die "srun stoker train failed"
[ "$(weights run1)" = "$single" ] || die "weights in the allocation differ from the single worker's"
[ "$(batches run1)" = 400 ] || die "the ledger has $(batches run1) batches"
echo "ok: srun -N4 stoker train gives the single worker's weights $single"

long="--set train.steps=1000000 --set checkpoint.every=100"
gone() { # pid seconds
  for _ in $(seq $((10 * $2))); do kill -0 "$1" 2>/dev/null || return 0; sleep 0.1; done
  return 1
}

# A rank that was given up wakes.
# shellcheck disable=SC2046,SC2086
srun -N4 -n4 --kill-on-bad-exit=0 "$program" $(train) $long --set run.dir='"run2"' >run2.out 2>&1 & step=$!
until_batches run2 50
sleeper=$(sed -n 's/.*"kind":"joined".*"pid":\([0-9]*\).*"worker":"\([^"]*\.r2\)".*/\1/p' run2/events.jsonl)
kill -STOP "$sleeper"
event run2 '"kind":"silent"'
until_batches run2 $(($(batches run2) + 50))
kill -CONT "$sleeper"
gone "$sleeper" 15 || die "the rank that woke still runs"
event run2 '"kind":"fenced-call"'
until_batches run2 $(($(batches run2) + 50))
for pid in $(pgrep -f "^$program train recipe.toml.*run2" || true); do kill -TERM "$pid" 2>/dev/null || true; done
wait "$step" || true
# shellcheck disable=SC2086
same_as_alone run2 $long

# A node dies; Slurm requeues the job elsewhere; the rank on the dead node, with the coordinator beside it, lives on.
cat >job.sh <<JOB
#!/bin/sh
exec srun -n3 --kill-on-bad-exit=0 $program $(train) $long --set run.dir='"run3"'
JOB
job=$(sbatch --parsable -N3 -n3 --requeue --open-mode=append -o "$place/run3.out" job.sh)
until_batches run3 150
node=$(scontrol show job "$job" | sed -n 's/.*BatchHost=\(n[0-3]\).*/\1/p')
zombie=$(sed -n 's/.*"kind":"joined".*"pid":\([0-9]*\).*"worker":"j[0-9.]*\.0\.r0".*/\1/p' run3/events.jsonl)
# It hangs for a while, as ranks of dying nodes do: Slurm's own SIGTERM would let it save and leave.
kill -STOP "$zombie"
kill -9 "${slurmd[$node]}"
echo "killed the slurmd of $node; rank 0 there is process $zombie"
restarted() { scontrol show job "$job" | sed -n 's/.*Restarts=\([0-9]*\).*/\1/p'; }
for _ in $(seq 600); do [ "$(restarted)" != 0 ] && break; sleep 0.1; done
[ "$(restarted)" != 0 ] || die "Slurm did not requeue the job"
event run3 '"worker":"j[0-9.]*\.1\.r0"'
event run3 '"kind":"resume"'
until_batches run3 $(($(batches run3) + 20))
kill -0 "$zombie" 2>/dev/null || die "there is no zombie: the rank ended with its daemon"
kill -CONT "$zombie"
echo "Slurm requeued the job and it trains elsewhere; the zombie wakes"
gone "$zombie" 20 || die "the zombie still runs"
grep -q "another coordinator\|belongs to an attempt" run3/events.jsonl || die "nobody noticed the zombie"
until_batches run3 $(($(batches run3) + 100))
for pid in $(pgrep -f "^$program train recipe.toml.*run3" || true); do kill -TERM "$pid" 2>/dev/null || true; done
for _ in $(seq 100); do [ -z "$(pgrep -f "^$program train recipe.toml.*run3")" ] && break; sleep 0.1; done
# shellcheck disable=SC2086
same_as_alone run3 $long
echo "ok: the second attempt took over; the zombie was put out and wrote nothing more"
