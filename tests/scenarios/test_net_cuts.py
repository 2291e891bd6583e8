"""Lines between the hosts fail: silently, visibly, in one direction, now and then. Each host is a network namespace.

Beside the client that follows the primary, one sits on every host and writes through its Unix socket: two nodes that
acknowledge at a time would show as ids that are missing in the end."""
import os
import signal
import time

from commands import priority, standbys, wait_told
from formation import Formation, expect, text_of
from test_hangs import wait_part

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


def favourite_behind(f):
    """The favourite hears the monitor, and nothing of the primary; thousands of rows are acknowledged by the other standby. Returns the three."""
    primary = f.primary()
    favourite, other = standbys(f, primary)
    priority(f, favourite, 100)
    f.wait_healthy()
    f.start_writers()
    f.network.cut_between(primary.name, favourite.name)
    primary.sql("CREATE TABLE fetched AS SELECT i, repeat(md5(i::text), 10) AS x FROM generate_series(1, 20000) AS i")
    f.goes_on(primary)
    return primary, favourite, other


# The favourite stays in the names, however long its line is cut.
PATIENT = [*SYNCHRONOUS, ("set", "formation", "settings", "standby_lost_ms", "60000")]


def fetches(f, favourite):
    """Events that send the favourite to fetch what it lacks."""
    return [event for event in f.events() if event["rule_pos"] == 311 and event["goalstate"] == "fast_forward" and
            event["nodename"] == favourite.name]


def took_over_with_all(f, former, favourite):
    expect(f.wait_takeover(former) is favourite, "another than the favourite took over")
    expect(favourite.sql("SELECT count(*) FROM fetched") == "20000", "rows are missing that were acknowledged")
    f.network.heal()
    former.start()
    f.wait_healthy(90)
    f.goes_on(favourite)
    f.check_acknowledged()


def scenario_favourite_fetches_what_it_lacks():
    with Formation(nodes=3, network=True, settings=PATIENT) as f:
        primary, favourite, _ = favourite_behind(f)
        primary.crash()
        f.wait_takeover(primary)
        expect(len(fetches(f, favourite)) == 1, "the favourite lacked nothing: this proves nothing\n" + f.describe())
        took_over_with_all(f, primary, favourite)


def scenario_source_dies_while_the_favourite_fetches():
    """Only the source has it all: nobody takes over before it is back. (The line to it is cut before, so that there is a middle to die in.)"""
    with Formation(nodes=3, network=True, settings=PATIENT) as f:
        primary, favourite, other = favourite_behind(f)
        f.network.cut_between(favourite.name, other.name)
        # As when the source is new: it makes its slots when it votes, too.
        slot = f"pgvigil_standby_{f.state()[favourite.name]['node_id']}"
        other.sql(f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{slot}'")
        primary.crash()
        f.wait_until(lambda: fetches(f, favourite), what="the favourite is to fetch")
        other.crash()
        f.wait_until(lambda: any(event["rule_pos"] == 313 and "source is lost" in event["description"] for event in f.events()),
                     what="the fetch has failed")
        f.network.heal()
        wait_told(f, "allow-data-loss", other.name)
        expect(f.primary() is None, f"somebody took over without what {other.name} has acknowledged")
        other.start()
        took_over_with_all(f, primary, favourite)


def scenario_asynchronous_primary_cut_off():
    """number_sync_standbys 0, and nobody confirms its commits any more: it writes until its lease (10 s) is over, and then its PostgreSQL stops by
    itself, so that an operator's choice cannot make a second writer."""
    with Formation(nodes=2, network=True) as f:
        f.start_writers()
        primary, standby = f.primary(), f.secondary()
        standby.crash()
        f.wait_state(primary, "wait_primary")
        f.goes_on(primary)
        # A process that hangs does not hold up the stop for longer than whoever waits for the lease's end waits beyond it.
        held = wait_part(f, primary, "checkpointer")
        os.kill(held, signal.SIGSTOP)
        f.network.cut(primary.name)
        begin = time.monotonic()
        f.wait_until(lambda: primary.postmaster() is None, what="its PostgreSQL stops")
        f.wait_until(lambda: not os.path.exists(f"/proc/{held}"), what="its processes are gone")
        expect("did not stop on signal 3 within 1000 ms" in text_of(primary.log), "it had more time than a tenth of its lease, or the process did not hang")
        lasted = time.monotonic() - begin
        # Its lease began with its last report, on a busy machine some seconds before the cut, and the stop is to be over at the lease's end.
        expect(5 <= lasted <= 30, f"a lease of 10 s was over after {lasted:.1f} s")
        last = max(at for writer in f.writers if writer.node is primary for at, _, _ in writer.answers()) / 1e9
        expect(last >= begin + 3, f"it has taken no writes any more {last - begin:.1f} s after the cut")
        time.sleep(3)
        expect(primary.postmaster() is None and primary.running(), "it was started again, or its keeper has ended")
        f.network.heal()
        f.goes_on(primary)
        standby.start()
        healed(f, primary)
        f.check_acknowledged()
