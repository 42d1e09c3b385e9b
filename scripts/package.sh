#!/usr/bin/env bash
# ./dev package: build/stoker-VERSION-linux-x86_64.tar.zst, a folder that runs from anywhere on a Debian 12 with nothing
# installed: bin/stoker, the shared libraries it needs except the C library itself, recipes, documents, licences.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '%s\n' "$*" >&2; }
die() { say "dev package: $*"; exit 1; }

version=$(build/stoker --version | awk '{print $2}')
name=stoker-$version-linux-x86_64
stage=build/package/$name
rm -rf "$stage"
cmake --install build --prefix "$stage" --strip >/dev/null
mkdir -p "$stage/lib" "$stage/licences"

# ldd lists the whole closure. What belongs to the C library must come from the machine, for it has to match its loader.
c_library='^(linux-vdso|ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libresolv|libnsl|libutil|libanl|libcrypt)\.so'
ldd build/stoker | awk '$2 == "=>" {print $1, $3}' | while read -r soname path; do
  [[ "$soname" =~ $c_library ]] && continue
  [ -e "$path" ] || die "the program needs $soname, which was not found"
  install -m 644 "$(readlink -f "$path")" "$stage/lib/$soname"
  # Debian's file lists name /lib paths as installed before or after the /usr merge.
  package=$( (dpkg-query -S "$path" || dpkg-query -S "/usr$path" || dpkg-query -S "${path#/usr}" ||
    dpkg-query -S "$(readlink -f "$path")") 2>/dev/null | head -1 | sed 's/:.*//')
  [ -n "$package" ] || die "no Debian package owns $path, so its licence is unknown"
  cp "/usr/share/doc/$package/copyright" "$stage/licences/$package"
done
tar --sort=name --owner=0 --group=0 --numeric-owner -C build/package -cf - "$name" | zstd -q -T0 -10 -f -o "build/$name.tar.zst"
rm -rf build/package
echo "build/$name.tar.zst ($(du -h "build/$name.tar.zst" | cut -f1)): unpack it anywhere, run bin/stoker"
