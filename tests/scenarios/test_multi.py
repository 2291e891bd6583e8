"""Three and four nodes: how many standbys commits wait for, who takes over, failures in a row; many formations."""
import json
import os
import signal
import time

from commands import command, listed, names, number_sync_standbys, priority, standbys, wait_names, why
from formation import Formation, Writer, expect


class Part(Formation):
    """One of several groups that share a monitor: that of `first`, or its own."""

    def __init__(self, formation="default", group=0, first=None, prefix="node"):
        super().__init__(nodes=2, network=False)  # all of them on one host
        self.formation, self.group, self.first, self.prefix = formation, group, first, prefix

    def create_monitor(self):
        if self.first is None:
            super().create_monitor()
            return
        self.monitor, self.monitor_uri = self.first.monitor, self.first.monitor_uri
        self.password_file = self.first.password_file
        self.env = self.first.env

    def run(self, *args, **options):
        of_group = args[:2] in (("show", "state"), ("show", "events"), ("perform", "failover"), ("create", "postgres"))
        where = ["--formation", self.formation] if of_group or args[:2] == ("show", "standby-names") else []
        return super().run(*args, *where, *(["--group", self.group] if of_group else []), **options)

    def add_node(self, name=None, options=()):
        return super().add_node(name or f"{self.prefix}{len(self.nodes) + 1}", options)

    def uri(self):
        """By hand, for that of a formation names the nodes of all its groups."""
        return (f"postgres://{','.join(f'{node.host}:{node.port}' for node in self.nodes)}/postgres"
                f"?target_session_attrs=read-write&user={self.owner()}")


def snapshot(f):
    return {name: (row["current_group_state"], row["assigned_group_state"], row["term"])
            for name, row in f.state().items()}


def disturb(one, other):
    """Whatever happens in one group, nothing happens in the other."""
    Writer(one)
    Writer(other)
    one.goes_on()
    other.goes_on()
    calm, events, primary = snapshot(other), len(other.events()), other.primary()
    command(one, "perform", "failover")
    one.wait_healthy()
    former = one.primary()
    former.crash()
    one.wait_takeover(former)
    other.goes_on(primary)
    former.start()
    one.wait_healthy()
    expect(snapshot(other) == calm, f"{calm} has become {snapshot(other)}")
    expect(len(other.events()) == events, f"events of another group: {other.events()[:5]}")
    # Both primaries at once.
    both = [one.primary(), other.primary()]
    for node in both:
        node.crash()
    one.wait_takeover(both[0])
    other.wait_takeover(both[1])
    for node in both:
        node.start()
    for f in (one, other):
        f.wait_healthy()
        f.goes_on()
        f.check_acknowledged()


def scenario_two_formations():
    """They have their own settings, names of nodes, terms and failovers."""
    with Part() as one:
        one.run("create", "formation", "--formation", "other", "--pgdata", one.monitor.pgdata, "--number-sync-standbys",
                "1")
        with Part("other", first=one) as other:
            expect(set(one.state()) == set(other.state()) == {"node1", "node2"}, f"{one.state()} and {other.state()}")
            wait_names(other, other.primary(), listed(other, 1, *standbys(other, other.primary())))
            uris = json.loads(one.run("show", "uri", "--json", "--pgdata", one.monitor.pgdata).stdout)
            expect([row["name"] for row in uris] == ["monitor", "default", "other"], f"{uris}")
            disturb(one, other)
            refused = one.run("drop", "formation", "--formation", "other", "--pgdata", one.monitor.pgdata, check=False)
            expect(refused.returncode == 1, f"a formation with nodes was dropped: {refused}")


def scenario_two_groups():
    """Groups of a formation share its settings and nothing else."""
    with Part() as one, Part(group=1, first=one, prefix="other") as other:
        expect(one.nodes[0].sql("SELECT system_identifier FROM pg_control_system()") !=
               other.nodes[0].sql("SELECT system_identifier FROM pg_control_system()"), "one system in two groups")
        disturb(one, other)


