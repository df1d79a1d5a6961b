#!/bin/sh
# Downloads the servers for the integration tests, and Chromium for the browser tests, from Debian's packages into a
# folder: nothing is installed system-wide and no service is started. Usage: get_servers.sh FOLDER
set -eu
mkdir -p "$1"
folder=$(cd "$1" && pwd)

# Chromium with its missing dependencies; a wrapper script sets the paths of libraries and fonts.
get_chromium() {
    root="$folder/chromium"
    mkdir -p "$root/archives/partial" "$folder/usr/bin"
    get="apt-get -qq install --yes --download-only --no-install-recommends -o Debug::NoLocking=1"
    get="$get -o Dir::Cache::archives=$root/archives chromium fonts-liberation"
    if ! $get >/dev/null 2>&1 && ! { [ "$(id -u)" = 0 ] && apt-get -qq update && $get >/dev/null 2>&1; }; then
        echo "Could not download chromium: tests that need a browser are skipped. Install it to run them." >&2
        return
    fi
    for package in "$root"/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
    rm -r "$root/archives"
    cat >"$root/fonts.conf" <<EOF
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>$root/usr/share/fonts</dir><cachedir>$root/fonts</cachedir></fontconfig>
EOF
    libraries=$(find "$root" -name '*.so*' -path '*/lib/*-linux-gnu*/*' -printf '%h\n' | sort -u | paste -sd: -)
    cat >"$folder/usr/bin/chromium" <<EOF
#!/bin/sh
LD_LIBRARY_PATH="$libraries" FONTCONFIG_FILE="$root/fonts.conf" exec "$root/usr/lib/chromium/chromium" "\$@"
EOF
    chmod +x "$folder/usr/bin/chromium"
}

packages="prometheus prometheus-alertmanager prometheus-node-exporter"
binaries="prometheus promtool prometheus-alertmanager amtool prometheus-node-exporter"

# Downloading needs no root; refreshing the package lists does.
get_servers() {
    mkdir -p "$folder/packages"
    cd "$folder/packages"
    if ! apt-get -qq download $packages 2>/dev/null; then
        if [ "$(id -u)" = 0 ]; then apt-get -qq update; fi
        if ! apt-get -qq download $packages; then
            echo "Could not download$missing. Run 'sudo apt-get update' and try again, or install: $packages" >&2
            return
        fi
    fi
    for package in *.deb; do dpkg-deb -x "$package" "$folder"; done
    relocate_alertmanager
}

# Debian's Alertmanager reads its templates from a fixed path that exists only where the package is installed. This copy
# reads them through file descriptor 9, which a wrapper script opens; both paths are 34 characters long.
relocate_alertmanager() {
    mkdir -p "$folder/usr/lib"
    LC_ALL=C sed 's#/usr/share/prometheus/alertmanager#/proc/self/fd/9///////////////////#g' \
        "$folder/usr/bin/prometheus-alertmanager" >"$folder/usr/lib/prometheus-alertmanager"
    rm "$folder/usr/bin/prometheus-alertmanager"
    cat >"$folder/usr/bin/prometheus-alertmanager" <<EOF
#!/bin/sh
exec "$folder/usr/lib/prometheus-alertmanager" "\$@" 9<"$folder/usr/share/prometheus/alertmanager"
EOF
    chmod +x "$folder/usr/lib/prometheus-alertmanager" "$folder/usr/bin/prometheus-alertmanager"
}

missing=""
for binary in $binaries chromium; do
    command -v "$binary" >/dev/null 2>&1 || [ -x "$folder/usr/bin/$binary" ] || missing="$missing $binary"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg-deb >/dev/null 2>&1; then
    echo "Not found:$missing. Tests that need them are skipped; put them on PATH to run them." >&2
    exit 0
fi
[ "$missing" = " chromium" ] || get_servers
case $missing in *chromium) get_chromium ;; esac
