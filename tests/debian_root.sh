#!/bin/sh
# Creates a minimal Debian with some packages, cached as a tar file. Needs root and debootstrap.
# Usage: debian_root.sh TAR PACKAGE,PACKAGE,... [SUITE]      DEBIAN_MIRROR: another mirror
set -eu
tar=$1
packages=$2
suite=${3:-bookworm}
[ ! -e "$tar" ] || exit 0
mkdir -p "$(dirname "$tar")"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# A suite newer than debootstrap has no script of its own there; that of unstable serves.
script=/usr/share/debootstrap/scripts/$suite
[ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
echo "Creating a minimal Debian $suite with $packages ..." >&2
debootstrap --variant=minbase --include="$packages" "$suite" "$folder/root" \
    "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" "$script" > "$folder/log" 2>&1 ||
    { tail -20 "$folder/log" >&2; exit 1; }
rm -rf "$folder"/root/var/cache/apt/archives/*.deb "$folder"/root/usr/share/doc
tar -C "$folder/root" --exclude='./dev/*' -cf "$tar.unfinished" .
mv "$tar.unfinished" "$tar"
