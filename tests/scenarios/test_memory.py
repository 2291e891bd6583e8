"""A monitor that has lost its memory: put back from an old backup, replaced by an empty one, lost in the middle of a failover. It learns from its
nodes, and decides nothing before it knows enough."""
import json
import os
import shutil
import signal
import time

from commands import rules, standbys
from formation import Daemon, Formation, Writer, expect, text_of


class Backups:
    """Cold copies of the monitor's PGDATA."""

    def __init__(self, formation):
        self.formation = formation
        self.copies = 0

    def take(self):
        f = self.formation
        f.run("stop", "--pgdata", f.monitor.pgdata)
        self.copies += 1
        copy = os.path.join(f.work, f"copy{self.copies}")
        shutil.copytree(f.monitor.pgdata, copy)
        size = len(text_of(f.monitor.log))
        f.monitor.start()
        f.wait_until(lambda: "the monitor decides" in text_of(f.monitor.log)[size:], what="the monitor decides")
        # A report that came before its first look is none that it has heard; nor is the first one after that, surely.
        for _ in range(2):
            before = self.report_counts()

            def heard_since():
                now = self.report_counts()
                return all(now[name] != count for name, count in before.items())
            f.wait_until(heard_since, what="it hears every keeper")
        probe = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgvigil_probe' AND query = 'SELECT 1'"
        f.wait_until(lambda: all(node.sql(probe) != "0" for node in f.nodes), what="it has seen every PostgreSQL well")
        return copy

    def report_counts(self):
        f = self.formation
        counts = "SELECT json_object_agg(name, report_count) FROM pgvigil.node LEFT JOIN pgvigil.node_report ON node_id = id"
        return json.loads(f.monitor.sql(counts, "pgvigil"))

    def put_back(self, copy):
        f = self.formation
        if f.monitor.running():
            f.run("stop", "--pgdata", f.monitor.pgdata)
        shutil.rmtree(f.monitor.pgdata)
        shutil.copytree(copy, f.monitor.pgdata)
        f.monitor.start()
        f.wait_until(f.state, what="the monitor answers")


def wait_learned(f):
    f.wait_until(lambda: "learned" in rules(f), what="the monitor has learned")


def kept(node):
    return json.loads(text_of(os.path.join(node.state, "keeper.json")))


def lost_after_a_failover(f):
    """A backup is taken, the primary is replaced, and then the monitor is lost."""
    backups = Backups(f)
    old = backups.take()
    f.wait_healthy()
    former = f.primary()
    former.crash()
    successor = f.wait_takeover(former)
    f.goes_on(successor)
    f.monitor.crash()
    return backups, old, former, successor


def scenario_old_backup():
    """Two failovers, a new node and a dropped one are unknown to it: it keeps the primary, learns the new node, and hands over as ever."""
    with Formation(nodes=3) as f:
        f.start_writers()
        backups = Backups(f)
        old = backups.take()
        f.wait_healthy()
        for _ in range(2):
            former = f.primary()
            former.crash()
            f.wait_takeover(former)
            former.start()
            f.wait_healthy()
        gone = f.secondary()
        f.run("drop", "node", "--name", gone.name, "--pgdata", f.monitor.pgdata)
        f.nodes.remove(gone)
        f.add_node("node4")
        f.wait_healthy()
        primary = f.primary()
        f.run("set", "formation", "number-sync-standbys", "1", "--pgdata", f.monitor.pgdata)
        f.wait_healthy()
        before = kept(primary)["term"]
        backups.put_back(old)
        wait_learned(f)
        f.wait_until(lambda: len(f.in_state("primary")) == 1 and "node4" in f.in_state("secondary"), what="what was learned is carried out")
        expect(f.primary() is primary, "the primary has changed without a cause")
        expect(f.term() > before, f"term {f.term()} was promised before: {before}")
        f.goes_on(primary)
        # The backup's own settings are what there is; the dropped node is not asked for.
        expect(gone.name not in f.state(), f"{gone.name} was dropped after the backup, and is back")
        another = next(node for node in f.nodes[:2] if node is not primary)  # the writers do not know node4
        f.wait_until(lambda: f.run("perform", "promotion", "--name", another.name, "--pgdata", f.monitor.pgdata, check=False).returncode == 0,
                     what=f"{another.name} takes over")
        f.wait_healthy()
        f.goes_on(another)
        f.check_acknowledged()


