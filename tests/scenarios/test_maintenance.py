"""Maintenance of a node while the rest of its formation changes; nodes left alone in states they only pass through."""
import json
import os
import signal
import time

from commands import command, listed, names, start_by_hand, wait_names, why
from formation import Daemon, Formation, Writer, expect


def rests(f, node, *options):
    answer = command(f, "enable", "maintenance", "--name", node.name, *options)
    f.wait_state(node, "maintenance")
    return answer.stdout + answer.stderr


def returns(f, node):
    return command(f, "disable", "maintenance", "--name", node.name)


def contacts(node):
    with open(node.log) as log:
        return log.read().count("in contact with the monitor")


def restart_keeper(f, node):
    """PostgreSQL goes on. Waits until the new one knows its goal, and has had the time to act on it."""
    before = contacts(node)
    node.kill()
    node.start()
    f.wait_until(lambda: contacts(node) > before, what=f"the keeper of {node.name} is in contact again")
    time.sleep(1)


def stop_postgres(node):
    """As an operator does; the keeper is not asked."""
    node.kill_postmaster(signal.SIGINT)
    node.formation.wait_until(lambda: node.postmaster() is None, what=f"PostgreSQL of {node.name} has stopped")


def scenario_standby_out_and_in():
    """The names shrink and grow; what runs goes on running and what is stopped stays stopped, also when the keeper
    starts again."""
    with Formation(nodes=3) as f:
        Writer(f)
        primary = f.primary()
        resting, other = [node for node in f.nodes if node is not primary]
        wait_names(f, primary, listed(f, 1, resting, other))
        rests(f, resting)
        wait_names(f, primary, listed(f, 1, other))
        f.goes_on(primary)
        pid = resting.postmaster()
        restart_keeper(f, resting)
        expect(resting.postmaster() == pid, "a restart of the keeper restarted the PostgreSQL of a node in maintenance")
        # A hand-over passes it by, and it does not mind that its upstream is another now.
        refused = command(f, "perform", "promotion", "--name", resting.name, check=False)
        expect(refused.returncode == 1 and resting.name in refused.stderr,
               f"a node in maintenance was promoted: {refused}")
        command(f, "perform", "failover")
        expect(f.wait_takeover(primary) is other, "somebody else than the standby that was left took over")
        f.wait_state(primary, "secondary")
        stop_postgres(resting)
        restart_keeper(f, resting)
        f.goes_on(other)
        expect(resting.postmaster() is None, "the keeper started what the operator had stopped")
        expect(resting.name in f.in_state("maintenance"), "it left maintenance by itself")
        returns(f, resting)
        f.wait_healthy()
        wait_names(f, other, listed(f, 1, primary, resting))
        f.check_acknowledged()


def scenario_what_it_missed_is_caught_up():
    """Writes while the only standby rests; then it is the one that everything depends on."""
    with Formation() as f:
        Writer(f)
        primary, standby = f.primary(), f.secondary()
        rests(f, standby)
        stop_postgres(standby)
        f.goes_on(primary)
        primary.sql("CREATE TABLE meanwhile AS SELECT repeat('x', 1000) AS t FROM generate_series(1, 30000)")
        returns(f, standby)
        f.wait_healthy()
        primary.crash()
        expect(f.wait_takeover(primary) is standby, "the standby that came back did not take over")
        expect(standby.sql("SELECT count(*) FROM meanwhile") == "30000",
               "what was written during the maintenance is lost")
        primary.start()
        f.wait_healthy()
        f.goes_on(standby)
        # The other one goes: for a moment, and then for good.
        primary.crash()
        f.wait_state(standby, "wait_primary")
        f.goes_on(standby)
        command(f, "drop", "node", "--name", primary.name, "--force")
        f.nodes.remove(primary)
        f.wait_state(standby, "single")
        f.goes_on(standby)
        f.check_acknowledged()


