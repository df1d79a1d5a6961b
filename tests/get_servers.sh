#!/bin/sh
# Downloads the servers for the integration tests, and Chromium for the browser tests, from Debian's packages into a
# folder: nothing is installed system-wide and no service is started.
# Usage: get_servers.sh FOLDER [ENGINE ...]
# An ENGINE is a server of one version, such as prometheus-3.5, victoriametrics-1.145 or alertmanager-0.33. It becomes
# FOLDER/usr/bin/ENGINE, from whichever of Debian's releases has that version.
set -eu
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift

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
<fontconfig><dir>$root/usr/share/fonts</dir><cachedir>$root/fonts</cachedir>
<alias binding="same"><family>monospace</family><accept><family>Liberation Mono</family></accept></alias>
<match><test qual="all" compare="not_eq" name="family"><string>monospace</string></test>
<edit name="family" mode="append" binding="weak"><string>Liberation Sans</string></edit></match></fontconfig>
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
    relocate_alertmanager "$folder"
}

# Debian's Alertmanager reads its templates from a fixed path that exists only where the package is installed. This copy
# reads them through file descriptor 9, which a wrapper script opens; both paths are 34 characters long.
# Usage: relocate_alertmanager ROOT, the folder into which the package was unpacked.
relocate_alertmanager() {
    mkdir -p "$1/usr/lib"
    LC_ALL=C sed 's#/usr/share/prometheus/alertmanager#/proc/self/fd/9///////////////////#g' \
        "$1/usr/bin/prometheus-alertmanager" >"$1/usr/lib/prometheus-alertmanager"
    rm "$1/usr/bin/prometheus-alertmanager"
    cat >"$1/usr/bin/prometheus-alertmanager" <<EOF
#!/bin/sh
exec "$1/usr/lib/prometheus-alertmanager" "\$@" 9<"$1/usr/share/prometheus/alertmanager"
EOF
    chmod +x "$1/usr/lib/prometheus-alertmanager" "$1/usr/bin/prometheus-alertmanager"
}

package_of() {
    case $1 in
    prometheus-*) echo prometheus ;;
    alertmanager-*) echo prometheus-alertmanager ;;
    victoriametrics-*) echo victoria-metrics ;;
    *) echo "Unknown engine $1: expected prometheus-, alertmanager- or victoriametrics-, and a version" >&2 && exit 2 ;;
    esac
}

# apt with package lists of its own, of all of Debian's present releases, from the mirror that this machine uses.
engine_apt() {
    program=$1
    shift
    "$program" -o Dir::Etc::sourcelist="$apt/debian.sources" -o Dir::Etc::sourceparts=- -o Dir::Cache="$apt/cache" \
        -o Dir::State::Lists="$apt/lists" -o Debug::NoLocking=1 -o APT::Sandbox::User=root \
        -o APT::Update::Post-Invoke-Success= "$@"
}

# Usage: get_engines ENGINE ...
get_engines() {
    apt="$folder/apt"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -1)
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    if [ -z "$mirror" ] || ! [ -e "$keys" ]; then
        echo "Could not download $*: apt on this machine has no mirror of Debian (or needs 'sudo apt-get update')." >&2
        return
    fi
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    printf '%s\n' "Types: deb" "URIs: $mirror" "Suites: bookworm trixie forky" "Components: main" "Signed-By: $keys" \
        >"$apt/debian.sources"
    if engine_apt apt-get -qq update; then
        for engine in "$@"; do get_engine "$engine"; done
    else
        echo "Could not download the package lists of Debian's newer releases: tests of $* are skipped." >&2
    fi
    rm -r "$apt"
}

get_engine() {
    package=$(package_of "$1")
    version=$(engine_apt apt-cache madison "$package" | awk -v wanted="${1##*-}." \
        'index($3, wanted) == 1 { print $3; exit }')
    root="$folder/$1"
    mkdir -p "$root"
    if [ -z "$version" ] || ! (cd "$root" && engine_apt apt-get -qq download "$package=$version"); then
        echo "Could not download $1 ($package ${version:-of that version}): tests of it are skipped." >&2
        return
    fi
    dpkg-deb -x "$root/$package"_*.deb "$root"
    rm "$root/$package"_*.deb
    [ "$package" != prometheus-alertmanager ] || relocate_alertmanager "$root"
    ln -sf "../../$1/usr/bin/$package" "$folder/usr/bin/$1"
}

# Usage: can_download PROGRAM ...
can_download() {
    if command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1; then return; fi
    echo "Not found: $*. Tests that need them are skipped; put them on PATH to run them." >&2
    return 1
}

missing=""
for binary in $binaries chromium; do
    command -v "$binary" >/dev/null 2>&1 || [ -x "$folder/usr/bin/$binary" ] || missing="$missing $binary"
done
if [ -n "$missing" ] && can_download $missing; then
    [ "$missing" = " chromium" ] || get_servers
    case $missing in *chromium) get_chromium ;; esac
fi

missing=""
mkdir -p "$folder/usr/bin"
for engine in "$@"; do
    package=$(package_of "$engine")
    program=$(PATH="$folder/usr/bin:$PATH" command -v "$package" || echo false)
    case $("$program" --version 2>/dev/null) in
    *"version ${engine##*-}."*) ln -sf "$program" "$folder/usr/bin/$engine" ;; # that of this machine's own release
    esac
    [ -x "$folder/usr/bin/$engine" ] || missing="$missing $engine"
done
if [ -n "$missing" ] && can_download $missing; then get_engines $missing; fi