def scenario_old_backup_and_an_empty_node():
    """A node that was added after the backup and has not copied anything is heard when the primary is gone. It is registered again: nothing that it
    could tell was forgotten, and nobody waits for the account of the lost primary."""
    with Formation(nodes=2) as f:
        f.start_writers()
        backups = Backups(f)
        old = backups.take()
        f.wait_healthy()
        for node in f.nodes:
            node.kill(signal.SIGSTOP)  # they are never told of the new one
        newcomer = Daemon(f, "node3")
        f.run(*f.create_args(newcomer))
        number = f.state()["node3"]["node_id"]
        f.monitor.crash()
        for node in f.nodes:
            node.kill(signal.SIGCONT)
        backups.put_back(old)
        f.wait_healthy()
        expect("node3" not in f.state(), f"the backup is not older than node3: {f.state()}")
        former = f.primary()
        former.crash()
        successor = f.wait_takeover(former)
        newcomer.start()
        f.nodes.append(newcomer)
        f.wait_until(lambda: "node3" in f.in_state("secondary"), what="node3 has copied the successor")
        expect(f.primary() is successor and "memory_lost" not in rules(f), f"the memory was taken for lost: {f.state()}")
        expect(f.state()["node3"]["node_id"] == number, f"node3 is another: {f.state()}")
        f.goes_on(successor)
        former.start()
        f.wait_healthy()
        f.check_acknowledged()


def scenario_another_name_since_the_backup():
    """By the old backup the primary has the name that a newer node was given later. It is renamed, and stays."""
    with Formation(nodes=2) as f:
        f.start_writers()
        backups = Backups(f)
        old = backups.take()
        f.wait_healthy()
        primary, standby = f.primary(), f.secondary()
        number = f.state()[primary.name]["node_id"]
        f.run("set", "node", "metadata", "--node", primary.name, "--name", "renamed", "--pgdata", f.monitor.pgdata)
        heir = Daemon(f, "node3")
        f.nodes.append(heir)
        words = f.create_args(heir)
        words[words.index("--name") + 1] = primary.name
        f.run(*words)
        heir.start()
        f.wait_healthy()
        version = int(f.monitor.sql("SELECT max(peers_version) FROM pgvigil.grp", "pgvigil"))
        f.wait_until(lambda: all(kept(node)["peers_version"] >= version for node in f.nodes), what="all of them have the newest list of members")
        backups.put_back(old)
        wait_learned(f)
        f.wait_healthy()
        rows = {row["node_id"]: name for name, row in f.state().items()}
        expect(set(rows) == {number, *(row["node_id"] for name, row in f.state().items() if name in (primary.name, standby.name))}, f"members: {rows}")
        expect(rows[number] != primary.name, f"two of one name: {rows}")
        expect(primary.running() and f.state()[rows[number]]["current_group_state"] == "primary", f"the primary has changed without a cause: {f.state()}")
        f.goes_on(primary)
        f.check_acknowledged()


def scenario_database_of_the_application():
    """The first node names it; the URI has it, also from a monitor that has learned of the formation by its nodes."""
    def uri():
        return f.run("show", "uri", "--formation", "default", "--pgdata", f.monitor.pgdata).stdout
    f = Formation(nodes=1)
    f.node_options = lambda node: ["--dbname", "shop"] if node.name == "node1" else []
    with f:
        f.wait_state(f.nodes[0], "single")
        expect("/shop?" in uri(), f"before: {uri()}")
        f.add_node()
        f.wait_healthy()
        f.monitor.crash()
        f.monitor = Daemon(f, "monitor2")
        f.create_monitor()
        for node in f.nodes:
            f.run("enable", "monitor", "--pgdata", node.pgdata, "--monitor", f.monitor_uri, "--monitor-password-file", f.password_file)
        f.wait_healthy()
        expect("/shop?" in uri(), f"after: {uri()}")
        seen = f.program(["psql", "-XAtc", "SELECT current_database()", uri().strip() + "&user=" + f.owner()])
        expect(seen.stdout.strip() == "shop", f"{seen}")