def scenario_all_standbys_rest():
    """With number_sync_standbys 0 the primary goes on alone; nodes come and go meanwhile."""
    with Formation(nodes=3) as f:
        Writer(f)
        primary = f.primary()
        first, second = [node for node in f.nodes if node is not primary]
        rests(f, first)
        rests(f, second)
        f.wait_state(primary, "wait_primary")
        wait_names(f, primary, "")
        f.goes_on(primary)
        again = command(f, "enable", "maintenance", "--name", first.name)
        expect("already" in again.stdout + again.stderr, f"asked twice: {again}")
        shown = {row["nodename"]: row for row in why(f)}
        expect("disable maintenance" in shown[first.name]["command"], f"show why does not name the way out: {shown}")
        added = f.add_node()
        f.wait_state(added, "secondary")
        wait_names(f, primary, listed(f, 1, added))
        command(f, "drop", "node", "--name", first.name)
        f.wait_until(lambda: first.name not in f.state(), what=f"{first.name} is gone")
        expect(first.process.wait(30) == 121, f"the dropped keeper ended with {first.process.returncode}")
        f.nodes.remove(first)
        returns(f, second)
        f.wait_healthy()
        refused = command(f, "disable", "maintenance", "--name", second.name, check=False)
        expect(refused.returncode == 1 and "not in maintenance" in refused.stderr, f"ended twice: {refused}")
        f.check_acknowledged()


def scenario_too_few_are_left():
    """With number_sync_standbys 1 the second of two standbys is let go, but commits wait for it as soon as it stops; 0
    lets them go on."""
    with Formation(nodes=3, settings=[("set", "formation", "number-sync-standbys", "1")]) as f:
        Writer(f)
        primary = f.primary()
        first, second = [node for node in f.nodes if node is not primary]
        answer = rests(f, first)
        expect("commits wait" not in answer, f"there is still one left: {answer}")
        wait_names(f, primary, listed(f, 1, second))
        answer = rests(f, second)
        expect("commits wait" in answer and second.name in answer, f"the answer does not say what it costs: {answer}")
        # Stopping it is the operator's choice; until then it still receives and confirms.
        f.goes_on(primary)
        stop_postgres(first)
        stop_postgres(second)
        time.sleep(0.5)  # what was on its way when it stopped
        before = f.written(primary)
        time.sleep(2)
        expect(f.written(primary) == before, "commits were acknowledged without a standby")
        expect(names(primary) == listed(f, 1, second), f"the names were given up: {names(primary)}")
        shown = json.dumps(why(f))
        expect("number-sync-standbys" in shown and second.name in shown,
               f"show why does not say what commits wait for: {shown}")
        command(f, "set", "formation", "number-sync-standbys", "0")
        wait_names(f, primary, "")
        f.goes_on(primary)
        returns(f, first)
        returns(f, second)
        f.wait_healthy()
        f.check_acknowledged()


def scenario_stopped_before():
    """Maintenance of a node that does not run: the rest goes on without it, and it is in maintenance when its keeper
    starts again."""
    with Formation(nodes=3) as f:
        Writer(f)
        primary = f.primary()
        stopped, other = [node for node in f.nodes if node is not primary]
        f.run("stop", "--pgdata", stopped.pgdata)
        f.wait_state(primary, "primary")
        wait_names(f, primary, listed(f, 1, other))
        command(f, "enable", "maintenance", "--name", stopped.name, "--no-wait")
        # It need not be there for the rest to go on without it.
        command(f, "perform", "failover")
        expect(f.wait_takeover(primary) is other, "somebody else took over")
        f.wait_state(primary, "secondary")
        f.goes_on(other)
        stopped.start()
        f.wait_state(stopped, "maintenance")
        expect(names(other) == listed(f, 1, primary), f"a node in maintenance is in the names: {names(other)}")
        returns(f, stopped)
        f.wait_healthy()
        f.check_acknowledged()


def scenario_primary_dies_and_a_node_rests():
    """An election of four nodes is not about the one in maintenance, however much it is preferred."""
    with Formation(nodes=4, settings=[("set", "formation", "number-sync-standbys", "1")]) as f:
        primary = f.primary()
        resting, *others = [node for node in f.nodes if node is not primary]
        command(f, "set", "node", "candidate-priority", "100", "--name", resting.name)
        f.wait_healthy()
        Writer(f)
        rests(f, resting)
        wait_names(f, primary, listed(f, 1, *others))
        f.goes_on(primary)
        primary.crash()
        successor = f.wait_takeover(primary)
        expect(successor is not resting, "a node in maintenance was promoted")
        f.goes_on(successor)
        expect(resting.name in f.in_state("maintenance"), "the election ended a maintenance")
        # It comes back while the former primary is still away, and follows the new one.
        returns(f, resting)
        f.wait_state(resting, "secondary")
        primary.start()
        f.wait_healthy()
        f.check_acknowledged()


