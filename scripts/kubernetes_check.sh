#!/usr/bin/env bash
# The manifests of `stoker launch --kubernetes`, checked by kubernetes-validate (PyPI), which carries Kubernetes' published schemas:
# every object, strictly (an unknown field is an error), for several versions. A manifest with a mistake in it must be refused.
# kubernetes_check.sh PROGRAM; makes .venv-kubernetes on first use (STOKER_KUBERNETES_PYTHON: a Python that has the package).
set -euo pipefail
program=$(readlink -f "${1:?usage: kubernetes_check.sh PROGRAM}")
cd "$(dirname "$0")/.."
python=${STOKER_KUBERNETES_PYTHON:-.venv-kubernetes/bin/python}
if ! "$python" -c 'import kubernetes_validate' 2>/dev/null; then
  [ -z "${STOKER_KUBERNETES_PYTHON:-}" ] || { echo "skipped: $python has no kubernetes-validate"; exit 77; }
  python3 -m venv .venv-kubernetes
  .venv-kubernetes/bin/pip install --disable-pip-version-check -q kubernetes-validate
fi
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$program" launch -n 1 --kubernetes small --image stoker:1 -- train recipe.toml >"$place/small.json"
"$program" launch -n 64 --minimum 8 --kubernetes big-run --image registry.example/stoker:0.1 --namespace research --claim runs --gpus 8 \
  --cpu 32 --memory 512Gi -- train /run/stoker/recipes/llama.toml --zero 1 --set 'train.steps=1000' >"$place/big.json"
exec "$python" - "$place" <<'PY'
import json, sys, warnings
warnings.simplefilter("ignore")
import kubernetes_validate as kv

def check(item, version):
    kv.validate(item, version, strict=True)

versions = ["1.29", "1.32", kv.latest_version().rsplit(".", 1)[0] if kv.latest_version().count(".") > 1 else kv.latest_version()]
seen = 0
for name in ("small", "big"):
    for item in json.load(open(f"{sys.argv[1]}/{name}.json"))["items"]:
        for version in versions:
            check(item, version)
            seen += 1
item = next(i for i in json.load(open(f"{sys.argv[1]}/big.json"))["items"] if i["kind"] == "Job")
assert item["spec"]["completionMode"] == "Indexed" and item["spec"]["parallelism"] == 64
item["spec"]["completionMod"] = "Indexed"
try:
    check(item, versions[0])
except Exception:
    pass
else:
    sys.exit("FAILED: the validator accepts anything")
print(f"ok: {seen} objects valid against Kubernetes {', '.join(versions)}, strictly")
PY
