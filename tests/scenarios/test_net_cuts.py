"""Lines between the hosts fail: silently, visibly, in one direction, now and then. Each host is a network namespace.

Beside the client that follows the primary, one sits on every host and writes through its Unix socket: two nodes that
acknowledge at a time would show as ids that are missing in the end."""
import time

from formation import Formation, expect

SYNCHRONOUS = [("set", "formation", "number-sync-standbys", "1")]


def healed(f, primary=None):
    """All is well again; with `primary`, it has been the primary all the time."""
    f.network.heal()
    f.wait_healthy(90)
    f.goes_on()
    if primary is not None:
        expect(f.primary() is primary, f"{primary.name} is not the primary any more\n" + f.describe())
        expect(not f.elections(), f"an election without need: {f.elections()}")


def vanishes(f):
    for cut in (f.network.cut, f.network.link_down):
        former = f.primary()
        cut(former.name)
        f.wait_takeover(former)
        f.goes_on()
        healed(f)
        expect(f.primary() is not former, f"{former.name} is the primary again")


def scenario_primary_vanishes_of_three():
    with Formation(nodes=3, network=True, settings=SYNCHRONOUS) as f:
        f.start_writers()
        vanishes(f)
        f.check_acknowledged()


def scenario_primary_vanishes_of_two():
    with Formation(nodes=2, network=True) as f:
        f.start_writers()
        vanishes(f)
        f.check_acknowledged()


def scenario_standby_cut_off():
    """number_sync_standbys = 0: the primary goes on alone, and is protected again afterwards."""
    with Formation(nodes=2, network=True) as f:
        f.start_writers()
        primary, standby = f.primary(), f.secondary()
        for cut in (lambda: f.network.cut(standby.name),
                    lambda: f.network.cut_between(standby.name, primary.name),
                    lambda: f.network.cut_between(standby.name, "monitor")):
            cut()
            f.wait_state(primary, "wait_primary")
            f.goes_on(primary)
            healed(f, primary)
        f.check_acknowledged()


def scenario_primary_cut_from_standbys():
    """number_sync_standbys = 1: it blocks, nobody takes its place while the monitor hears it, and it resumes."""
    with Formation(nodes=3, network=True, settings=SYNCHRONOUS) as f:
        f.start_writers()
        primary = f.primary()
        for node in f.nodes:
            if node is not primary:
                f.network.cut_between(primary.name, node.name)
        time.sleep(2)  # what was on its way has arrived
        before = f.written(primary)
        time.sleep(8)  # longer than unhealthy_after and standby_lost_after
        expect(f.written(primary) == before, "commits without the standbys that they need")
        healed(f, primary)
        f.check_acknowledged()


def scenario_primary_cut_from_monitor():
    """It has its quorum, and goes on for longer than a lease."""
    with Formation(nodes=2, network=True) as f:
        writer = f.start_writers()
        primary = f.primary()
        f.network.cut_between(primary.name, "monitor")
        time.sleep(20)
        f.goes_on(primary)
        healed(f, primary)
        f.check_acknowledged()
        expect(writer.summary["longest_gap_ms"] < 5000, f"writes stopped: {writer.summary}")


def scenario_one_way_with_monitor():
    with Formation(nodes=2, network=True) as f:
        f.start_writers()
        primary = f.primary()
        for source, target in (("monitor", primary.name), (primary.name, "monitor")):
            f.network.cut_one_way(source, target)
            time.sleep(12)
            f.goes_on(primary)
            healed(f, primary)
        f.check_acknowledged()


def scenario_one_way_with_standby():
    with Formation(nodes=2, network=True) as f:
        f.start_writers()
        primary, standby = f.primary(), f.secondary()
        for source, target in ((standby.name, primary.name), (primary.name, standby.name)):
            f.network.cut_one_way(source, target)
            f.wait_state(primary, "wait_primary")
            f.goes_on(primary)
            healed(f, primary)
        f.check_acknowledged()


def scenario_bad_line():
    """A tenth of the packets is lost, and the others are late: slow, but no reason for a failover."""
    with Formation(nodes=2, network=True) as f:
        f.start_writers()
        primary = f.primary()
        f.network.lose(primary.name, 10)
        f.network.delay(primary.name, 0.0, jitter=0.05)
        time.sleep(30)
        f.goes_on(primary, 60)
        healed(f, primary)
        f.check_acknowledged()


def scenario_flapping_line():
    with Formation(nodes=2, network=True) as f:
        f.start_writers()
        primary = f.primary()
        for _ in range(10):
            f.network.cut(primary.name)
            time.sleep(1)
            f.network.heal()
            time.sleep(1)
        healed(f, primary)
        f.check_acknowledged()


def scenario_monitor_cut_off_in_a_failover():
    """Before it can decide, and right after it has begun to."""
    with Formation(nodes=3, network=True) as f:
        f.start_writers()
        for begun in (False, True):
            former = f.primary()
            former.crash()
            if begun:
                f.wait_until(lambda: f.state()[former.name]["assigned_group_state"] == "demote_timeout",
                             what="the election has begun")
            f.network.cut("monitor")
            time.sleep(4)
            f.network.heal()
            f.wait_takeover(former)
            former.start()
            healed(f)
        f.check_acknowledged()


def scenario_standby_and_primary():
    """One after the other, in both orders: two at once are more than number_sync_standbys = 1 can bear, so that an
    election may have to wait for the line, but nothing is lost."""
    with Formation(nodes=3, network=True, settings=SYNCHRONOUS) as f:
        f.start_writers()
        for standby_first in (True, False):
            former, standby = f.primary(), f.secondary()
            if standby_first:
                f.network.cut(standby.name)
                time.sleep(0.2)
                former.crash()
            else:
                former.crash()
                f.network.cut(standby.name)
            time.sleep(6)
            f.network.heal()
            f.wait_takeover(former)
            former.start()
            healed(f)
        # With time to take the lost one out of the names, the other one takes over at once.
        former, standby = f.primary(), f.secondary()
        f.network.cut(standby.name)
        name = f"pgvigil_standby_{f.state()[standby.name]['node_id']}"
        f.wait_until(lambda: name not in former.sql("SHOW synchronous_standby_names"), what="names without it")
        f.wait_state(former, "primary")
        former.crash()
        f.wait_takeover(former)
        former.start()
        healed(f)
        f.check_acknowledged()