def scenario_primary_out_and_in():
    """Another takes over first; the old one stays stopped, starts by hand only as a standby, and is left alone by its
    keeper either way."""
    with Formation(nodes=3) as f:
        Writer(f)
        primary = f.primary()
        f.goes_on(primary)
        refused = command(f, "enable", "maintenance", "--name", primary.name, check=False)
        expect(refused.returncode == 1 and "--allow-failover" in refused.stderr, f"without the option: {refused}")
        expect(f.primary() is primary, "refused, and yet something has changed")
        rests(f, primary, "--allow-failover")
        successor = f.wait_takeover(primary)
        expect(not f.elections(), f"a planned hand-over needs no election: {f.elections()}")
        expect(primary.postmaster() is None, "it was not stopped")
        expect(os.path.exists(os.path.join(primary.pgdata, "standby.signal")), "started by hand it would take writes")
        restart_keeper(f, primary)
        f.goes_on(successor)
        expect(primary.postmaster() is None, "the keeper started it")
        start_by_hand(f, primary)
        expect(primary.sql("SELECT pg_is_in_recovery()") == "t", "started by hand it takes writes")
        pid = primary.postmaster()
        restart_keeper(f, primary)
        expect(primary.postmaster() == pid, "a restart of the keeper restarted what the operator had started")
        f.wait_state(successor, "primary")
        expect(primary.name in f.in_state("maintenance"), "it left maintenance by itself")
        returns(f, primary)
        f.wait_healthy()
        f.check_acknowledged()


def scenario_written_to_in_maintenance():
    """An operator makes resting nodes take writes: one by promoting it, one by taking its standby.signal away. What
    they wrote is kept aside, not merged, and does not confuse anybody."""
    with Formation(nodes=3) as f:
        primary, second = f.primary(), f.nodes[2]
        rests(f, second)
        second.sql("SELECT pg_promote()")
        f.wait_until(lambda: second.sql("SELECT pg_is_in_recovery()") == "f", what="it is promoted by hand")
        second.sql("CREATE TABLE only_here AS SELECT 1 AS x")
        rests(f, primary, "--allow-failover")
        successor = f.wait_takeover(primary)
        expect(successor is not second, "a node in maintenance took over")
        os.unlink(os.path.join(primary.pgdata, "standby.signal"))
        start_by_hand(f, primary)
        expect(primary.sql("SELECT pg_is_in_recovery()") == "f", "it should take writes now")
        primary.sql("SET synchronous_commit = local; CREATE TABLE only_here AS SELECT 1 AS x")
        time.sleep(2)
        expect(f.primary() is successor, f"the primary has changed: {f.state()}")
        successor.sql("CREATE TABLE kept AS SELECT 1 AS x")
        for node in (primary, second):
            returns(f, node)
        f.wait_healthy()
        expect(f.primary() is successor and not f.elections(), "the primary has changed without need")
        for node in (primary, second):
            f.wait_until(lambda: node.sql("SELECT to_regclass('kept') IS NOT NULL") == "t", what=f"{node.name} follows")
            expect(node.sql("SELECT to_regclass('only_here') IS NULL") == "t",
                   f"{node.name} still has what nobody else has")
            kept = [name for _, _, files in os.walk(os.path.join(node.state, "diverged")) for name in files]
            expect("README" in kept, f"the WAL that {node.name} wrote was not kept aside: {kept}")
        # The timelines that were made by hand are no reason to be preferred.
        Writer(f)
        f.goes_on(successor)
        successor.crash()
        f.wait_takeover(successor)
        successor.start()
        f.wait_healthy()
        f.check_acknowledged()


