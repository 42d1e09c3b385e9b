#!/usr/bin/env bash
# A run that changes while it trains. One machine, several network namespaces that stand for machines; everything over TCP, the
# coordinator behind TLS.
#   1. a run of one worker; a worker of another namespace joins with HOST:PORT and the token; who has another token is turned away,
#      and so is who speaks without TLS or sends garbage to the port
#   2. stoker top shows both live, from files and token alone
#   3. the newcomer is killed: below the minimum the run pauses, and goes on when another one joins
#   4. stoker scale takes a worker out again
#   5. the coordinator is killed and comes back; then it moves to another port, and the run goes on
#   6. what came of it: the single worker's weights, every sample once
# elastic_run.sh PROGRAM; exits 77 with the reason where namespaces cannot be made (needs root and iproute2).
set -euo pipefail
program=$(readlink -f "${1:?usage: elastic_run.sh PROGRAM}")
source=$(cd "$(dirname "$0")/.." && pwd)
. "$source/scripts/small_run.sh"
. "$source/scripts/two_hosts.sh"
skip() { echo "skipped: $*"; exit 77; }
command -v ip >/dev/null || skip "ip is not installed (package iproute2)"
[ "$(id -u)" = 0 ] || skip "network namespaces need root"
place=$(mktemp -d)
pids=()
net=198.18.$((100 + $$ % 100))
name=stk$(($$ % 10000))
finish() {
  for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  remove_two_hosts "$name"
  rm -rf "$place"
}
trap finish EXIT
die() { echo "FAILED: $*" >&2; tail -n 5 "$place"/*.log "$place"/run/events.jsonl >&2 2>/dev/null || true; exit 1; }
ip link add "$name" type bridge 2>/dev/null || skip "the kernel makes no bridge"
ip link del "$name"
make_two_hosts "$name" "$net"
cd "$place"
make_small_run
long=(--set train.steps=1000000 --set checkpoint.every=200)
status() { "$program" top run --json; }
members() { status 2>/dev/null | grep -c '"life": "member"' || true; }
until_members() {
  local _
  for _ in $(seq 600); do [ "$(members)" = "$1" ] && return; sleep 0.05; done
  die "there are not $1 workers but $(members)"
}
pid_of() { sed -n "s/.*\"kind\":\"joined\".*\"pid\":\([0-9]*\).*\"worker\":\"$1\".*/\1/p" run/events.jsonl | tail -1; }

coordinator() { # port, to listen on at the bridge
  "$program" coordinator --run run --workers 2 --minimum 2 --listen "$net.1" --port "$1" >>coordinator.log 2>&1 & pids+=($!)
  coordinator=$!
  local _
  for _ in $(seq 200); do grep -q ":$1\$" run/coordinator 2>/dev/null && return; sleep 0.05; done
  die "no coordinator at port $1"
}
mkdir run
words='["train","recipe.toml","--quiet","--transport","tcp","--timeout","2","--set","run.dir=\"run\""'
for word in "${long[@]}"; do words+=",\"$word\""; done
echo "{\"arguments\":$words]}" >run/command.json
port=$((21000 + $$ % 20000))
coordinator "$port"
token=$(cat run/token)
join() { # namespace: a worker comes from there
  ip netns exec "$1" "$program" join "$(cat run/coordinator)" --token "$token" --run run >>"join.$1.log" 2>&1 & pids+=($!)
  joined=$!
}
join "${name}1"
first=$joined
event run '"kind":"joined"'
sleep 0.5
[ "$(batches run)" = 0 ] || die "the run began below its minimum"
echo "ok: one worker of two waits: below the minimum nothing is trained"

refused() { # what, expected text, command...
  local what=$1 text=$2
  shift 2
  if timeout 60 ip netns exec "${name}2" "$@" >refused.log 2>&1; then die "$what got in"; fi
  grep -q "$text" refused.log || { cat refused.log >&2; die "$what: expected '$text'"; }
  echo "ok: $what is turned away: $(tail -1 refused.log | cut -c1-140)"
}
refused "another token" "refused the join token" "$program" join "$(cat run/coordinator)" --token "0123456789abcdefghjkmnpqrs" --run run
refused "a worker without TLS" "speaks TLS and was called without" "$program" join "$(cat run/coordinator)" --token "$token" --no-tls --run run
for _ in 1 2 3; do
  ip netns exec "${name}2" bash -c "exec 3<>/dev/tcp/$net.1/$port; head -c 20000 /dev/urandom >&3; printf 'GET / HTTP/1.1\r\n\r\n' >&3" 2>/dev/null || true
done
kill -0 "$coordinator" || die "garbage ended the coordinator"

join "${name}2"
until_members 2
until_batches run 50
grep -q '"worker":"join\.' run/events.jsonl || die "nobody joined"
echo "ok: a worker of another namespace joined with address and token, over TLS; garbage on the port did no harm"
shown() { "$program" top run --once >top.log; grep -q "^   1 join" top.log && grep -q "goodput" top.log && grep -q "wait for agreement" top.log; }
for _ in $(seq 100); do shown && break; sleep 0.1; done # workers report a few times a second, after their batches
shown || { cat top.log; die "stoker top"; }
echo "ok: stoker top:"
sed -n '1,/^events/p' top.log | sed 's/^/      /; s/ *$//' | head -9

second=$joined
kill -9 "$second"
event run '"kind":"\(ended\|silent\|link\)"'
sleep 1
stalled=$(batches run)
sleep 1.5
[ "$(batches run)" = "$stalled" ] || die "the run went on below its minimum"
join "${name}2"
until_batches run $((stalled + 50))
echo "ok: a worker was killed; the run paused at batch $stalled, below its minimum, and goes on with another one"

kill -9 "$coordinator"
at=$(batches run)
until_batches run $((at + 250)) # beyond the next save, which is not committed meanwhile
coordinator "$port"
event run 'the coordinator came back'
until_batches run $(($(batches run) + 50))
echo "ok: the coordinator was killed and came back; $(($(batches run) - at)) batches went by meanwhile and since"
kill "$coordinator"
wait "$coordinator" 2>/dev/null || true
coordinator $((port + 1))
until_members 2
until_batches run $(($(batches run) + 50))
echo "ok: the coordinator moved to another port; the run went with it"

# The minimum is the coordinator's own: a run that is to shrink has a lower one.
kill "$coordinator"
wait "$coordinator" 2>/dev/null || true
"$program" coordinator --run run --workers 2 --minimum 1 --listen "$net.1" --port $((port + 2)) >>coordinator.log 2>&1 & pids+=($!)
for _ in $(seq 200); do grep -q ":$((port + 2))\$" run/coordinator && break; sleep 0.05; done
until_batches run $(($(batches run) + 20))
"$program" scale run 1
until_members 1
until_batches run $(($(batches run) + 50))
echo "ok: stoker scale run 1: one worker goes on alone"
kill -TERM "$first" "$joined" 2>/dev/null || true
for _ in $(seq 200); do kill -0 "$first" 2>/dev/null || kill -0 "$joined" 2>/dev/null || break; sleep 0.05; done
same_as_alone run "${long[@]}"
