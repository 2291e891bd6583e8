"""Disks that do not answer (an ext4 in a file, frozen), and disks that slots fill: root is needed."""
import os
import subprocess
import time

from formation import Formation, expect, text_of


def disk_hangs(disk):
    with Formation(nodes=2, network=True, disk_size=400, disk=disk) as f:
        f.start_writers()
        primary = f.primary()
        begin = time.monotonic()
        with f.frozen(primary.disk):
            successor = f.wait_takeover(primary, 30)
            f.goes_on(successor, 30)
            took = time.monotonic() - begin
            print(f"writes go on {took:.1f} s after the disk has hung ({disk})")
            expect(took < 20, f"writes went on only after {took:.1f} s")
            why = f.state()[primary.name]["reason"]
            expect("has not answered for" in why, f"show state does not say why: {why!r}")
            time.sleep(5)  # as long as a stop tries
            expect(f.primary() is successor, "the new primary did not last")
        f.wait_healthy(90)
        f.goes_on()
        expect(f.term() == 2, f"more than one failover: {f.elections()}")
        lost = f.elections()[0]["description"]
        expect("takes no writes" in lost and "has not answered for" in lost, f"the event does not say why: {lost}")
        expect("the disk answers again" in text_of(primary.log), "the keeper's log does not tell that it is over")
        f.check_acknowledged()
        trace = os.path.join(primary.pgdata, "pg_wal", "pgvigil-disk-check")
        for node in f.nodes:
            f.run("stop", "--pgdata", node.pgdata)
        expect(not os.path.exists(trace), "a stopped node leaves the file of its checks behind")


def scenario_data_disk_hangs():
    disk_hangs("ext4")


def scenario_disk_of_data_and_state_hangs():
    disk_hangs("ext4, state too")


def settings_are_due(disk):
    with Formation(nodes=3, network=True, disk_size=400, disk=disk) as f:
        f.start_writers()
        primary, standby = f.primary(), f.secondary()
        with f.frozen(primary.disk):
            f.ask("set", "node", "replication-quorum", "false", "--name", standby.name, "--pgdata", f.monitor.pgdata)
            successor = f.wait_takeover(primary, 40)
            f.goes_on(successor, 30)
        f.wait_healthy(90)
        f.goes_on()
        f.check_acknowledged()


def scenario_hangs_while_settings_are_written():
    """The primary's disk hangs at the moment when its keeper is to write to it, before anybody has noticed: the keeper does not hang with it."""
    settings_are_due("ext4")


def scenario_hangs_while_orders_are_written():
    """The same, and what the keeper must not forget is on that disk."""
    settings_are_due("ext4, state too")


def scenario_idle_disk_is_asked():
    """Nobody writes, and the disk of a node that nobody could replace hangs: it says so, goes on reading, and nothing is stopped."""
    with Formation(nodes=1, network=True, disk_size=400, disk="ext4") as f:
        node = f.nodes[0]
        f.wait_state(node, "single")
        postmaster = node.postmaster()
        f.wait_until(lambda: os.path.exists(os.path.join(node.pgdata, "pg_wal", "pgvigil-disk-check")), what="an idle disk is asked")
        f.wait_until(lambda: "is reached by sslmode" in text_of(node.log), what="the node has come up")
        time.sleep(2)  # nothing is left to be written
        with f.frozen(node.disk):
            f.wait_until(lambda: "has not answered for" in f.state()[node.name]["reason"], 15, "show state says that the disk hangs")
        f.wait_until(lambda: not f.state()[node.name]["reason"], 15, "show state says that all is well again")
        expect(node.postmaster() == postmaster, "PostgreSQL was stopped although nobody could take over")


def scenario_disk_of_the_standby_hangs():
    """Nobody waits for what it cannot flush."""
    with Formation(nodes=2, network=True, disk_size=400, disk="ext4") as f:
        f.start_writers()
        primary, standby = f.primary(), f.secondary()
        with f.frozen(standby.disk):
            f.wait_state(primary, "wait_primary")
            f.goes_on(primary)
        f.wait_healthy(90)
        expect(f.primary() is primary and not f.elections(), "the primary was replaced")
        f.check_acknowledged()


def scenario_wal_for_an_absent_node():
    """It is kept as long as there is room, the log and `show state` say so, and then it is given up: the node is copied anew."""
    with Formation(nodes=2, network=True, disk_size=300) as f:
        primary, absent = f.primary(), f.secondary()
        for setting in ("wal_keep_size = '32MB'", "max_wal_size = '64MB'", "min_wal_size = '32MB'"):
            primary.sql("ALTER SYSTEM SET " + setting)
        primary.sql("SELECT pg_reload_conf()")
        f.start_writers(rate=20)
        absent.crash()
        f.wait_state(primary, "wait_primary")
        postmaster = primary.postmaster()

        def write():
            primary.sql("SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1000000)) FROM generate_series(1, 8)")
            time.sleep(1)
        words = f"the slot of {absent.name}, which does not stream, holds"
        f.wait_until(lambda: write() or words in f.state()[primary.name]["reason"], 60, "show state says for whom WAL is kept")
        expect(words in text_of(primary.log), "the log does not say for whom WAL is kept")
        f.wait_until(lambda: write() or "it is given up" in text_of(primary.log), 90, "the slot is given up")
        for _ in range(8):
            write()
        expect(primary.postmaster() == postmaster, "PostgreSQL has ended for want of room")
        absent.start()
        f.wait_healthy(120)
        expect("base backup from" in text_of(absent.log), "it was not copied anew")
        f.check_acknowledged()


def scenario_no_room_to_keep_wal_aside():
    """A former primary has WAL of its own, and no room for a copy of it beside what the node itself needs: nothing is replaced before somebody makes
    room."""
    with Formation(nodes=2, network=True, disk_size=400, disk="ext4, state too") as f:
        f.start_writers()
        former = f.primary()
        former.crash()
        f.wait_takeover(former)
        former.write_alone()
        ballast = os.path.join(former.disk, "ballast")
        free = os.statvfs(former.disk)
        subprocess.run(["fallocate", "-l", str(free.f_bavail * free.f_frsize - (40 << 20)), ballast], check=True)
        former.start()
        f.wait_until(lambda: "make room there" in f.state()[former.name]["reason"], what="it says what it lacks")
        reason = f.state()[former.name]["reason"]
        expect("it needs 16" in reason and "MB are free" in reason, f"how much it needs is not said: {reason}")
        time.sleep(3)
        expect("pg_rewind" not in text_of(former.log) and not os.path.exists(os.path.join(former.state, "diverged", "1")), "it went on without a copy")
        os.unlink(ballast)
        f.wait_healthy()
        expect("README" in os.listdir(os.path.join(former.state, "diverged", "1")), "its own WAL is not kept")
        f.check_acknowledged()