def scenario_primary_dies_and_nobody_else_is_there():
    """The only standby rests, and holds everything: nobody is promoted before its operator gives it back."""
    with Formation(nodes=2, settings=[("set", "formation", "number-sync-standbys", "1")]) as f:
        Writer(f)
        primary, standby = f.primary(), f.secondary()
        answer = rests(f, standby)
        expect("commits wait" in answer, f"the answer does not say what it costs: {answer}")
        f.goes_on(primary)  # it still receives
        primary.crash()
        f.wait_until(lambda: any(primary.name in row["waiting_for"]
                                 for row in why(f) if row["nodename"] != standby.name),
                     what="it is said that nobody takes over")
        time.sleep(4)  # longer than unhealthy_after
        expect(standby.name in f.in_state("maintenance") and standby.sql("SELECT pg_is_in_recovery()") == "t",
               f"a node in maintenance was promoted: {f.state()}")
        expect("disable maintenance" in json.dumps(why(f)), f"show why does not name the way out: {why(f)}")
        refused = command(f, "perform", "failover", check=False)
        expect(refused.returncode == 1, f"a failover to a node in maintenance: {refused}")
        command(f, "disable", "maintenance", "--name", standby.name)  # which ends when it is the primary, though alone
        expect(f.primary() is standby, "it did not take over")
        primary.start()
        f.wait_healthy()
        f.goes_on(standby)
        f.check_acknowledged()


def scenario_primary_dies_that_was_alone():
    """The primary took writes alone: the node that rested may lack them, and takes over only by an operator's word,
    after its maintenance."""
    with Formation() as f:
        primary, standby = f.primary(), f.secondary()
        rests(f, standby)
        f.wait_state(primary, "wait_primary")
        primary.sql("CREATE TABLE given_up AS SELECT 1 AS x")
        primary.crash()
        refused = command(f, "perform", "failover", "--allow-data-loss", check=False)
        expect(refused.returncode == 1, f"a node in maintenance is nobody's choice: {refused}")
        expect(standby.name in f.in_state("maintenance"), "a failover ended a maintenance")
        command(f, "disable", "maintenance", "--name", standby.name, "--no-wait")
        f.wait_until(lambda: any("allow-data-loss" in row["command"] for row in why(f)), what="the way out is told")
        expect(f.primary() in (None, primary), "a node without the last commits was promoted")
        command(f, "perform", "failover", "--allow-data-loss")
        expect(f.wait_takeover(primary) is standby, "it did not take over")
        Writer(f)
        f.goes_on(standby)
        primary.start()
        f.wait_healthy()
        f.check_acknowledged()


def scenario_refused_and_interrupted():
    """What cannot be done is refused and changes nothing; a restart of the monitor forgets no maintenance; a resting
    node can be dropped by force."""
    with Formation(nodes=2) as f:
        primary, standby = f.primary(), f.secondary()
        rests(f, standby)
        for words in (("enable", "maintenance", "--name", primary.name, "--allow-failover"),  # nobody could take over
                      ("perform", "failover"),
                      ("perform", "promotion", "--name", standby.name),
                      ("drop", "node", "--name", primary.name),
                      ("enable", "maintenance", "--name", "nobody"),
                      ("disable", "maintenance", "--name", primary.name)):
            refused = command(f, *words, check=False)
            expect(refused.returncode == 1 and "error" in refused.stderr, f"{words}: {refused}")
        expect(f.in_state("wait_primary") == [primary.name] and f.in_state("maintenance") == [standby.name],
               f"something has changed: {f.state()}")
        f.monitor.crash()
        f.monitor.start()
        for node in f.nodes:
            f.wait_until(lambda: (f.state().get(node.name) or {}).get("report_age_seconds") is not None,
                         what=f"the new monitor has heard of {node.name}")
        time.sleep(2)
        expect(f.in_state("wait_primary") == [primary.name] and f.in_state("maintenance") == [standby.name],
               f"something has changed: {f.state()}")
        command(f, "drop", "node", "--name", standby.name, "--force")
        f.wait_state(primary, "single")
        f.nodes.remove(standby)
        standby.process.wait(30)
        standby.kill_postmaster(signal.SIGINT)
        added = f.add_node("added")
        f.wait_healthy()
        Writer(f)
        f.goes_on(primary)
        expect(f.secondary() is added, f"{f.state()}")
        f.check_acknowledged()


def removed_by_force(f, node):
    """The whole node is gone for good, and its name too."""
    node.crash()
    command(f, "drop", "node", "--name", node.name, "--force")
    f.nodes.remove(node)
    f.wait_until(lambda: f.state() and node.name not in f.state(), what=f"{node.name} is gone")