def scenario_how_many_must_answer():
    """number_sync_standbys 0, 1 and 2 with three and four nodes, and members that do not count."""
    with Formation(nodes=3) as f:
        Writer(f)
        primary = f.primary()
        two, three = standbys(f, primary)
        wait_names(f, primary, listed(f, 1, two, three))
        for number, required in ((1, 1), (2, 2), (0, 1)):
            number_sync_standbys(f, number)
            wait_names(f, primary, listed(f, required, two, three))
            shown = json.loads(command(f, "get", "formation", "number-sync-standbys", "--json").stdout)
            expect(str(number) in json.dumps(shown), f"the setting is shown as {shown}")
            expect(listed(f, required, two, three) in command(f, "show", "standby-names").stdout,
                   "show standby-names shows others")
            f.goes_on(primary)
        refused = command(f, "set", "formation", "number-sync-standbys", "3", check=False)
        expect(refused.returncode == 1, f"three standbys of three nodes: {refused}")
        four = f.add_node()
        f.wait_healthy()
        wait_names(f, primary, listed(f, 1, two, three, four))
        number_sync_standbys(f, 2)
        wait_names(f, primary, listed(f, 2, two, three, four))
        # One that does not count leaves the names, but follows all the same.
        command(f, "set", "node", "replication-quorum", "false", "--name", two.name)
        wait_names(f, primary, listed(f, 2, three, four))
        f.wait_healthy()
        # With it too few would be left: the next one that counts cannot be taken away.
        refused = command(f, "set", "node", "replication-quorum", "false", "--name", three.name, check=False)
        expect(refused.returncode == 1, f"too few that count: {refused}")
        refused = command(f, "drop", "node", "--name", three.name, check=False)
        expect(refused.returncode == 1 and "number_sync_standbys" in refused.stderr, f"too few that count: {refused}")
        command(f, "set", "node", "replication-quorum", "true", "--name", two.name)
        wait_names(f, primary, listed(f, 2, two, three, four))
        f.goes_on(primary)
        f.wait_healthy()
        f.check_acknowledged()


def scenario_two_must_answer_and_one_dies():
    """number_sync_standbys 2, four nodes: one standby may be away, with two away commits wait; a failover needs two of
    the three standbys."""
    with Formation(nodes=4, settings=[("set", "formation", "number-sync-standbys", "2")]) as f:
        Writer(f)
        primary = f.primary()
        two, three, four = standbys(f, primary)
        wait_names(f, primary, listed(f, 2, two, three, four))
        two.crash()
        wait_names(f, primary, listed(f, 2, three, four))
        f.goes_on(primary)
        # Every id that is acknowledged now is on both that are left: one of them is enough to take over.
        primary.crash()
        successor = f.wait_takeover(primary)
        expect(successor in (three, four), f"{successor.name} took over")
        before = f.written(successor)
        time.sleep(1)
        expect(f.written(successor) == before, "commits were acknowledged by one standby instead of two")
        two.start()
        f.goes_on(successor)
        primary.start()
        f.wait_healthy()
        f.check_acknowledged()


def scenario_promotion_of_a_named_node():
    """Every node in turn, also one of priority 0, which takes over by no other way."""
    with Formation(nodes=4) as f:
        Writer(f)
        zero = f.nodes[3]
        priority(f, zero, 0)
        for node in (f.nodes[2], f.nodes[1], zero, f.nodes[0]):
            command(f, "perform", "promotion", "--name", node.name)
            f.wait_healthy()
            expect(f.primary() is node, f"{f.primary().name} was promoted instead of {node.name}")
            f.goes_on(node)
        again = command(f, "perform", "promotion", "--name", f.nodes[0].name)
        expect(f.primary() is f.nodes[0], f"the primary was promoted again: {again}")
        expect(not f.elections(), f"a planned promotion needs no election: {f.elections()}")
        f.check_acknowledged()


