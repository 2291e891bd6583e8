"""A node dies in a state that it only passes through. The other goes on where it can, and all is well when it is back."""
import os
import signal

from commands import command, priority, rules, wait_told
from formation import Formation, Writer, expect
from test_hangs import wait_part


def wait_row(f, node, **wanted):
    f.wait_until(lambda: wanted.items() <= (f.state().get(node.name) or {}).items(), what=f"{node.name} is {wanted}")


def wait_maintenance(f, primary, standby):
    """The primary has not put names without it in force."""
    primary.kill(signal.SIGSTOP)  # its keeper
    command(f, "enable", "maintenance", "--name", standby.name, "--no-wait")
    wait_row(f, standby, current_group_state="wait_maintenance")
    standby.crash()
    primary.kill(signal.SIGCONT)
    f.goes_on(primary)
    standby.start()
    f.wait_state(standby, "maintenance")
    command(f, "disable", "maintenance", "--name", standby.name)
    return primary


def prepare_promotion(f, primary, standby):
    """Its operator changes his mind, and it dies: the primary that was to hand over goes on."""
    primary.kill(signal.SIGSTOP)
    command(f, "perform", "failover", "--no-wait")
    wait_row(f, standby, current_group_state="prepare_promotion")
    priority(f, standby, 0)
    standby.crash()
    primary.kill(signal.SIGCONT)
    f.goes_on(primary)
    standby.start()
    f.wait_healthy()
    priority(f, standby, 50)
    return primary


def draining(f, primary, standby):
    """It waits for a walsender that hangs when it is killed: the candidate never gets the last record, and takes over by an election."""
    before = len(f.events())
    walsender = wait_part(f, primary, "walsender")
    os.kill(walsender, signal.SIGSTOP)
    command(f, "perform", "failover", "--no-wait")
    status = os.path.join(primary.pgdata, "postmaster.pid")
    f.wait_until(lambda: "stopping" in open(status).read(), what="PostgreSQL is stopping")
    wait_row(f, primary, current_group_state="primary", assigned_group_state="draining")
    os.kill(walsender, signal.SIGKILL)
    primary.crash()
    expect(f.wait_takeover(primary) is standby, "nobody took over")
    expect("clean_handover" not in rules(f)[before:] and "elect" in rules(f)[before:], f"it was a hand-over after all: {rules(f)[before:]}")
    f.goes_on(standby)
    primary.start()
    return standby


def stop_replication(f, primary, standby):
    """Chosen by force, it waits for the end of a lease, and dies. It has not been promoted meanwhile, and takes over when it is back."""
    for writer in f.writers:
        writer.stop()  # what is acknowledged from here on is given up
    command(f, "set", "formation", "settings", "lease_ms", "20000")  # time enough for what follows, on a slow machine too
    standby.crash()
    f.wait_state(primary, "wait_primary")
    primary.crash()
    standby.start()
    wait_told(f, "allow-data-loss", f"would choose {standby.name}")
    command(f, "perform", "failover", "--allow-data-loss", "--no-wait")
    wait_row(f, standby, current_group_state="stop_replication")
    standby.crash()
    expect("forced_promotion" not in rules(f), "it was promoted before it died: this proves nothing")
    standby.start()
    expect(f.wait_takeover(primary) is standby, "nobody took over")
    primary.start()
    Writer(f)
    return standby


def scenario_left_alone():
    with Formation() as f:
        Writer(f)
        for die_in in (wait_maintenance, prepare_promotion, draining, stop_replication):
            f.goes_on()
            successor = die_in(f, f.primary(), f.secondary())
            f.wait_healthy()
            expect(f.primary() is successor, f"after {die_in.__name__} {f.primary().name} is the primary")
        f.goes_on()
        f.check_acknowledged()


def scenario_newcomer_left_alone():
    """It dies while it waits for the permission to copy: wait_standby."""
    with Formation(nodes=1) as f:
        primary = f.nodes[0]
        f.wait_state(primary, "single")
        primary.kill(signal.SIGSTOP)
        newcomer = f.add_node()
        wait_row(f, newcomer, current_group_state="wait_standby")
        newcomer.crash()
        primary.kill(signal.SIGCONT)
        f.wait_state(primary, "wait_primary")
        Writer(f)
        f.goes_on(primary)
        newcomer.start()
        f.wait_healthy()
        expect(f.primary() is primary, "the primary has changed")
        f.check_acknowledged()
