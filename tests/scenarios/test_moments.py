"""What a failover consisted of: `show events --failover`."""
import json

from formation import Formation, Writer, expect

BY_NEW_PRIMARY = ["ordered", "order_received", "promoting", "promoted", "first_write"]
BY_FORMER = ["drain_received", "stopping", "stopped"]
BY_VOTER = ["vote_received", "cut_off", "voted"]
OF_FAILOVER = ["last_evidence", "suspicion", "verdict", "votes_asked", *BY_VOTER, "fenced", "elected", *BY_NEW_PRIMARY]
OF_SWITCHOVER = ["asked", "draining", *BY_FORMER, "stop_heard", "caught_up", *BY_NEW_PRIMARY]
OF_CHOICE = ["last_evidence", "suspicion", "verdict", "votes_asked", *BY_VOTER, "fenced", "chosen", "elected", *BY_NEW_PRIMARY]


def show(f, *words, check=True):
    return f.run("show", "events", "--failover", *words, "--pgdata", f.monitor.pgdata, check=check)


def newest(f):
    result = show(f, "--json", check=False)
    return json.loads(result.stdout) if result.returncode == 0 else None


def told(f, former, successor, kind, names):
    """The newest takeover, once a client has written: its moments in order; its parts, which add up."""
    term = f.term()

    def whole():
        takeover = newest(f)
        return takeover if takeover and takeover["term"] == term and takeover["gap_ms"] is not None else None
    takeover = f.wait_until(whole, what=f"the takeover of term {term} is told until a client writes")
    expect((takeover["kind"], takeover["from"], takeover["to"]) == (kind, former.name, successor.name), f"another takeover: {takeover}")
    found = [line["moment"] for line in takeover["moments"]]
    expect([name for name in found if name != "settled"] == names and "settled" in found, f"not these moments, in this order: {takeover}, {names}")
    at = 0
    for line in takeover["moments"]:
        at += line["part_ms"]
        expect(line["part_ms"] >= 0 and line["at_ms"] == at, f"the parts do not add up at {line}: {takeover}")
        by_successor = line["moment"] in [*BY_VOTER, *BY_NEW_PRIMARY[1:], "settled"]
        seen_by = successor.name if by_successor else former.name if line["moment"] in BY_FORMER else "monitor"
        expect(line["description"] and line["seen_by"] == seen_by, f"somebody else saw {line}")
    begin = at_ms(takeover, "stopping" if kind == "switchover" else "suspicion")
    expect(takeover["gap_ms"] == at_ms(takeover, "first_write") - begin, f"the gap is another: {takeover}")
    return takeover


def at_ms(takeover, name):
    return next(line["at_ms"] for line in takeover["moments"] if line["moment"] == name)


def scenario_of_a_loss_and_a_switchover():
    """kill -9 of the whole primary, then a switchover: both are told in order and add up, fit what the client saw, and outlast the monitor."""
    with Formation() as f:
        none = show(f, check=False)
        expect(none.returncode == 1 and "on record" in none.stderr, f"a takeover before the first one: {none.stdout}{none.stderr}")
        writer = Writer(f)
        f.goes_on()
        former = f.primary()
        former.crash()
        successor = f.wait_takeover(former)
        lost = told(f, former, successor, "failover", OF_FAILOVER)
        gap = writer.stop()["longest_gap_ms"]
        # The loss lies between the last evidence and the first sign; what is seen of clients is seen every 10 ms.
        expect(lost["gap_ms"] - 100 <= gap <= lost["gap_at_most_ms"] + 100, f"the client's gap was {gap} ms: {lost}")
        former.start()
        f.wait_healthy()
        Writer(f)
        f.goes_on()
        f.switchover()
        f.wait_takeover(successor)
        handed_over = told(f, successor, former, "switchover", OF_SWITCHOVER)
        f.monitor.kill()
        f.monitor.start()
        f.wait_healthy()
        expect(newest(f) == handed_over and json.loads(show(f, "2", "--json").stdout) == lost, "a restart of the monitor has changed what was told")
        third = show(f, "3", check=False)
        expect(third.returncode == 1 and "fewer than 3" in third.stderr, f"a third takeover: {third.stdout}{third.stderr}")
        text = show(f, "2").stdout
        gap = f"at least {lost['gap_ms']} ms" if lost["gap_ms"] != lost["gap_at_most_ms"] else f"for {lost['gap_ms']} ms"
        expect(text.startswith(f"failover from {former.name} to {successor.name}") and gap in text, text)


def scenario_of_a_choice():
    """A forced failover shows what was waited for: the choice, and the lease of the lost primary. The first write waits for a standby."""
    with Formation(nodes=3) as f:
        f.run("set", "formation", "number-sync-standbys", "1", "--pgdata", f.monitor.pgdata)
        f.wait_healthy()
        former = f.primary()
        lost, left = [node for node in f.nodes if node is not former]
        former.crash()
        lost.crash()
        f.wait_until(lambda: "allow-data-loss" in f.run("show", "why", "--pgdata", f.monitor.pgdata).stdout, what="the group waits for a choice")
        f.run("perform", "failover", "--allow-data-loss", "--pgdata", f.monitor.pgdata)
        expect(f.wait_takeover(former) is left, "somebody else took over")
        expect(newest(f)["gap_ms"] is None, f"a write without a standby: {newest(f)}")
        lost.start()
        Writer(f)
        f.goes_on()
        told(f, former, left, "forced failover", OF_CHOICE)