def scenario_priority_decides():
    """The highest priority takes over, by hand-over and by election; priority 0 never does, even as the last one."""
    with Formation(nodes=4, settings=[("set", "formation", "number-sync-standbys", "1")]) as f:
        Writer(f)
        primary = f.primary()
        high, low, zero = standbys(f, primary)
        for node, number in ((primary, 10), (high, 90), (low, 20), (zero, 0)):
            priority(f, node, number)
        f.wait_healthy()
        command(f, "perform", "failover")
        expect(f.wait_takeover(primary) is high, "a hand-over chose another than the highest priority")
        f.wait_healthy()
        # The next highest, though the one of priority 0 holds as much.
        high.crash()
        expect(f.wait_takeover(high) is low, "an election chose another than the highest priority")
        high.start()
        f.wait_healthy()
        # Back to the highest, without anybody asking for it by name.
        low.crash()
        expect(f.wait_takeover(low) is high, "an election chose another than the highest priority")
        # Of those who are left, only the one of priority 0 could hold everything when the rest is gone.
        primary.crash()
        f.wait_state(high, "primary")
        wait_names(f, high, listed(f, 1, zero))
        f.goes_on(high)
        high.crash()
        f.wait_until(lambda: any("candidate-priority" in row["command"] for row in why(f)),
                     what="it is said that nobody may take over")
        time.sleep(2)
        expect(f.primary() in (None, high), "a node of priority 0 took over")
        high.start()
        low.start()
        primary.start()
        f.wait_healthy()
        expect(f.primary() is not zero, "a node of priority 0 took over")
        f.check_acknowledged()


def scenario_standbys_that_do_not_count():
    """Without replication quorum a node is never waited for; it may still take over, as soon as it holds everything."""
    with Formation(nodes=3, settings=[("set", "formation", "number-sync-standbys", "1")]) as f:
        Writer(f)
        primary = f.primary()
        counts, reads = standbys(f, primary)
        command(f, "set", "node", "replication-quorum", "false", "--name", reads.name)
        wait_names(f, primary, listed(f, 1, counts))
        priority(f, reads, 100)
        f.wait_healthy()
        reads.signal_postgres(signal.SIGSTOP)
        f.goes_on(primary)  # nobody waits for it
        reads.signal_postgres(signal.SIGCONT)
        f.wait_healthy()
        # Preferred, it fetches what it may lack from the one that counts.
        primary.crash()
        expect(f.wait_takeover(primary) is reads, "the highest priority did not take over")
        f.goes_on(reads)
        primary.start()
        f.wait_healthy()
        wait_names(f, reads, listed(f, 1, primary, counts))
        # What it receives holds nothing for commits: alone with it the primary's clients wait.
        command(f, "perform", "promotion", "--name", primary.name)
        f.wait_healthy()
        counts.crash()
        f.wait_until(lambda: counts.name not in f.in_state("secondary"), what=f"{counts.name} is lost")
        before = f.written(primary)
        time.sleep(2)
        expect(f.written(primary) == before, "a standby that does not count was enough for a commit")
        counts.start()
        f.wait_healthy()
        f.goes_on(primary)
        f.check_acknowledged()


def fill(f, number):
    """Something of every phase that can be looked for later."""
    f.primary().sql(f"CREATE TABLE phase_{number} AS SELECT g FROM generate_series(1, 1000) AS g")


def expect_phases(f, numbers):
    for node in f.nodes:
        for number in numbers:
            f.wait_until(lambda: node.sql(f"SELECT to_regclass('phase_{number}') IS NOT NULL") == "t",
                         what=f"phase {number} on {node.name}")
            expect(node.sql(f"SELECT count(*) FROM phase_{number}") == "1000",
                   f"phase {number} is incomplete on {node.name}")


def kills_in_a_row(first_returns_first):
    """Two primaries die one after the other, and both come back, in either order."""
    with Formation(nodes=3, settings=[("set", "formation", "number-sync-standbys", "1")]) as f:
        Writer(f)
        fill(f, 1)
        first = f.primary()
        first.crash()
        second = f.wait_takeover(first)
        f.goes_on(second)  # with the last node that is left
        f.wait_state(second, "primary")
        fill(f, 2)
        second.crash()
        third = f.wait_takeover(second)
        order = [first, second] if first_returns_first else [second, first]
        order[0].start()
        f.wait_state(order[0], "secondary")
        f.goes_on(third)
        fill(f, 3)
        order[1].start()
        f.wait_healthy()
        # Once more around, by those that have been rewound.
        third.crash()
        f.wait_takeover(third)
        fill(f, 4)
        third.start()
        f.wait_healthy()
        f.goes_on()
        expect_phases(f, (1, 2, 3, 4))
        f.check_acknowledged()


def scenario_kills_in_a_row_first_returns_first():
    kills_in_a_row(True)


def scenario_kills_in_a_row_last_returns_first():
    kills_in_a_row(False)