def scenario_primary_removed_and_the_standby_half_in_maintenance():
    """wait_maintenance waits for a primary; without one it is a standby like others. The primary may have put the empty
    names in force without telling it, so the standby takes over only by an operator's word."""
    with Formation() as f:
        Writer(f)
        primary, standby = f.primary(), f.secondary()
        f.goes_on(primary)
        primary.kill(signal.SIGSTOP)  # its keeper: the names stay in force, and nobody knows
        command(f, "enable", "maintenance", "--name", standby.name, "--no-wait")
        f.wait_until(lambda: f.state()[standby.name]["current_group_state"] == "wait_maintenance",
                     what="it waits for names without it")
        removed_by_force(f, primary)
        f.wait_state(standby, "report_lsn")
        f.wait_until(lambda: any("allow-data-loss" in row["command"] for row in why(f)), what="the way out is told")
        command(f, "perform", "failover", "--allow-data-loss")
        f.wait_state(standby, "single")
        f.goes_on(standby)
        f.check_acknowledged()


def scenario_primary_removed_before_the_newcomer_was_copied():
    """Who holds no data never takes writes, even as the only one."""
    with Formation(nodes=1) as f:
        primary = f.nodes[0]
        f.wait_state(primary, "single")
        newcomer = Daemon(f, "newcomer")
        f.run(*f.create_args(newcomer))  # registered; its keeper has not run yet
        f.wait_state(primary, "wait_primary")
        removed_by_force(f, primary)
        f.nodes.append(newcomer)
        newcomer.start()
        f.wait_until(lambda: any("no node holds any data" in row["waiting_for"] for row in why(f)),
                     what="it is said that there is no data")
        time.sleep(3)  # several rounds of the monitor
        expect(f.primary() is None, f"a node without data is the primary: {f.state()}")
        expect(newcomer.postmaster() is None, "a node without data runs a PostgreSQL")
        # The way out that is told: drop it, and begin afresh.
        command(f, "drop", "node", "--name", newcomer.name)
        f.wait_until(lambda: newcomer.name not in f.state(), what="it is gone")
        expect(newcomer.process.wait(30) == 121, f"the dropped keeper ended with {newcomer.process.returncode}")
        f.nodes.remove(newcomer)
        f.wait_state(f.add_node("afresh"), "single")


def scenario_priority_zero_left_alone():
    """As a primary it stays one; as a standby it waits until it is told that it may."""
    with Formation() as f:
        primary, standby = f.primary(), f.secondary()
        command(f, "set", "node", "candidate-priority", "0", "--name", primary.name)
        command(f, "drop", "node", "--name", standby.name)
        f.wait_state(primary, "single")
        f.nodes.remove(standby)
        expect(standby.process.wait(30) == 121, f"the dropped keeper ended with {standby.process.returncode}")
        command(f, "set", "node", "candidate-priority", "50", "--name", primary.name)
        last = f.add_node("last")
        f.wait_healthy()
        command(f, "set", "node", "candidate-priority", "0", "--name", last.name)
        Writer(f)
        f.goes_on(primary)
        removed_by_force(f, primary)
        f.wait_state(last, "report_lsn")
        f.wait_until(lambda: any("candidate-priority" in row["command"] for row in why(f)),
                     what="it is said what it waits for")
        time.sleep(2)
        expect(f.in_state("report_lsn") == [last.name], f"a node of priority 0 took over: {f.state()}")
        command(f, "set", "node", "candidate-priority", "50", "--name", last.name)
        f.wait_state(last, "single")
        f.goes_on(last)
        f.check_acknowledged()


def scenario_candidate_removed_while_the_primary_goes_into_maintenance():
    """prepare_maintenance is given up when nobody is left to take over."""
    with Formation() as f:
        Writer(f)
        primary, candidate = f.primary(), f.secondary()
        f.goes_on(primary)
        candidate.kill(signal.SIGSTOP)  # its keeper: the promotion cannot go on
        command(f, "enable", "maintenance", "--name", primary.name, "--allow-failover", "--no-wait")
        f.wait_until(lambda: f.state()[primary.name]["assigned_group_state"] == "prepare_maintenance",
                     what="the primary is on its way")
        removed_by_force(f, candidate)
        f.wait_state(primary, "single")
        f.goes_on(primary)
        f.check_acknowledged()
