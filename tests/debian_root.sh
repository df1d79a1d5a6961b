#!/bin/sh
# Creates a minimal Debian with some packages, cached as a tar file. Needs root and debootstrap.
# Usage: debian_root.sh TAR PACKAGE,PACKAGE,...      DEBIAN_MIRROR: another mirror
set -eu
tar=$1
packages=$2
[ ! -e "$tar" ] || exit 0
mkdir -p "$(dirname "$tar")"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo "Creating a minimal Debian with $packages ..." >&2
debootstrap --variant=minbase --include="$packages" bookworm "$folder/root" \
    "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" > "$folder/log" 2>&1 || { tail -20 "$folder/log" >&2; exit 1; }
rm -rf "$folder"/root/var/cache/apt/archives/*.deb "$folder"/root/usr/share/doc
tar -C "$folder/root" --exclude='./dev/*' -cf "$tar.unfinished" .
mv "$tar.unfinished" "$tar"
