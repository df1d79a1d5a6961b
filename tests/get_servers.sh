#!/bin/sh
# Gets the real servers that the integration tests run, from Debian's packages, into a folder of their own:
# nothing is installed on the machine and no service is started. Usage: get_servers.sh FOLDER
set -eu
folder=$1
packages="prometheus prometheus-alertmanager prometheus-node-exporter"
binaries="prometheus promtool prometheus-alertmanager amtool prometheus-node-exporter"

missing=""
for binary in $binaries; do
    command -v "$binary" >/dev/null 2>&1 || [ -x "$folder/usr/bin/$binary" ] || missing="$missing $binary"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg-deb >/dev/null 2>&1; then
    echo "Not found:$missing. Put them on PATH to run the tests that need real servers; those are skipped now." >&2
    exit 0
fi
mkdir -p "$folder/packages"
cd "$folder/packages"
# Downloading needs no root; refreshing the package lists does.
if ! apt-get -qq download $packages 2>/dev/null; then
    if [ "$(id -u)" = 0 ]; then apt-get -qq update; fi
    if ! apt-get -qq download $packages; then
        echo "Could not download$missing. Run 'sudo apt-get update' and try again, or install: $packages" >&2
        exit 0
    fi
fi
for package in *.deb; do dpkg-deb -x "$package" "$folder"; done
