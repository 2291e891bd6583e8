"""What standbys keep for whoever takes over, and what they refuse."""
import os

from commands import command
from formation import Formation, Writer, expect

SLOTS = "SELECT coalesce(string_agg(slot_name, ' ' ORDER BY slot_name), '') FROM pg_replication_slots"


def scenario_slots_after_two_switchovers():
    """Every node has one slot for each of the others, and no more; none of them holds WAL for ever."""
    with Formation(nodes=3) as f:
        Writer(f)
        ids = {name: row["node_id"] for name, row in f.state().items()}

        def wanted(node):
            return " ".join(sorted(f"pgvigil_standby_{number}" for name, number in ids.items() if name != node.name))
        for _ in range(2):
            command(f, "perform", "switchover")
            f.wait_healthy()
        f.goes_on()
        for node in f.nodes:
            f.wait_until(lambda: node.sql(SLOTS) == wanted(node), what=f"{node.name} has the slots {wanted(node)}")
        primary = f.primary()
        end = primary.sql("SELECT pg_current_wal_lsn()")
        for node in f.nodes:
            held = f"SELECT count(*) FROM pg_replication_slots WHERE restart_lsn IS NULL OR restart_lsn < '{end}'"
            f.wait_until(lambda: node.sql(held) == "0", what=f"the slots of {node.name} have moved on to {end}")
        expect([node.sql(SLOTS) for node in f.nodes] == [wanted(node) for node in f.nodes], "other slots have come")
        f.check_acknowledged()


def files(*directories):
    """Name, size and time of the last change of everything there."""
    found = {}
    for directory in directories:
        for at, _, names in os.walk(directory):
            for path in [at] + [os.path.join(at, name) for name in names]:
                status = os.lstat(path)
                found[path] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


def scenario_reads_only():
    """A standby refuses writes with SQLSTATE 25006; `show state --local` needs no monitor, and changes no file."""
    with Formation(nodes=2) as f:
        Writer(f)
        f.goes_on()
        standby = f.secondary()
        words = ["psql", "-X", "-v", "VERBOSITY=sqlstate", "-c", "INSERT INTO vigil_ids (id) VALUES (-1)", standby.socket_uri()]
        refused = f.program(words)
        expect(refused.returncode == 1 and refused.stderr.strip().endswith("25006"), f"a write on a standby: {refused}")
        f.check_acknowledged()
        for daemon in [f.monitor, *f.nodes]:
            f.run("stop", "--pgdata", daemon.pgdata)
        for node in f.nodes:
            before = files(f.work)
            shown = f.run("show", "state", "--local", "--pgdata", node.pgdata)
            expect(node.name in shown.stdout, f"it is not shown: {shown}")
            changed = {path for path, status in files(f.work).items() if before.get(path) != status}
            expect(not changed and len(files(f.work)) == len(before), f"show state --local has changed {changed}")
