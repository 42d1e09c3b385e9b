#!/usr/bin/env bash
# The text-script runner must fail where it should: each script below is wrong on purpose, but for the first.
set -u
here=$(cd "$(dirname "$0")" && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
bad=0
expect() { # verdict, script
  printf '%s\n' "$2" >"$place/case.test"
  if "$here/run.sh" /bin/true "$place/case.test" >"$place/log" 2>&1; then got=pass; else got=fail; fi
  if [ "$got" != "$1" ]; then
    echo "expected $1, found $got for:"; printf '%s\n' "$2"; cat "$place/log"
    bad=1
  fi
}
expect pass $'$ echo one; echo two >&2; exit 3\nexit 3\nout one\nerr two\nout! two\nout~ ^o.e$'
expect pass $'$ cat <<END\n> a\n> b\n> END\nout b\nerr='
expect fail $'$ false\nout='
expect fail $'$ true\nexit 1'
expect fail $'$ echo one\nout two'
expect fail $'$ echo one\nout! one'
expect fail $'$ echo one\nout='
expect fail $'$ echo one\nout~ ^two'
expect fail $'$ echo one'
expect fail $'$ echo one\nsay one'
exit $bad
