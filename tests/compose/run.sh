#!/bin/sh
# Starts the shipped docker-compose.yml for real and looks at it: make test-compose.
#
# The engine runs in namespaces of its own (network, mounts, processes), with its data in a temporary folder: it neither
# sees nor disturbs another engine on this machine, needs no free ports, and all of it is gone with the last line.
# Images cannot be relied on being there to pull, so the base images are stood in for by a bare Debian with the same
# programs, under the names that the Dockerfile and the compose file use. Usage: run.sh VENV [PYTEST-ARGUMENT...]
set -eu
cd "$(dirname "$0")/../.."
venv=$(realpath "$1")
shift
kept=$venv/compose

skip() {
    echo "skipped: $1" >&2
    [ "${GPU_ADVISOR_REQUIRE_SERVERS:-}" != 1 ] || exit 1
    exit 0
}

missing=""
for program in dockerd docker-compose debootstrap iptables ip unshare; do
    command -v "$program" >/dev/null || missing="$missing $program"
done
[ -z "$missing" ] || skip "not found:$missing; on Debian: apt-get install docker.io docker-compose debootstrap iproute2"
[ "$(id -u)" = 0 ] || skip "the engine is started by root: sudo make test-compose"
unshare --net --mount --pid --fork true 2>/dev/null || skip "no namespaces may be made here: run it on a machine of your own"

tests/debian_root.sh "$kept/debian.tar" \
    python3,python3-venv,python3-pip,ca-certificates,busybox,prometheus,prometheus-alertmanager
"$venv/bin/python" -m tests.compose.wheels "$kept/wheels"

# /proc of its own, so that `pid: host` means these processes; a shared root, as on any machine with systemd.
exec timeout --kill-after=10 2400 unshare --net --mount --pid --fork --kill-child --mount-proc sh -euc '
    mount --make-rshared /
    mount -t tmpfs tmpfs /run
    ip link set lo up
    exec "$@"' sh env GPU_ADVISOR_COMPOSE="$kept" "$venv/bin/python" -m pytest tests/compose "$@"
