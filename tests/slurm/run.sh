#!/bin/sh
# Tests owners, demand and requests on a real Slurm: make test-slurm.
#
# Two versions run in turn, each from Debian's packages in a minimal Debian: 22.05 with cgroup v1 (with v2 where the machine
# has no other) and 26.05 with v2. Each has a mount namespace of its own and free ports, and leaves no process and no
# cgroup behind. What was run, and the owners found, is in VENV/slurm/transcript-VERSION.txt.
# Usage: run.sh VENV [PYTEST-ARGUMENT...]
set -eu
cd "$(dirname "$0")/../.."
venv=$(realpath "$1")
shift

skip() {
    echo "skipped: $1" >&2
    [ "${GPU_ADVISOR_REQUIRE_SERVERS:-}" != 1 ] || exit 1
    exit 0
}

missing=""
for program in debootstrap unshare nsenter setpriv gcc; do
    command -v "$program" >/dev/null || missing="$missing $program"
done
[ -z "$missing" ] || skip "not found:$missing; on Debian: apt-get install debootstrap util-linux gcc libc6-dev"
[ "$(id -u)" = 0 ] || skip "slurmd creates cgroups: sudo make test-slurm"
unshare --mount true 2>/dev/null || skip "creating namespaces is not permitted here: use a machine or VM of your own"
test -w /sys/fs/cgroup/cgroup.procs || test -w /sys/fs/cgroup/unified/cgroup.procs ||
    skip "cgroups are read-only here: use a machine or VM of your own"

packages=slurmctld,slurmd,slurm-client,munge
tests/debian_root.sh "$venv/slurm/22.05.tar" "$packages" bookworm
tests/debian_root.sh "$venv/slurm/26.05.tar" "$packages" forky
GPU_ADVISOR_SLURM=$venv/slurm exec "$venv/bin/python" -m pytest -p no:cacheprovider tests/slurm "$@"
