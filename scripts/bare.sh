#!/usr/bin/env bash
# ./dev bare [test|demo|...]: does ./dev COMMAND work for a newcomer? Makes a bare Debian 12 with debootstrap in a scratch
# directory outside the tree, copies a fresh clone of the last commit in, and runs ./dev COMMAND there, in a mount and process
# namespace of its own. ./dev bare unpacked: runs the package (build/*.tar.zst) there instead, with nothing installed.
# Needs root, debootstrap and network access to Debian's packages; the mirror, the sources and name resolution are taken
# from the machine it runs on.
#   STOKER_BARE_DIR   where (default: a new directory in /var/tmp, removed afterwards unless it was given)
set -euo pipefail
cd "$(dirname "$0")/.."
command=${1:-test}
[ $# -eq 0 ] || shift

say() { printf '%s\n' "$*" >&2; }
die() { say "dev bare: $*"; exit 1; }
[ "$(id -u)" = 0 ] || die "expected to run as root (debootstrap and chroot need it), found user $(id -un). Run it with sudo."
if ! command -v debootstrap >/dev/null; then
  say "installing from Debian: debootstrap"
  DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install debootstrap >/dev/null 2>&1 ||
    die "could not install debootstrap"
fi

keep=${STOKER_BARE_DIR:+yes}
place=${STOKER_BARE_DIR:-$(mktemp -d /var/tmp/stoker-bare-XXXXXX)}
mkdir -p "$place"
root=$place/root
trap '[ "$keep" = yes ] || rm -rf --one-file-system "$place"' EXIT

mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 2>/dev/null |
  awk '$2 == "bookworm" {print $1; exit}')
[ -n "$mirror" ] || die "no Debian 12 (bookworm) mirror in apt's configuration: add one and run apt-get update"

# The base system is made once per place; each run works on a copy of it.
if [ ! -e "$place/base.done" ]; then
  say "making a bare Debian 12 from $mirror"
  rm -rf "$place/base"
  debootstrap --variant=minbase bookworm "$place/base" "$mirror" >"$place/debootstrap.log" 2>&1 ||
    { tail -5 "$place/debootstrap.log" >&2; die "debootstrap failed ($place/debootstrap.log)"; }
  # Debian's own sources only: a newcomer has no others.
  rm -f "$place"/base/etc/apt/sources.list "$place"/base/etc/apt/sources.list.d/*
  apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
    awk '$2 ~ /^bookworm(-updates|-security)?$/ && !seen[$0]++ {print "deb", $1, $2, $3}' |
    grep -E 'debian' >"$place/base/etc/apt/sources.list" || echo "deb $mirror bookworm main" >"$place/base/etc/apt/sources.list"
  touch "$place/base.done"
fi
rm -rf --one-file-system "$root"
cp -a --reflink=auto "$place/base" "$root"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
cp -L /etc/hosts "$root/etc/hosts"
if [ -d /etc/apt/apt.conf.d ]; then
  grep -l -s -i 'proxy' /etc/apt/apt.conf /etc/apt/apt.conf.d/* 2>/dev/null | xargs -r cp -t "$root/etc/apt/apt.conf.d" || true
fi

if [ "$command" = unpacked ]; then
  archive=$(ls -t build/stoker-*.tar.zst 2>/dev/null | head -1)
  [ -n "$archive" ] || die "expected build/stoker-*.tar.zst, found none. Run ./dev package first."
  mkdir -p "$root/opt/stoker"
  tar --zstd -C "$root/opt/stoker" --strip-components=1 -xf "$archive"
  cp scripts/first_job.sh "$root/opt/first_job.sh"
  what="$(basename "$archive")"
  inside='exec bash /opt/first_job.sh /opt/stoker/bin/stoker'
else
  git clone -q --no-hardlinks . "$root/root/stoker"
  [ -z "$(git status --porcelain)" ] || say "note: uncommitted changes are not in the clone"
  what="./dev $command"
  inside='cd /root/stoker && exec ./dev "$@"'
fi
say "running $what at $(git rev-parse --short HEAD) in $root"

# Namespaces of its own: what is mounted or started in there is gone with it.
start=$SECONDS status=0
export root inside
unshare --mount --pid --fork --kill-child bash -c '
  set -e
  mount --make-rprivate /
  mount -t proc proc "$root/proc"
  mount --rbind /sys "$root/sys"
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  mkdir -p "$root"/dev/{pts,shm}
  for node in null zero full random urandom tty; do touch "$root/dev/$node"; mount --bind "/dev/$node" "$root/dev/$node"; done
  mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
  ln -s /proc/self/fd "$root/dev/fd"
  ln -s /proc/self/fd/0 "$root/dev/stdin"; ln -s /proc/self/fd/1 "$root/dev/stdout"; ln -s /proc/self/fd/2 "$root/dev/stderr"
  exec chroot "$root" /usr/bin/env -i HOME=/root TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    sh -c "$inside" dev "$@"
' bare "$command" "$@" || status=$?
if [ "$status" = 0 ]; then
  echo "ok: $what in a bare Debian 12, $((SECONDS - start)) s"
else
  echo "FAILED: $what in a bare Debian 12: exit code $status after $((SECONDS - start)) s"
fi
exit "$status"
