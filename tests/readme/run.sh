#!/bin/sh
# Follows the README to the letter on a bare Debian that has what it says must be there, and nothing else.
#
# The network is this machine's, for pip. What pip needs to know here is handed over from outside: variables PIP_* are
# passed, and README_MOUNTS names files and folders that are shown inside, read-only.
#   README_TESTS    what of `make test` is run after set-up and lint: empty for all, else pytest's arguments
# Usage: run.sh KEPT-FOLDER
set -eu
cd "$(dirname "$0")/../.."
kept=$(realpath -m "$1")
tests=${README_TESTS-tests/unit/exporter/test_exposition.py tests/integration/test_up.py}

skip() {
    echo "skipped: $1" >&2
    [ "${GPU_ADVISOR_REQUIRE_SERVERS:-}" != 1 ] || exit 1
    exit 0
}

for program in debootstrap unshare git; do
    command -v "$program" >/dev/null || skip "not found: $program; on Debian: apt-get install debootstrap util-linux git"
done
[ "$(id -u)" = 0 ] || skip "a root of its own is made by root: sudo make test-readme"
unshare --mount --pid --fork true 2>/dev/null || skip "no namespaces may be made here: run it on a machine of your own"
tests/debian_root.sh "$kept/bare.tar" python3,python3-venv,make

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
tar -C "$root" -xf "$kept/bare.tar"
mkdir -p "$root/home/gpu-advisor" "$root/dev" "$root/proc" "$root/sys"
git ls-files -z --cached --others --exclude-standard | xargs -0 ls -d 2>/dev/null | tar -cf - -T - | tar -C "$root/home/gpu-advisor" -xf -
cp /etc/resolv.conf "$root/etc/resolv.conf"

# Mounts in a namespace of their own: they are gone with it, before the folder is removed.
timeout --kill-after=10 "${README_TIMEOUT:-1800}" unshare --mount --pid --fork --kill-child --mount-proc sh -euc '
    root=$1
    for path in ${README_MOUNTS:-}; do
        [ -e "$path" ] || { echo "README_MOUNTS: $path is not there" >&2; exit 1; }
        if [ -d "$path" ]; then mkdir -p "$root$path"; else mkdir -p "$root$(dirname "$path")"; touch "$root$path"; fi
        mount --bind -o ro "$path" "$root$path"
    done
    mount -t tmpfs tmpfs "$root/dev"
    for device in null zero random urandom tty; do touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
    ln -s /proc/self/fd "$root/dev/fd"
    mkdir "$root/dev/shm"; mount -t tmpfs tmpfs "$root/dev/shm"
    mount -t proc proc "$root/proc"
    mount --rbind --make-rslave /sys "$root/sys"
    set -- HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "README_TESTS=$2"
    for name in $(env | sed -n "s/^\(PIP_[A-Z_]*\)=.*/\1/p"); do set -- "$@" "$name=$(printenv "$name")"; done
    exec chroot "$root" env -i "$@" sh -c "cd /home/gpu-advisor && exec python3 -m tests.readme.run_readme"
' sh "$root" "$tests"
