#!/usr/bin/env bash
# RTO acceptance: from a healthy formation, stops the primary, times the promotion of another node, brings the old one back.
#
#   MONITOR_URI           postgres://... of the monitor's database (or give --monitor)
#   FORMATION             default
#   STOP_COMMAND          how to stop the primary; {name} {host} {port} are replaced. Default: incus stop --force {name}
#   START_COMMAND         how to bring it back. Default: incus start {name}. Empty: not brought back
#   RTO_TARGET_SECONDS    60
#   HEALTHY_TIMEOUT       seconds to wait for the old primary to be a secondary again; 120
#
# Exit: 0 pass; 1 the baseline is not healthy; 2 no promotion (or no recovery) in time; 3 a tool is missing,
#       an option is wrong, or the stop or start command failed.
set -euo pipefail
PGVIGIL=${PGVIGIL:-pgvigil}
FORMATION=${FORMATION:-default}
RTO_TARGET_SECONDS=${RTO_TARGET_SECONDS:-60}
HEALTHY_TIMEOUT=${HEALTHY_TIMEOUT:-120}
STOP_COMMAND=${STOP_COMMAND-incus stop --force \{name\}}
START_COMMAND=${START_COMMAND-incus start \{name\}}
while [ $# -gt 0 ]; do
  case $1 in
    --monitor | --stop-command | --start-command) [ $# -gt 1 ] || { echo "$1 needs a value (--help shows it)" >&2; exit 3; } ;;
  esac
  case $1 in
    --monitor) MONITOR_URI=$2; shift 2 ;;
    --stop-command) STOP_COMMAND=$2; shift 2 ;;
    --start-command) START_COMMAND=$2; shift 2 ;;
    -h | --help) sed -n '2,12p' "$0"; exit 0 ;;
    *) echo "unknown option $1 (--help shows them)" >&2; exit 3 ;;
  esac
done
# The program that a command begins with; nothing for a variable assignment or another shell construct.
program() { local word=${1%% *}; [[ ! $word =~ ^[A-Za-z0-9_./-]+$ ]] || printf '%s' "$word"; }
for tool in "$PGVIGIL" python3 "$(program "$STOP_COMMAND")" "$(program "$START_COMMAND")"; do
  [ -n "$tool" ] || continue
  command -v "$tool" >/dev/null || { echo "missing tool: $tool (PGVIGIL=/path/to/pgvigil names the client)" >&2; exit 3; }
done
[ -n "${MONITOR_URI:-}" ] || { echo "MONITOR_URI is not set" >&2; exit 3; }

state() { "$PGVIGIL" show state --monitor "$MONITOR_URI" --formation "$FORMATION" --json 2>/dev/null || echo '[]'; }
# field NAME STATE...: the value of NAME of each node that is converged in one of the states
field() {
  python3 -c '
import json, sys
name, states = sys.argv[1], sys.argv[2:]
for node in json.load(sys.stdin):
    if node["current_group_state"] in states and node["assigned_group_state"] == node["current_group_state"]:
        print(node[name])' "$@"
}
now() { date +%s.%N; }
elapsed() { python3 -c "print(f'{$2 - $1:.3f}')"; }
fill() { local text=$1; text=${text//\{name\}/$name}; text=${text//\{host\}/$host}; printf '%s' "${text//\{port\}/$port}"; }

baseline=$(state)
name=$(field nodename primary <<<"$baseline")
standby=$(field nodename secondary <<<"$baseline")
if [ -z "$name" ] || [ -z "$standby" ]; then
  echo "FAIL: the baseline is not healthy: it takes a primary and a secondary"; "$PGVIGIL" show state --monitor "$MONITOR_URI" --formation "$FORMATION" || true
  exit 1
fi
host=$(field nodehost primary <<<"$baseline"); port=$(field nodeport primary <<<"$baseline")
echo "baseline: $name is the primary, secondary: ${standby//$'\n'/, }"
begin=$(now)
bash -c "$(fill "$STOP_COMMAND")" || { echo "FAIL: the stop command ended with exit code $?" >&2; exit 3; }
stopped=$(now)
promoted=
while python3 -c "import sys; sys.exit(0 if $(now) - $stopped < $RTO_TARGET_SECONDS else 1)"; do
  promoted=$(state | field nodename primary wait_primary single)
  [ -z "$promoted" ] || [ "$promoted" = "$name" ] || break
  promoted=; sleep 0.1
done
[ -n "$promoted" ] || { echo "FAIL: no promotion within $RTO_TARGET_SECONDS s"; exit 2; }
end=$(now)
echo "promoted: $promoted, $(elapsed "$begin" "$end") s after the stop began, $(elapsed "$stopped" "$end") s after it was done (target $RTO_TARGET_SECONDS s)"
if [ -n "$START_COMMAND" ]; then
  bash -c "$(fill "$START_COMMAND")" || { echo "FAIL: the start command ended with exit code $?" >&2; exit 3; }
  back=$(now); healthy=
  while python3 -c "import sys; sys.exit(0 if $(now) - $back < $HEALTHY_TIMEOUT else 1)"; do
    after=$(state)
    [ "$(field nodename primary <<<"$after")" = "$promoted" ] && field nodename secondary <<<"$after" | grep -qxF "$name" && { healthy=yes; break; }
    sleep 0.2
  done
  [ -n "$healthy" ] || { echo "FAIL: $name is not a secondary again within $HEALTHY_TIMEOUT s"; exit 2; }
  echo "recovered: $name streams again $(elapsed "$back" "$(now)") s after its start"
fi
echo PASS