def scenario_replaced():
    """An empty monitor at another address: each node is told of it, and it knows what the lost one knew, by the nodes' word."""
    with Formation(nodes=3) as f:
        f.run("set", "formation", "number-sync-standbys", "1", "--pgdata", f.monitor.pgdata)
        f.run("set", "formation", "settings", "lease_ms", "25000", "--pgdata", f.monitor.pgdata)

        def heard(node):
            return (kept(node)["goal"]["number_sync_standbys"], kept(node)["goal"]["lease_seconds"]) == (1, 25)
        f.wait_until(lambda: all(heard(node) for node in f.nodes), what="every node has heard of the settings")
        Writer(f, rate=200)
        primary = f.primary()
        lost = f.monitor
        lost.crash()
        f.monitor = Daemon(f, "monitor2")
        f.create_monitor()
        for node in f.nodes:
            f.run("enable", "monitor", "--pgdata", node.pgdata, "--monitor", f.monitor_uri, "--monitor-password-file", f.password_file)
        wait_learned(f)
        f.wait_healthy()
        expect(f.primary() is primary, "the primary has changed without a cause")
        f.goes_on(primary)
        number = f.run("get", "formation", "number-sync-standbys", "--pgdata", f.monitor.pgdata).stdout.strip()
        expect(number == "1", f"number_sync_standbys was forgotten: {number}")
        lease = f.monitor.sql("SELECT lease_ms FROM pgvigil.formation", "pgvigil")
        expect(lease == "25000", f"the lease that the nodes hold was forgotten: {lease}")
        primary.crash()
        f.wait_takeover(primary)
        primary.start()
        f.wait_healthy()
        f.add_node()
        f.wait_healthy()
        ids = [row["node_id"] for row in f.state().values()]
        expect(len(set(ids)) == 4, f"a number was given twice: {ids}")
        f.check_acknowledged()
        secret = text_of(os.path.join(primary.state, "pgpass")).split(":")[-1].strip()
        for daemon in [f.monitor] + f.nodes:
            expect(secret not in text_of(daemon.log), f"{daemon.name} writes a password into its log")
        log = os.path.join(f.monitor.state, "postgresql.log")
        expect(secret not in text_of(log), "the monitor's PostgreSQL writes a password into its log")


def scenario_old_backup_after_a_failover():
    """The monitor is lost when a successor has just been promoted. By the old backup the former primary is the primary; by the nodes' word not."""
    with Formation(nodes=2) as f:
        f.start_writers()
        backups, old, former, successor = lost_after_a_failover(f)
        former.start()  # it has heard of nothing: its own order is to be the primary
        backups.put_back(old)
        wait_learned(f)
        f.wait_healthy()
        expect(f.primary() is successor, "the former primary took over, and knows less")
        f.goes_on(successor)
        f.check_acknowledged()


def scenario_old_backup_in_the_middle_of_a_failover():
    """The former primary is to stop for good, one standby has voted, and the other's vote is on its way when the monitor dies. By the old backup
    nothing has happened; by the word of the one that has voted an election has begun. Whoever is the primary has every acknowledged id."""
    patient = ("set", "formation", "settings", "unhealthy_ms", "10000")  # with a keeper that hangs
    with Formation(nodes=3, settings=[("set", "formation", "number-sync-standbys", "1"), patient]) as f:
        backups = Backups(f)
        old = backups.take()
        f.wait_healthy()
        f.start_writers()
        former = f.primary()
        voter, late = standbys(f, former)
        late.kill(signal.SIGSTOP)  # its keeper, heard a moment ago: the election asks for its vote, and waits
        former.crash()
        f.wait_state(voter, "report_lsn")
        term = f.term()
        f.monitor.crash()
        time.sleep(1)  # nobody decides
        expect(all(node.sql("SELECT pg_is_in_recovery()") == "t" for node in (voter, late)), "a standby was promoted already: this proves nothing")
        late.kill(signal.SIGCONT)
        backups.put_back(old)
        former.start()  # it has heard of nothing: its own order is to be the primary
        wait_learned(f)
        f.wait_healthy()
        expect(f.term() > term, f"term {term} was promised before, and is given again")
        f.goes_on()
        f.check_acknowledged()


def scenario_learning_waits():
    """Only the former primary is there: it may lack what its successor has acknowledged. Nothing is decided, `show why` says what is missing, and
    an operator may decide."""
    with Formation(nodes=2) as f:
        f.start_writers()
        backups, old, former, successor = lost_after_a_failover(f)
        successor.crash()
        former.start()
        backups.put_back(old)

        def explained():
            why = f.run("show", "why", "--pgdata", f.monitor.pgdata).stdout
            return successor.name in why and "memory" in why
        f.wait_until(explained, what="show why names the node that is missing")
        # The group as a whole waits, and each of its nodes with it.
        of_one = f.run("show", "why", "--name", former.name, "--pgdata", f.monitor.pgdata).stdout
        expect(successor.name in of_one and "memory" in of_one, f"show why --name {former.name} says: {of_one}")
        refused = f.run("perform", "switchover", "--pgdata", f.monitor.pgdata, check=False)
        expect(refused.returncode != 0 and "learns" in refused.stderr, f"a command was not refused: {refused}")
        time.sleep(3)  # a decision needs less than one
        expect("learned" not in rules(f), "it has decided without the successor")
        successor.start()
        wait_learned(f)
        f.wait_healthy()
        f.goes_on(successor)
        f.check_acknowledged()


