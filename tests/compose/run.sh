#!/bin/sh
# Tests the compose stack on a real Docker engine: make test-compose.
#
# The engine runs in its own namespaces (network, mounts, processes), with its data in a temporary folder: it does not
# interfere with another engine on this machine, needs no free ports, and leaves nothing behind. Base images may not be
# available for pulling, so stand-ins are built from a minimal Debian with the same programs, under the image names in the
# Dockerfile and the compose file. Usage: run.sh VENV [PYTEST-ARGUMENT...]
set -eu
cd "$(dirname "$0")/../.."
venv=$(realpath "$1")
shift
cache=$venv/compose

skip() {
    echo "skipped: $1" >&2
    [ "${GPU_ADVISOR_REQUIRE_SERVERS:-}" != 1 ] || exit 1
    exit 0
}

missing=""
for program in dockerd docker-compose debootstrap iptables ip unshare; do
    command -v "$program" >/dev/null || missing="$missing $program"
done
[ -z "$missing" ] || skip "not found:$missing; on Debian: apt-get install docker.io docker-compose debootstrap iptables iproute2"
[ "$(id -u)" = 0 ] || skip "dockerd needs root: sudo make test-compose"
unshare --net --mount --pid --fork true 2>/dev/null || skip "creating namespaces is not permitted here: use a machine or VM of your own"

tests/debian_root.sh "$cache/debian.tar" \
    python3,python3-venv,python3-pip,ca-certificates,busybox,prometheus,prometheus-alertmanager
"$venv/bin/python" -m tests.compose.wheels "$cache/wheels"

# A private /proc, so that `pid: host` means these processes; a shared root mount, as with systemd.
exec timeout --kill-after=10 2400 unshare --net --mount --pid --fork --kill-child --mount-proc sh -euc '
    mount --make-rshared /
    mount -t tmpfs tmpfs /run
    ip link set lo up
    exec "$@"' sh env GPU_ADVISOR_COMPOSE="$cache" "$venv/bin/python" -m pytest tests/compose "$@"
