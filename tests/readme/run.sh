#!/bin/sh
# Runs the README's commands on a minimal Debian that has only the stated prerequisites.
#
# The network is this machine's, for pip. To configure pip, variables PIP_* are passed on, and README_MOUNTS lists files
# and folders that are mounted inside, read-only.
#   README_TESTS    pytest arguments for `make test`; empty for all tests
# Usage: run.sh CACHE-FOLDER
set -eu
cd "$(dirname "$0")/../.."
cache=$(realpath -m "$1")
tests=${README_TESTS-tests/unit/exporter/test_exposition.py tests/integration/test_up.py}

skip() {
    echo "skipped: $1" >&2
    [ "${GPU_ADVISOR_REQUIRE_SERVERS:-}" != 1 ] || exit 1
    exit 0
}

for program in debootstrap unshare git; do
    command -v "$program" >/dev/null || skip "not found: $program; on Debian: apt-get install debootstrap util-linux git"
done
[ "$(id -u)" = 0 ] || skip "chroot needs root: sudo make test-readme"
unshare --mount --pid --fork true 2>/dev/null || skip "creating namespaces is not permitted here: use a machine or VM of your own"
tests/debian_root.sh "$cache/bare.tar" python3,python3-venv,make

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
tar -C "$root" -xf "$cache/bare.tar"
mkdir -p "$root/home/gpu-advisor" "$root/dev" "$root/proc" "$root/sys"
git ls-files -z --cached --others --exclude-standard | xargs -0 ls -d 2>/dev/null | tar -cf - -T - | tar -C "$root/home/gpu-advisor" -xf -
cp /etc/resolv.conf "$root/etc/resolv.conf"

# Mounts in their own namespace disappear with it, before the folder is removed.
timeout --kill-after=10 "${README_TIMEOUT:-1800}" unshare --mount --pid --fork --kill-child --mount-proc sh -euc '
    root=$1
    for path in ${README_MOUNTS:-}; do
        [ -e "$path" ] || { echo "README_MOUNTS: $path does not exist" >&2; exit 1; }
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
