"""Maintenance: a node is left to its operator, and comes back."""
import json
import os
import subprocess
import time

from formation import Formation, Writer


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def maintenance(f, word, node, *options, check=True):
    return f.run(word, "maintenance", "--pgdata", f.monitor.pgdata, "--name", node.name, *options, check=check)


def scenario_standby_rests():
    with Formation() as f:
        writer = Writer(f)
        primary, standby = f.primary(), f.secondary()
        maintenance(f, "enable", standby)
        f.wait_state(primary, "wait_primary")
        expect(primary.sql("SHOW synchronous_standby_names") == "", "the names still hold the resting node")
        again = maintenance(f, "enable", standby)
        expect("already" in again.stdout + again.stderr, f"asked twice: {again}")
        refused = f.run("perform", "promotion", "--pgdata", f.monitor.pgdata, "--name", standby.name, check=False)
        expect(refused.returncode == 1, "a resting node was promoted")
        # It is the operator's: what he stops stays stopped, also when the keeper starts again.
        standby.kill_postmaster()
        standby.kill()
        standby.start()
        f.wait_until(lambda: f.state()[standby.name]["report_age_seconds"] < 2, what="the keeper reports again")
        time.sleep(3)
        expect(standby.postmaster() is None, "the keeper started what its operator had stopped")
        maintenance(f, "disable", standby)
        f.wait_healthy()
        refused = maintenance(f, "disable", standby, check=False)
        expect(refused.returncode == 1 and "not in maintenance" in refused.stderr, f"ended twice: {refused.stderr}")
        expect(writer.stop()["longest_gap_ms"] < 10000, f"writes stopped: {writer.summary}")
        f.check_acknowledged()


def scenario_primary_rests():
    with Formation() as f:
        Writer(f)
        former = f.primary()
        refused = maintenance(f, "enable", former, check=False)
        expect(refused.returncode == 1 and "--allow-failover" in refused.stderr, f"without the option: {refused.stderr}")
        expect(f.primary() is former, "refused, and yet something has changed")
        maintenance(f, "enable", former, "--allow-failover")
        expect(f.wait_takeover(former) is not former, "nobody took over")
        expect(former.postmaster() is None, "it was not stopped")
        # Started by hand it is a standby, never a second primary.
        bindir = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True).stdout.strip() or "/usr/lib/postgresql/15/bin"
        if not os.path.exists(os.path.join(bindir, "pg_ctl")):
            bindir = "/usr/lib/postgresql/15/bin"
        control = [os.path.join(bindir, "pg_ctl"), "-D", former.pgdata, "-l", os.path.join(f.work, "by-hand.log"), "-w"]
        subprocess.run(control + ["start"], check=True, stdout=subprocess.DEVNULL, env=f.env)
        expect(former.sql("SELECT pg_is_in_recovery()") == "t", "started by hand it takes writes")
        maintenance(f, "disable", former)
        f.wait_healthy()
        f.check_acknowledged()


def scenario_primary_dies_while_the_standby_rests():
    """Nobody is promoted with less than everything; the resting node is not even asked."""
    with Formation() as f:
        primary, standby = f.primary(), f.secondary()
        maintenance(f, "enable", standby)
        f.wait_state(primary, "wait_primary")
        primary.sql("CREATE TABLE late AS SELECT 1 AS x")
        primary.crash()
        f.wait_until(lambda: json.loads(f.run("show", "why", "--pgdata", f.monitor.pgdata, "--json").stdout), what="it is said why nothing moves")
        time.sleep(4)
        expect(f.primary() in (None, primary), "the resting node was promoted")
        primary.start()
        f.wait_state(primary, "wait_primary")
        maintenance(f, "disable", standby)
        f.wait_healthy()
        expect(f.primary() is primary and standby.sql("SELECT x FROM late") == "1", "the late commit is lost")


def scenario_four_nodes_rest_in_turn():
    with Formation(nodes=4) as f:
        f.run("set", "formation", "number-sync-standbys", "1", "--pgdata", f.monitor.pgdata)
        f.wait_healthy()
        Writer(f, rate=200)
        primary = f.primary()
        first, second, third = [node for node in f.nodes if node is not primary]
        maintenance(f, "enable", first)
        primary.crash()
        successor = f.wait_takeover(primary)
        expect(successor is not first, "a resting node was promoted")
        primary.start()
        f.wait_state(primary, "secondary")
        others = [node for node in (primary, second, third) if node is not successor]
        maintenance(f, "enable", others[0])
        f.wait_state(successor, "primary")
        answer = maintenance(f, "enable", others[1])
        expect("commits wait" in answer.stdout + answer.stderr, f"the price is not named: {answer}")
        f.run("set", "formation", "number-sync-standbys", "0", "--pgdata", f.monitor.pgdata)
        f.wait_state(successor, "wait_primary")
        successor.sql("CREATE TABLE alone AS SELECT 1 AS x")
        f.run("drop", "node", "--name", others[0].name, "--pgdata", f.monitor.pgdata)
        f.nodes.remove(others[0])
        for node in (first, others[1]):
            maintenance(f, "disable", node)
        f.wait_healthy()
        f.check_acknowledged()
