#!/bin/sh
# Restores one generation of an offsite chain with age, zstd, tar and POSIX tools.
#
#   sh restore.sh KEYFILE CHAIN GENERATION OUT
#
# KEYFILE     file with the age secret key
# CHAIN       the downloaded folder (rolling/CHAIN or archive/CHAIN)
# GENERATION  such as 20261122T233004Z-7f3a; see the .json files in CHAIN
# OUT         a new folder
#
# The manifest lists, in order, of which bytes of which packs the generation's tar stream is made:
#   {"pack":N,"name":"..","at":P,"content":C,"sealed":S}  pack N holds positions P to P+C, or patches
#   {"from":P,"bytes":B}                                  the B bytes from position P on
#   {"patch":N,"from":F,"packed":L,"gives":G,"reference":P,"reference_bytes":B,"skip":K,"take":T}
#       the L bytes from F on in patch pack N are a zstd patch of positions P to P+B; of what it gives, skip K, take T
set -eu

if [ $# -ne 4 ]; then
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
key=$1 chain=$2 generation=$3 out=$4
fail() { echo "restore.sh: $*" >&2; exit 1; }
for tool in age zstd tar; do command -v "$tool" >/dev/null || fail "$tool is missing: install it first"; done
[ -r "$key" ] || fail "the key file $key cannot be read"
[ -r "$chain/$generation.manifest.age" ] || fail "there is no $generation.manifest.age in $chain"
[ ! -e "$out" ] || fail "$out exists already: name a folder that does not"

umask 077
mkdir -p "$out"
work=$out/.restoring
mkdir "$work"
# A folder in which nothing was restored goes, too, so that the next try can have its name.
finish() {
  code=$?
  rm -rf "$work"
  rmdir "$out" 2>/dev/null || [ "$code" -eq 0 ] ||
    echo "restore.sh: what lies in $out is NOT ALL OF IT: remove it, or name another folder, before you try again" >&2
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

age -d -i "$key" "$chain/$generation.manifest.age" >"$work/manifest.zst" || fail "the manifest cannot be opened: is this the right key?"
zstd -q -d -c "$work/manifest.zst" >"$work/manifest" || fail "the manifest is damaged"

# Numbers and names only, one record a line.
sed -n -e 's/^{"pack":\([0-9]*\),"name":"\([0-9a-z.-]*\)","at":\([0-9]*\),"content":\([0-9]*\),.*/pack \1 \2 \3 \4/p' \
  -e 's/^{"from":\([0-9]*\),"bytes":\([0-9]*\)}.*/plain \1 \2/p' \
  -e 's/^{"patch":\([0-9]*\),"from":\([0-9]*\),"packed":\([0-9]*\),"gives":[0-9]*,"reference":\([0-9]*\),"reference_bytes":\([0-9]*\),"skip":\([0-9]*\),"take":\([0-9]*\)}.*/patch \1 \2 \3 \4 \5 \6 \7/p' \
  "$work/manifest" >"$work/plan"
[ "$(wc -l <"$work/plan")" -eq "$(($(wc -l <"$work/manifest") - 1))" ] || fail "the manifest has lines that this script does not know"

# Bytes of a file: slice FILE OFFSET COUNT
slice() { tail -c "+$(($2 + 1))" "$1" | head -c "$3"; }

# Opens every pack once: plain packs as PACK.plain, patch packs as PACK.patches.
grep '^pack ' "$work/plan" >"$work/packs" || fail "the manifest names no packs"
while read -r _ number name at content; do
  echo "opening $name" >&2
  case $name in
  *.patch.age) age -d -i "$key" "$chain/packs/$name" >"$work/$number.patches" || fail "$name cannot be opened" ;;
  *)
    age -d -i "$key" "$chain/packs/$name" >"$work/sealed" || fail "$name cannot be opened"
    zstd -q -d -c "$work/sealed" >"$work/$number.plain" || fail "$name is damaged"
    rm "$work/sealed"
    [ "$(wc -c <"$work/$number.plain")" -eq "$content" ] || fail "$name is damaged"
    ;;
  esac
done <"$work/packs"

# The bytes at positions P to P+B: content P B
content() {
  position=$1 left=$2
  while read -r _ number name at size; do
    [ "$left" -gt 0 ] || break
    case $name in *.patch.age) continue ;; esac
    if [ "$position" -ge "$at" ] && [ "$position" -lt "$((at + size))" ]; then
      count=$((at + size - position))
      [ "$count" -le "$left" ] || count=$left
      slice "$work/$number.plain" "$((position - at))" "$count"
      position=$((position + count)) left=$((left - count))
    fi
  done <"$work/packs"
  [ "$left" -eq 0 ] || fail "the manifest names bytes that no pack has"
}

# A failure inside the pipe would go unnoticed, so its end is marked.
{
  while read -r kind a b c d e f g; do
    case $kind in
    plain) content "$a" "$b" ;;
    patch)
      slice "$work/$a.patches" "$b" "$c" >"$work/patch"
      content "$d" "$e" >"$work/reference"
      zstd -q -d -f --patch-from="$work/reference" "$work/patch" -o "$work/patched" || fail "a patch cannot be applied"
      slice "$work/patched" "$f" "$g"
      ;;
    esac
  done <"$work/plan"
  : >"$work/done"
} | tar -x -p -f - -C "$out" || fail "tar could not unpack everything: see the messages above"
[ -e "$work/done" ] || fail "not everything could be restored: see the messages above"

echo "Restored to $out. Check it: cd '$out' && sha256sum -c --quiet SHA256SUMS" >&2
