"""Who takes over when a primary dies, and what the others notice of it."""
import os
import signal
import time

from commands import command, listed, number_sync_standbys, priority, rules, standbys, wait_names, wait_told
from formation import Formation, Writer, expect

SYNCHRONOUS = [("set", "formation", "number-sync-standbys", "1")]


def nobody_takes_over(f, former, *left):
    """For longer than an election takes."""
    time.sleep(3)
    expect(f.primary() in (None, former), f"somebody took over: {f.state()}")
    expect(all(node.sql("SELECT pg_is_in_recovery()") == "t" for node in left), "a standby takes writes")


def assigned(f, node):
    return [event["goalstate"] for event in f.events() if event["nodename"] == node.name]


def scenario_survivors_run_on():
    """They are cut off, vote, and take over or follow another primary: by reloads, their PostgreSQL is never stopped."""
    with Formation(nodes=3, settings=SYNCHRONOUS) as f:
        Writer(f)
        former = f.primary()
        survivors = standbys(f, former)
        f.wait_healthy()
        f.goes_on(former)
        before = [node.postmaster() for node in survivors]
        former.crash()
        successor = f.wait_takeover(former)
        other = next(node for node in survivors if node is not successor)
        f.goes_on(successor)
        f.wait_state(other, "secondary")
        expect([node.postmaster() for node in survivors] == before, "a survivor of the election was restarted")
        expect("join_secondary" in assigned(f, other), f"the loser followed by another way: {assigned(f, other)}")
        former.start()
        f.wait_healthy()
        wait_names(f, successor, listed(f, 1, former, other))
        expect("apply_settings" in assigned(f, successor), f"names were changed by another way: {assigned(f, successor)}")
        expect([node.postmaster() for node in survivors] == before, "a survivor was restarted when the former primary came back")
        f.check_acknowledged()


def scenario_all_priorities_zero():
    """Nobody may take over: the group waits, says why, and goes on with the first one that is allowed to."""
    with Formation(nodes=3, settings=SYNCHRONOUS) as f:
        Writer(f)
        former = f.primary()
        one, other = standbys(f, former)
        for node in f.nodes:
            priority(f, node, 0)
        f.wait_healthy()
        f.goes_on(former)
        former.crash()
        wait_told(f, "candidate-priority", "priority")
        nobody_takes_over(f, former, one, other)
        priority(f, other, 1)
        expect(f.wait_takeover(former) is other, "a node of priority 0 took over")
        f.goes_on(other)
        former.start()
        f.wait_healthy()
        f.check_acknowledged()


def scenario_only_the_asynchronous_one_is_left():
    """number_sync_standbys 0. With the standby that counts gone, nobody's confirmation is waited for; then the primary dies. What the
    third holds is not known to be everything: it takes over only by choice, and nothing is lost when the primary comes back instead."""
    with Formation(nodes=3) as f:
        Writer(f)
        primary = f.primary()
        counts, reads = standbys(f, primary)
        command(f, "set", "node", "replication-quorum", "false", "--name", reads.name)
        wait_names(f, primary, listed(f, 1, counts))
        counts.crash()
        wait_names(f, primary, "")
        f.goes_on(primary)
        primary.crash()
        expect(primary.name in wait_told(f, "allow-data-loss")["waiting_for"], "who is waited for is not told")
        nobody_takes_over(f, primary, reads)
        primary.start()
        f.goes_on(primary)
        expect("forced_choice" not in rules(f), f"somebody has chosen: {rules(f)}")
        # Again, with the names that number_sync_standbys 1 keeps: the one that counts has it all.
        counts.start()
        f.wait_healthy()
        wait_names(f, primary, listed(f, 1, counts))
        number_sync_standbys(f, 1)
        f.wait_healthy()
        counts.crash()
        f.wait_until(lambda: counts.name not in f.in_state("secondary"), what=f"{counts.name} is lost")
        primary.crash()
        expect(counts.name in wait_told(f, "allow-data-loss")["waiting_for"], "who is waited for is not told")
        nobody_takes_over(f, primary, reads)
        counts.start()
        f.wait_takeover(primary)
        primary.start()
        f.wait_healthy()
        f.goes_on()
        f.check_acknowledged()


def process_of(node, kind):
    return int(node.sql(f"SELECT pid FROM pg_stat_activity WHERE backend_type = '{kind}'"))


def no_receiver(node):
    return node.sql("SELECT count(*) FROM pg_stat_wal_receiver") == "0"


def scenario_a_timeline_that_no_look_has_seen():
    """After a hand-over a standby receives a commit of the new timeline while its keeper is held up, and the new primary dies before
    the keeper looks again. Its vote tells the timeline all the same: the other standby, which has been seen on it, holds less."""
    patient = [("set", "formation", "settings", setting, "300000") for setting in ("unhealthy_ms", "standby_lost_ms")]
    with Formation(nodes=4, settings=SYNCHRONOUS + patient) as f:
        first = f.primary()
        f.wait_healthy()
        second, seen, unseen = standbys(f, first)
        wait_names(f, first, listed(f, 1, second, seen, unseen))
        # No walreceiver comes up again while the startup process is stopped.
        startup = process_of(unseen, "startup")
        os.kill(startup, signal.SIGSTOP)
        command(f, "perform", "promotion", "--name", second.name)
        f.wait_until(lambda: second.sql("SELECT pg_is_in_recovery()") == "f", what="the hand-over is done")
        first.crash()
        wait_names(f, second, listed(f, 1, seen, unseen))
        f.wait_until(lambda: f.state()[seen.name]["reported_tli"] == 2, what=f"{seen.name} is seen on timeline 2")
        address = second.host if f.network else str(second.port)
        f.wait_until(lambda: address in unseen.sql("SHOW primary_conninfo"), what=f"{unseen.name} is to follow {second.name}")
        other_startup = process_of(seen, "startup")
        os.kill(other_startup, signal.SIGSTOP)
        os.kill(process_of(seen, "walreceiver"), signal.SIGTERM)
        f.wait_until(lambda: no_receiver(seen), what=f"{seen.name} receives nothing any more")
        unseen.kill(signal.SIGSTOP)
        os.kill(startup, signal.SIGCONT)
        second.sql("CREATE TABLE acknowledged AS SELECT 1 AS x")
        second.crash()
        f.wait_until(lambda: no_receiver(unseen), what=f"{unseen.name} receives nothing any more")
        unseen.kill(signal.SIGCONT)
        os.kill(other_startup, signal.SIGCONT)
        successor = f.wait_takeover(second)
        expect(successor.sql("SELECT to_regclass('acknowledged') IS NOT NULL") == "t", f"{successor.name} lacks what was acknowledged")
        expect(successor is unseen, f"{successor.name} took over")
        first.start()
        second.start()
        f.wait_healthy()
