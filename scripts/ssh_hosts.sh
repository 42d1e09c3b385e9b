#!/usr/bin/env bash
# stoker launch --hosts over real SSH: two sshd on loopback ports stand for two hosts. Four workers over both, one of them killed;
# the single worker's weights must come out, and the join token must not be on any command line.
# ssh_hosts.sh PROGRAM; exits 77 with the reason where sshd is not installed (package openssh-server).
set -euo pipefail
program=$(readlink -f "${1:?usage: ssh_hosts.sh PROGRAM}")
source=$(cd "$(dirname "$0")/.." && pwd)
. "$source/scripts/small_run.sh"
skip() { echo "skipped: $*"; exit 77; }
export PATH=$PATH:/usr/sbin
sshd=$(command -v sshd) || skip "sshd is not installed (package openssh-server)"
command -v ssh >/dev/null || skip "ssh is not installed (package openssh-client)"
place=$(mktemp -d)
daemons=()
finish() { for pid in "${daemons[@]}"; do kill "$pid" 2>/dev/null || true; done; rm -rf "$place"; }
trap finish EXIT
die() { echo "FAILED: $*" >&2; tail -n 5 "$place"/*.log "$place"/three/logs/*.log >&2 2>/dev/null || true; exit 1; }

cd "$place"
chmod 755 .
ssh-keygen -q -t ed25519 -N '' -f host
ssh-keygen -q -t ed25519 -N '' -f user
base=$((30000 + $$ % 20000))
[ "$(id -u)" != 0 ] || mkdir -p /run/sshd
names=(- localhost 127.0.0.1)  # two names that lead here, each with a port of its own
for i in 1 2; do
  cat >sshd$i.conf <<CONF
Port $((base + i))
ListenAddress 127.0.0.1
HostKey $place/host
PidFile $place/sshd$i.pid
AuthorizedKeysFile $place/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
CONF
  "$sshd" -D -e -f "$place/sshd$i.conf" >sshd$i.log 2>&1 & daemons+=($!)
  cat >>ssh.conf <<CONF
Host ${names[i]}
  HostName 127.0.0.1
  Port $((base + i))
  IdentityFile $place/user
  UserKnownHostsFile $place/known
  StrictHostKeyChecking accept-new
CONF
done
printf '#!/bin/sh\nexec ssh -F %s/ssh.conf "$@"\n' "$place" >ssh
chmod +x ssh
for _ in $(seq 50); do ./ssh -o BatchMode=yes localhost true 2>/dev/null && ./ssh -o BatchMode=yes 127.0.0.1 true 2>/dev/null && break; sleep 0.1; done
./ssh -o BatchMode=yes 127.0.0.1 true || die "sshd does not let us in"

make_small_run
"$program" train recipe.toml --quiet >/dev/null
absolute="--set data.path=\"$place/data\" --set run.dir=\"$place/three\""
# shellcheck disable=SC2086
"$program" launch -n 4 --hosts localhost:2,127.0.0.1:2 --ssh "$place/ssh" --run "$place/three" -- \
  train "$place/recipe.toml" --quiet --zero 1 $absolute >launch.log 2>&1 & launcher=$!
until_batches three 20
token=$(cat three/token)
# shellcheck disable=SC2009
if ps -eo args | grep -F "$token" | grep -v grep >/dev/null; then die "the join token is on a command line"; fi
victim=$(sed -n 's/.*"kind":"joined".*"pid":\([0-9]*\).*"worker":"w2\.0".*/\1/p' three/events.jsonl)
kill -9 "$victim"
wait "$launcher" || die "the launcher ended with exit code $?"
[ "$(weights three)" = "$(weights single)" ] || die "the weights differ"
grep -q '"worker":"w2.1"' three/events.jsonl || die "the killed worker was not replaced over SSH"
echo "ok: four workers on two SSH hosts, one killed and replaced there: the single worker's weights $(weights single)"