def scenario_both_standbys_die():
    """number_sync_standbys 1: commits wait until a standby is back, or until nobody is asked for; what waited is
    acknowledged then."""
    with Formation(nodes=3, settings=[("set", "formation", "number-sync-standbys", "1")]) as f:
        Writer(f)
        primary = f.primary()
        two, three = standbys(f, primary)
        f.goes_on(primary)
        two.crash()
        three.crash()
        f.wait_until(lambda: not f.in_state("secondary"), what="both are known to be lost")
        before = f.written(primary)
        time.sleep(2)
        expect(f.written(primary) == before, "commits were acknowledged without a standby")
        expect(names(primary) != "", "the names were given up")
        shown = json.dumps(why(f))
        expect("number-sync-standbys" in shown and "commits wait" in shown,
               f"show why does not say what commits wait for: {shown}")
        number_sync_standbys(f, 0)
        wait_names(f, primary, "")
        f.goes_on(primary)
        two.start()
        f.wait_state(two, "secondary")
        wait_names(f, primary, listed(f, 1, two))
        number_sync_standbys(f, 1)
        three.start()
        f.wait_healthy()
        f.goes_on(primary)
        expect(f.primary() is primary and not f.elections(), "the primary has changed without need")
        f.check_acknowledged()


def scenario_last_of_three():
    """number_sync_standbys 1: a standby dies, the names are without it, then the primary: the last node takes over by
    itself and lacks nothing. It waits rather than write alone, until somebody is back."""
    with Formation(nodes=3, settings=[("set", "formation", "number-sync-standbys", "1")]) as f:
        writer = Writer(f)
        primary = f.primary()
        gone, last = standbys(f, primary)
        f.goes_on(primary)
        gone.crash()
        wait_names(f, primary, listed(f, 1, last))
        f.goes_on(primary)
        primary.crash()
        expect(f.wait_takeover(primary) is last, "somebody else took over")
        writer.stop()
        with open(writer.log) as log:
            acknowledged = {int(words[1]) for words in map(str.split, log) if words and words[0] == "A"}
        present = {int(line) for line in last.sql("SELECT id FROM vigil_ids").split()}
        expect(acknowledged and acknowledged <= present,
               f"missing on {last.name}: {sorted(acknowledged - present)[:20]}")
        gone.start()
        f.wait_state(gone, "secondary")
        primary.start()
        f.wait_healthy()
        f.check_acknowledged()


def scenario_diverged_wal_of_three():
    """A primary that wrote what nobody received: its own WAL is kept aside before it is rewound, and nobody else has
    such a directory. However long it takes to write it, the standbys that hang are not given up meanwhile."""
    with Formation(nodes=3, settings=[("set", "formation", "settings", "standby_lost_ms", "60000")]) as f:
        Writer(f)
        former = f.primary()
        others = standbys(f, former)
        f.goes_on(former)
        # The standbys and all keepers hang, the primary writes on its own.
        for node in others:
            node.signal_postgres(signal.SIGSTOP)
            node.kill(signal.SIGSTOP)
        former.kill(signal.SIGSTOP)
        # More than the buffers of the connections hold: what lies there would still arrive.
        former.sql("SET synchronous_commit = local; CREATE TABLE filler AS "
                   "SELECT repeat(md5(i::text), 30) AS x FROM generate_series(1, 60000) AS i", seconds=60)
        former.sql("SET synchronous_commit = local; CREATE TABLE only_here AS SELECT 1 AS x")
        former.crash()
        for node in others:
            node.signal_postgres(signal.SIGCONT)
            node.kill(signal.SIGCONT)
        f.wait_takeover(former)
        former.start()
        f.wait_healthy()
        for node in f.nodes:
            aside = os.path.join(node.state, "diverged")
            kept = [name for _, _, files in os.walk(aside) for name in files]
            if node is former:
                expect("README" in kept and any(len(name) == 24 for name in kept), f"no WAL was kept aside: {kept}")
            else:
                expect(not kept, f"{node.name} kept WAL aside though it never wrote: {kept}")
        expect(former.sql("SELECT to_regclass('only_here') IS NULL") == "t", "what nobody else has is still there")
        f.goes_on()
        f.check_acknowledged()
