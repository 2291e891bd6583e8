# Settings and shell functions of the lab. Sourced, never run.
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

# Everything that is made carries this name: containers, bridge, storage pool, nftables table, directory of its state.
LAB_NAME=${LAB_NAME:-pgaf}
LAB_MONITOR=${LAB_MONITOR:-$LAB_NAME-monitor}
# The first one becomes the primary.
LAB_NODES=${LAB_NODES:-$LAB_NAME-primary $LAB_NAME-replica}
LAB_SYNC_STANDBYS=${LAB_SYNC_STANDBYS:-0}
# First three numbers of the bridge's network; the monitor is .11, the nodes are .12 and so on.
LAB_NET=${LAB_NET:-10.77.7}
# The image that is built here; LAB_IMAGE=images:debian/12 takes one from a server, and its packages from the network.
LAB_SUITE=${LAB_SUITE:-bookworm}
LAB_IMAGE=${LAB_IMAGE:-}
# The package to install; built when not given.
LAB_DEB=${LAB_DEB:-}
# Not empty: containers with the package, and no formation in them (for packaging/ansible).
LAB_BARE=${LAB_BARE:-}
# The client on this machine.
PGVIGIL=${PGVIGIL:-$BUILD/pgvigil}
LAB_CACHE=${LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pgvigil-lab}
LAB_STATE=${LAB_STATE:-/run/pgvigil-lab/$LAB_NAME}

PATH=$PATH:/usr/sbin:/sbin
export DEBIAN_FRONTEND=noninteractive

lacking() { printf '%s\n' "$*" >&2; exit 3; }
quietly() { "$@" >/dev/null 2>&1; }

# poll SECONDS COMMAND...: until it succeeds.
poll() {
  local end=$((SECONDS + $1))
  shift
  until quietly "$@"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.2
  done
}
