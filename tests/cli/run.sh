#!/usr/bin/env bash
# Runs one text script against the program: run.sh PROGRAM SCRIPT (the format: tests/cli/README.md).
set -uo pipefail
program=$(readlink -f "$1")
script=$(readlink -f "$2")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
mkdir .bin .saved
ln -s "$program" .bin/stoker
export PATH=$PWD/.bin:$PATH LC_ALL=C.UTF-8 SOURCE=${STOKER_SOURCE_DIR:-}
line_number=0 command='' command_line=0 code=0 ran=0 checks=0 want=0 failures=0

complain() {
  failures=$((failures + 1))
  echo "$(basename "$script"):$1: $2"
  echo "  command: $command"
  echo "  exit code $code; standard output:"; sed 's/^/    /' .saved/out | tail -25
  echo "  standard error:"; sed 's/^/    /' .saved/err | tail -25
}

execute() { # runs the pending command, if any
  [ -n "$command" ] && [ "$ran" = 0 ] || return 0
  bash -c "$command" >.saved/out 2>.saved/err </dev/null
  code=$?
  ran=1
}

finish() { # a command that named no exit code must succeed
  execute
  if [ -n "$command" ] && [ "$want" = 0 ] && [ "$code" != 0 ]; then complain "$command_line" "expected exit code 0"; fi
}

while IFS= read -r line || [ -n "$line" ]; do
  line_number=$((line_number + 1))
  argument=${line#* }
  case "$line" in
    '' | '#'*) continue ;;
    '$ '*)
      finish
      command=$argument command_line=$line_number ran=0 want=0 ;;
    '> '* | '>')
      [ "$line" = '>' ] && argument=
      command+=$'\n'$argument ;;
    'exit '*)
      execute
      want=1 checks=$((checks + 1))
      [ "$code" = "$argument" ] || complain "$line_number" "expected exit code $argument" ;;
    'out '* | 'err '*)
      execute; checks=$((checks + 1))
      grep -qF -e "$argument" ".saved/${line%% *}" || complain "$line_number" "expected to find: $argument" ;;
    'out! '* | 'err! '*)
      execute; checks=$((checks + 1)); stream=${line%%!*}
      ! grep -qF -e "$argument" ".saved/$stream" || complain "$line_number" "expected not to find: $argument" ;;
    'out~ '* | 'err~ '*)
      execute; checks=$((checks + 1)); stream=${line%%~*}
      grep -qE -e "$argument" ".saved/$stream" || complain "$line_number" "expected to match: $argument" ;;
    'out=' | 'err=')
      execute; checks=$((checks + 1))
      [ ! -s ".saved/${line%=}" ] || complain "$line_number" "expected nothing on ${line%=}" ;;
    *)
      echo "$(basename "$script"):$line_number: not a line of a text script: $line"
      exit 1 ;;
  esac
done <"$script"
finish
if [ "$checks" = 0 ]; then
  echo "$(basename "$script"): checks nothing"
  exit 1
fi
[ "$failures" = 0 ]
