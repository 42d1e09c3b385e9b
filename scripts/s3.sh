#!/usr/bin/env bash
# ./dev s3: training and data commands against an S3 server that is not ours: moto, from PyPI, in a virtual environment of its own,
# .venv-s3. It checks signatures (users and keys are made through its IAM), stores what boto3 uploads, and is cut off in mid-run.
#   STOKER_S3_PYTHON   a Python that already has moto[server] and boto3, used instead of .venv-s3
# Prints one line a check; fails at the first that does not hold.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '%s\n' "$*" >&2; }
die() { say "dev s3: $*"; exit 1; }
stoker=$PWD/build/stoker
[ -x "$stoker" ] || die "there is no build/stoker: run ./dev build"
python=${STOKER_S3_PYTHON:-.venv-s3/bin/python}
if ! "$python" -c 'import moto.server, boto3' 2>/dev/null; then
  [ -z "${STOKER_S3_PYTHON:-}" ] || die "$python has no moto[server] and boto3"
  say "making .venv-s3 with moto and boto3 from PyPI"
  python3 -m venv .venv-s3
  .venv-s3/bin/pip install --disable-pip-version-check --progress-bar off 'moto[server]' boto3 | sed -n 's/^Collecting/  fetching/p' >&2
fi
python=$(realpath -s "$python")
source=$PWD
work=$(mktemp -d)
pids=()
finish() { for p in "${pids[@]}"; do kill -9 "$p" 2>/dev/null || true; done; rm -rf "$work"; }
trap finish EXIT
cd "$work"
export STOKER_CACHE=$work/cache AWS_REGION=us-east-1
unset AWS_SESSION_TOKEN AWS_ENDPOINT_URL_S3 AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY || true

# A front door that can be shut: what "the server is gone" looks like to a client, while what it stores stays.
cat >door.py <<'PY'
import asyncio, sys
listen, target, delay = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
async def pump(a, b, wait):
    try:
        while data := await a.read(1 << 16):
            if wait: await asyncio.sleep(wait)
            b.write(data)
            await b.drain()
    except OSError: pass
    finally: b.close()
async def serve(reader, writer):
    try: r, w = await asyncio.open_connection("127.0.0.1", target)
    except OSError: return writer.close()
    await asyncio.gather(pump(reader, w, delay), pump(r, writer, 0))
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", listen)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
PY
cat >keys.py <<'PY'
import boto3, sys
args = dict(endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id="none", aws_secret_access_key="none")
iam = boto3.client("iam", **args)
iam.create_user(UserName="stoker")
iam.put_user_policy(UserName="stoker", PolicyName="all",
    PolicyDocument='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}')
key = iam.create_access_key(UserName="stoker")["AccessKey"]
print(key["AccessKeyId"], key["SecretAccessKey"])
PY
cat >upload.py <<'PY'
import boto3, os, sys
s3 = boto3.client("s3", endpoint_url=sys.argv[1])
s3.create_bucket(Bucket="bucket")
for folder, _, names in os.walk(sys.argv[2]):
    for name in names:
        path = os.path.join(folder, name)
        s3.upload_file(path, "bucket", os.path.relpath(path, "."))
PY
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
INITIAL_NO_AUTH_ACTION_COUNT=3 "$python" -m moto.server -H 127.0.0.1 -p "$port" >moto.log 2>&1 & pids+=($!)
for _ in $(seq 100); do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.1; done
read -r AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY < <("$python" keys.py "http://127.0.0.1:$port")
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_DEFAULT_REGION=us-east-1

mkdir text
for i in $(seq 60); do head -c $((400 + i * 97)) <(sed "s/^/$i /" "$source/tests/golden/tokenizer/training.txt") >"text/a name with spaces + $i.txt"; done
"$stoker" data prepare text --out set --vocab-size 400 --held-out 0.2 --pack 32 >/dev/null
"$python" upload.py "http://127.0.0.1:$port" set
"$python" - "http://127.0.0.1:$port" <<'PY'
import boto3, os, sys
s3 = boto3.client("s3", endpoint_url=sys.argv[1])
for name in os.listdir("text"): s3.upload_file("text/" + name, "bucket", "raw/" + name)
PY
"$python" door.py 0 "$port" 0 >door.port & door=$!; pids+=($door)
until [ -s door.port ]; do sleep 0.05; done
export AWS_ENDPOINT_URL=http://127.0.0.1:$(cat door.port)

(export AWS_SECRET_ACCESS_KEY=wrong; "$stoker" data show s3://bucket/set >/dev/null 2>refused.err) && die "a wrong key was accepted"
grep -q 'not allowed (HTTP 403)' refused.err || { cat refused.err >&2; die "a wrong key: expected \"not allowed\""; }
say "ok  a wrong secret key is refused by the server, and the message names the variables"
"$stoker" data verify s3://bucket/set >verified || die "verify"
grep -q ': sound' verified || die "verify"
say "ok  stoker data verify s3://bucket/set (its packing plan was found by listing)"
"$stoker" data prepare s3://bucket/raw --out again --tokenizer set/tokenizer.json --held-out 0.2 --pack 32 >/dev/null
cmp set/train_00000.bin again/train_00000.bin || die "prepared from s3:// it is another dataset"
say "ok  stoker data prepare s3://bucket/raw gives the same shards as from the disk"
printf 'name = "far"\noutput = "built"\nwork = "work"\n[[source]]\nname = "s"\npaths = ["s3://bucket/raw"]\n' >build.toml
"$stoker" data build build.toml >built.out
grep -q '^documents   60 in' built.out || { cat built.out >&2; die "data build from a prefix"; }
say "ok  stoker data build reads all objects below s3://bucket/raw"

cat >recipe.toml <<'TOML'
[run]
dir = "local"
[model]
layers = 1
hidden = 32
heads = 2
ffn = 64
vocab = 400
[data]
path = "set"
sequence_length = 32
packing = "best_fit"
[train]
steps = 600
global_batch = 8
micro_batch = 2
[checkpoint]
every = 200
[eval]
windows = 4
TOML
"$stoker" train recipe.toml --quiet --json | grep weights_hash >local.hash
"$stoker" train recipe.toml --quiet --set run.dir=far --set data.path=s3://bucket/set --json >far.out 2>far.err & run=$!
until [ -e far/log.jsonl ] && [ "$(grep -c '"event":"step"' far/log.jsonl)" -ge 3 ]; do sleep 0.01; kill -0 $run 2>/dev/null || break; done
kill -9 $door; rm -f cache/*.blk
until grep -q 'waiting for storage' far.err; do sleep 0.05; kill -0 $run 2>/dev/null || { cat far.err >&2; die "the run ended without the server"; }; done
stalled=$(grep -c '"event":"step"' far/log.jsonl); sleep 1
[ "$stalled" = "$(grep -c '"event":"step"' far/log.jsonl)" ] || die "the run went on without its data"
"$python" door.py "$(cat door.port)" "$port" 0 >/dev/null & pids+=($!)
wait $run || { cat far.err >&2; die "the run from s3:// failed"; }
grep weights_hash far.out | cmp - local.hash || die "the weights differ"
sed 's/^/      /' far.err >&2
say "ok  trained from s3://, cut off after $stalled steps, stalled, went on: $(tr -d ' ",' <local.hash), as from the disk"
