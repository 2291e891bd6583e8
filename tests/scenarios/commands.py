"""What an operator asks and sets, at the monitor of a formation; and a crash that several scenarios need."""
import json
import signal

from formation import tool


def command(f, *words, check=True):
    return f.run(*words, "--pgdata", f.monitor.pgdata, check=check)


def why(f):
    return json.loads(command(f, "show", "why", "--json").stdout)


def wait_told(f, *words):
    """`show why` names the way out, and whom it is about; that row."""
    def told():
        return next((row for row in why(f) if all(word in row["command"] + row["waiting_for"] for word in words)), None)
    return f.wait_until(told, what=f"show why tells of {' and '.join(words)}")


def rules(f):
    return [event["rule_name"] for event in f.events()]


def standbys(f, primary):
    return [node for node in f.nodes if node is not primary]


def number_sync_standbys(f, number):
    command(f, "set", "formation", "number-sync-standbys", number)


def priority(f, node, number):
    command(f, "set", "node", "candidate-priority", number, "--name", node.name)


def names(node):
    return node.sql("SHOW synchronous_standby_names")


def listed(f, required, *nodes):
    ids = sorted(f.state()[node.name]["node_id"] for node in nodes)
    return f"ANY {required} ({', '.join(f'pgvigil_standby_{number}' for number in ids)})"


def wait_names(f, node, wanted):
    f.wait_until(lambda: names(node) == wanted, what=f"the names of {node.name} are '{wanted}'")
    f.wait_state(node, "primary" if wanted else "wait_primary")


def start_by_hand(f, node, *options, action="start"):
    """Its PostgreSQL, and not by its keeper."""
    f.program([tool("pg_ctl"), "-D", node.pgdata, "-l", node.log + ".by-hand", "-w", *options, action], node.name, check=True)


def crash_parted(primary, standby):
    """The primary crashes with a commit that its standby never receives: it has to be rewound."""
    standby.signal_postgres(signal.SIGSTOP)
    primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
    primary.sql("SET synchronous_commit = local; CREATE TABLE only_here (x int)")
    primary.crash()
    standby.signal_postgres(signal.SIGCONT)
