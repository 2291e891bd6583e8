"""What happens when more is lost than the policy allows for, and when failures come one after another."""
import os
import shutil
import time

from commands import command, standbys, wait_told, why
from formation import Formation, Writer, expect


def scenario_a_choice_among_four():
    """number_sync_standbys 1, four nodes, the primary and one standby die at once: what the dead one may have received
    is waited for, and who is waited for and what can be done is told; an operator chooses, and everybody comes back."""
    with Formation(nodes=4, settings=[("set", "formation", "number-sync-standbys", "1")]) as f:
        primary = f.primary()
        lost, *left = standbys(f, primary)
        f.wait_healthy()
        primary.sql("CREATE TABLE kept AS SELECT 1 AS x")
        for node in left:
            f.wait_until(lambda: node.sql("SELECT to_regclass('kept') IS NOT NULL") == "t",
                         what=f"the table is on {node.name}")
        primary.crash()
        lost.crash()
        row = wait_told(f, "allow-data-loss")
        expect(lost.name in row["waiting_for"] and primary.name in row["waiting_for"],
               f"who is waited for is not told: {row}")
        expect(any(node.name in row["command"] for node in left) and "bytes" in row["command"],
               f"the choice and its price are not named: {row}")
        expect("perform failover --allow-data-loss" in command(f, "show", "state").stdout,
               "show state does not name the command")

        def told():
            return [event["description"] for event in f.events() if event["rule_name"] == "waiting"]
        f.wait_until(lambda: any(lost.name in text and "allow-data-loss" in text for text in told()),
                     what="an event tells it")
        expect(len(told()) == 1, f"one wait is told more than once: {told()}")
        # Raising nothing, asking without the word, or naming a node changes nothing.
        for words in (("perform", "failover"), ("perform", "promotion", "--name", left[0].name)):
            refused = command(f, *words, "--wait", "0", check=False)
            expect(refused.returncode == 1, f"{words} without the word: {refused}")
        expect(not [node for node in left if node.sql("SELECT pg_is_in_recovery()") == "f"],
               "somebody was promoted without being chosen")
        command(f, "perform", "failover", "--allow-data-loss")
        successor = f.wait_takeover(primary)
        expect(successor in left, f"{successor.name} took over")
        expect("given up" in command(f, "show", "events", "--count", 50).stdout, "no event says what was given up")
        expect(successor.sql("SELECT x FROM kept") == "1", "the successor lacks what all had")
        Writer(f)
        f.goes_on(successor)
        primary.start()
        lost.start()
        f.wait_healthy()
        # The last one to come back enters the names yet.
        f.wait_until(lambda: why(f) == [], what="nothing is left to be explained")
        f.goes_on(successor)
        f.check_acknowledged()


def scenario_waits_for_the_one_with_the_data():
    """The same, but the node that is waited for comes back: nothing is chosen, nothing is lost."""
    with Formation(nodes=3, settings=[("set", "formation", "number-sync-standbys", "1")]) as f:
        f.wait_healthy()
        Writer(f)
        time.sleep(1)
        primary = f.primary()
        lost, _ = standbys(f, primary)
        primary.crash()
        lost.crash()
        wait_told(f, "allow-data-loss")
        lost.start()
        f.wait_takeover(primary)
        primary.start()
        f.wait_healthy()
        f.check_acknowledged()


def promote_by_hand(f, node):
    node.sql("SELECT pg_promote()")
    f.wait_until(lambda: node.sql("SELECT pg_is_in_recovery()") == "f", what="it is promoted by hand")
    node.sql("CREATE TABLE only_here AS SELECT 1 AS x")


def scenario_promoted_by_hand_and_gone_on_with():
    """The monitor and the primary are lost, and somebody promotes the standby by hand. The monitor that is back says that it
    cannot be elected, and how to go on with it; this is done."""
    with Formation(nodes=2) as f:
        primary, standby = f.primary(), f.secondary()
        f.monitor.crash()
        primary.crash()
        promote_by_hand(f, standby)
        f.monitor.start()
        f.wait_until(f.state, what="the monitor answers again")
        row = wait_told(f, "promoted by hand")
        expect(standby.name in row["waiting_for"] and "create postgres" in row["command"], f"the way on is not named: {row}")
        refused = command(f, "perform", "failover", "--allow-data-loss", "--wait", "0", check=False)
        expect(refused.returncode == 1, f"a choice without a healthy node: {refused}")
        command(f, "drop", "node", "--name", primary.name, "--force")
        row = wait_told(f, "promoted by hand")
        expect("create postgres" in row["command"], f"the way on is not named any more: {row}")
        command(f, "drop", "node", "--name", standby.name)
        f.wait_until(lambda: not standby.running(), what="its keeper ends")
        f.run(*f.create_args(standby))
        standby.start()
        f.wait_state(standby, "single")
        expect(standby.sql("SELECT x FROM only_here") == "1", "what was written by hand is lost")
        shutil.rmtree(primary.pgdata)
        shutil.rmtree(primary.state)
        f.run(*f.create_args(primary))
        primary.start()
        f.wait_healthy()
        expect(primary.sql("SELECT x FROM only_here") == "1", "the new standby has other data")


def scenario_promoted_by_hand_and_wal_removed():
    """A standby was promoted by hand while the monitor was away, and has removed WAL that it wrote: nothing of it could be kept
    aside, so it is not copied over before its operator says so."""
    with Formation(nodes=2) as f:
        primary, standby = f.primary(), f.secondary()
        f.monitor.crash()
        standby.sql("ALTER SYSTEM SET wal_keep_size = 0")
        promote_by_hand(f, standby)
        first = standby.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")

        def removed():
            standby.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
            standby.sql("CREATE TABLE filler AS SELECT 1; DROP TABLE filler; SELECT pg_switch_wal(); CHECKPOINT")
            return first not in os.listdir(os.path.join(standby.pgdata, "pg_wal"))
        f.wait_until(removed, what="it has removed what it wrote first")
        f.monitor.start()
        f.wait_until(f.state, what="the monitor answers again")
        row = wait_told(f, "removed some of the WAL")
        expect(row["nodename"] == standby.name and "empty its PGDATA" in row["waiting_for"], f"what to do is not named: {row}")
        time.sleep(3)
        expect(wait_told(f, "removed some of the WAL"), "it was copied over all the same")
        expect(os.path.exists(os.path.join(standby.pgdata, "pg_wal", "00000002.history")), "its timeline is gone")
        standby.kill()
        if standby.postmaster() is not None:
            standby.kill_postmaster()
        shutil.rmtree(standby.pgdata)
        os.mkdir(standby.pgdata, 0o700)
        standby.start()
        f.wait_healthy()
        expect(f.primary() is primary and standby.sql("SELECT to_regclass('only_here') IS NULL") == "t", "it still has its own")
