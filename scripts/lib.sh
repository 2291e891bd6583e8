# Shell functions of the scripts here. Sourced, never run.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=${PGVIGIL_BUILD:-$ROOT/build}

say() { printf '\n==> %s\n' "$*"; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# PostgreSQL refuses to run as root: as root everything of it runs as this user.
if [ "$(id -u)" = 0 ]; then RUN_AS=${PGVIGIL_USER:-postgres}; else RUN_AS=$(id -un); fi
as_user() { if [ "$(id -u)" = 0 ]; then runuser -u "$RUN_AS" -- "$@"; else "$@"; fi; }

# A directory that the unprivileged user owns and reaches.
work_directory() {
  local directory
  directory=$(mktemp -d "${TMPDIR:-/tmp}/pgvigil.XXXXXX")
  chmod 755 "$directory"
  [ "$(id -u)" != 0 ] || chown "$RUN_AS" "$directory"
  printf '%s\n' "$directory"
}