def scenario_learning_by_force():
    """The successor is gone for good: an operator goes on with the former primary."""
    with Formation(nodes=2) as f:
        Writer(f, rate=100)
        f.goes_on()
        backups, old, former, successor = lost_after_a_failover(f)
        successor.crash()
        former.start()
        backups.put_back(old)

        def heard():
            why = f.run("show", "why", "--pgdata", f.monitor.pgdata).stdout
            return successor.name in why and former.name not in why
        f.wait_until(heard, what="the monitor waits for the successor alone")
        f.run("perform", "failover", "--allow-data-loss", "--pgdata", f.monitor.pgdata, "--wait", "60")
        f.wait_until(lambda: f.primary() is former, what="the chosen node takes writes")
        f.goes_on(former)
        successor.start()
        f.wait_healthy()
        f.goes_on(former)


def scenario_everybody_is_gone_while_it_learns():
    """Then nothing can be learned any more: a new node begins the group afresh."""
    with Formation(nodes=2) as f:
        f.wait_healthy()
        f.run("stop", "--pgdata", f.monitor.pgdata)
        os.remove(os.path.join(f.monitor.state, "witness"))
        for node in f.nodes:
            node.crash()
        f.monitor.start()
        f.wait_until(lambda: "memory" in f.run("show", "why", "--pgdata", f.monitor.pgdata, check=False).stdout, what="it learns")
        for node in list(f.nodes):
            f.run("drop", "node", "--force", "--name", node.name, "--pgdata", f.monitor.pgdata)
            f.nodes.remove(node)
        new = f.add_node("new")
        f.wait_state(new, "single")


def scenario_no_room_for_the_witness():
    """The state directory of the monitor takes no writes: it decides all the same, and says so once. What it began with would vouch for an older database
    now, and is gone: when the monitor starts anew it asks its nodes."""
    with Formation(nodes=2) as f:
        f.start_writers()
        witness = os.path.join(f.monitor.state, "witness")
        expect(os.path.exists(witness), "there is no witness to begin with")
        os.mkdir(witness + ".new")
        former = f.primary()
        former.crash()
        f.wait_takeover(former)
        expect(not os.path.exists(witness), "an old witness is there still")
        former.start()
        f.wait_healthy()
        expect(text_of(f.monitor.log).count("cannot write") == 1, text_of(f.monitor.log))
        f.monitor.crash()
        f.monitor.start()
        f.wait_until(f.state, what="the monitor answers")
        wait_learned(f)
        os.rmdir(witness + ".new")
        f.wait_healthy()
        former = f.primary()
        former.crash()
        f.wait_takeover(former)
        expect(os.path.exists(witness), "there is no witness again")
        former.start()
        f.wait_healthy()
        f.check_acknowledged()


def scenario_what_is_stored_of_another_group():
    """One group's rows make no sense. The others go on."""
    with Formation(nodes=2) as f:
        f.start_writers()
        f.run("create", "formation", "--formation", "aaa", "--pgdata", f.monitor.pgdata)  # looked at before the other one
        f.monitor.sql("INSERT INTO pgvigil.grp (formation, group_id, learning) VALUES ('aaa', 0, true);"
                      "INSERT INTO pgvigil.node (formation, group_id, name, host, port, goal_state, account) "
                      "VALUES ('aaa', 0, 'odd', '127.0.0.1', 1, 'primary', '{}'); NOTIFY pgvigil_wake, 'aaa/0'", "pgvigil")
        f.wait_until(lambda: "aaa/0: cannot be decided on now" in text_of(f.monitor.log), what="the monitor says so")
        former = f.primary()
        former.crash()
        f.wait_takeover(former)
        former.start()
        f.wait_healthy()
        f.monitor.sql("UPDATE pgvigil.node SET account = NULL WHERE formation = 'aaa'", "pgvigil")
        f.wait_until(lambda: "aaa/0: can be decided on again" in text_of(f.monitor.log), what="it is decided on again")
        f.monitor.sql("DELETE FROM pgvigil.node WHERE formation = 'aaa'", "pgvigil")
        f.run("drop", "formation", "--formation", "aaa", "--pgdata", f.monitor.pgdata)
        f.check_acknowledged()
