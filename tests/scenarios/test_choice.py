"""What happens when more is lost than the policy allows for, and when failures come one after another."""
import json
import os
import time

from formation import Formation, Writer, expect


def why(f):
    return json.loads(f.run("show", "why", "--pgdata", f.monitor.pgdata, "--json").stdout)


def scenario_one_after_another():
    """Three nodes, number_sync_standbys 1: a standby dies, later the primary; the last node takes over by itself with every acknowledged id."""
    with Formation(nodes=3) as f:
        f.run("set", "formation", "number-sync-standbys", "1", "--pgdata", f.monitor.pgdata)
        f.wait_healthy()
        writer = Writer(f)
        primary = f.primary()
        first, last = [node for node in f.nodes if node is not primary]
        first.crash()
        wanted = f"ANY 1 (pgvigil_standby_{f.state()[last.name]['node_id']})"
        f.wait_until(lambda: primary.sql("SHOW synchronous_standby_names") == wanted, what="the names are without the lost standby")
        f.wait_state(primary, "primary")
        time.sleep(0.5)  # some commits under the shorter list
        primary.crash()
        expect(f.wait_takeover(primary) is last, "somebody else took over")
        # It waits rather than write alone: the ids are all there.
        writer.stop()
        first.start()
        primary.start()
        f.wait_healthy()
        f.check_acknowledged()


def scenario_loss_only_by_choice():
    """Primary and one of two counted standbys die at once: the third may lack commits, so it waits, says for whom, and takes over when told to."""
    with Formation(nodes=3) as f:
        f.run("set", "formation", "number-sync-standbys", "1", "--pgdata", f.monitor.pgdata)
        f.wait_healthy()
        primary = f.primary()
        lost, left = [node for node in f.nodes if node is not primary]
        primary.sql("CREATE TABLE kept AS SELECT 1 AS x")
        primary.crash()
        lost.crash()
        f.wait_until(lambda: any("allow-data-loss" in row["command"] for row in why(f)), what="the group says that it waits for a choice")
        row = next(row for row in why(f) if "allow-data-loss" in row["command"])
        expect(lost.name in row["waiting_for"], f"the node that is waited for is not named: {row}")
        expect(left.name in row["command"] and "bytes" in row["command"], f"the choice and its price are not named: {row}")
        shown = f.run("show", "state", "--pgdata", f.monitor.pgdata).stdout
        expect("perform failover --allow-data-loss" in shown, "show state does not name the command:\n" + shown)
        events = f.run("show", "events", "--pgdata", f.monitor.pgdata, "--count", 50).stdout
        expect("waiting" in events and "allow-data-loss" in events, "no event tells it:\n" + events)
        expect(f.primary() is None or f.primary() is primary, "a node was promoted without being chosen")
        # Not without the word.
        refused = f.run("perform", "failover", "--pgdata", f.monitor.pgdata, check=False)
        expect(refused.returncode == 1, f"a failover without the option: {refused.stdout}{refused.stderr}")
        f.run("perform", "failover", "--allow-data-loss", "--pgdata", f.monitor.pgdata)
        expect(f.wait_takeover(primary) is left, "somebody else took over")
        events = f.run("show", "events", "--pgdata", f.monitor.pgdata, "--count", 50).stdout
        expect("given up" in events, "no event says what was given up:\n" + events)
        lost.start()
        primary.start()
        f.wait_healthy()
        f.wait_until(lambda: why(f) == [], what="nothing is left to be explained")


def scenario_waits_for_the_one_with_the_data():
    """The same, but the node that is waited for comes back: nothing is chosen, nothing is lost."""
    with Formation(nodes=3) as f:
        f.run("set", "formation", "number-sync-standbys", "1", "--pgdata", f.monitor.pgdata)
        f.wait_healthy()
        Writer(f)
        time.sleep(1)
        primary = f.primary()
        lost, _ = [node for node in f.nodes if node is not primary]
        primary.crash()
        lost.crash()
        f.wait_until(lambda: any("allow-data-loss" in row["command"] for row in why(f)), what="the group waits")
        lost.start()
        f.wait_takeover(primary)
        primary.start()
        f.wait_healthy()
        f.check_acknowledged()


def scenario_diverged_wal_is_kept():
    """A primary that wrote what nobody received: its WAL stands beside its new PGDATA after the rewind. However long
    it takes to write it, the standby that hangs is not given up meanwhile."""
    with Formation(settings=[("set", "formation", "settings", "standby_lost_ms", "60000")]) as f:
        former = f.primary()
        other = f.secondary()
        # Nothing reaches the standby any more; a local commit does not wait for it.
        other.signal_postgres(19)
        other.kill(19)
        former.kill(19)
        # More than fits into the buffers of the connection first: what lies there would still arrive.
        former.sql("SET synchronous_commit = local; CREATE TABLE filler AS SELECT repeat(md5(i::text), 30) AS x FROM generate_series(1, 60000) AS i",
                   seconds=60)
        former.sql("SET synchronous_commit = local; CREATE TABLE only_here AS SELECT 1 AS x")
        former.kill_postmaster()
        former.kill()
        other.signal_postgres(18)
        other.kill(18)
        f.wait_takeover(former)
        former.start()
        f.wait_healthy()
        aside = os.path.join(former.state, "diverged", "1")
        names = os.listdir(aside) if os.path.isdir(aside) else []
        expect("README" in names and any(len(name) == 24 for name in names), f"no WAL was kept aside: {names}")
        expect(former.sql("SELECT to_regclass('only_here') IS NULL") == "t", "the rewind left what nobody else has")
