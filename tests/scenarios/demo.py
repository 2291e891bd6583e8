"""What scripts/demo shows, once everything is built."""
import sys
import threading
import time

from formation import Formation, Writer


def say(text):
    print(f"\n==> {text}", flush=True)


class Watcher(threading.Thread):
    """Prints each change of the states as it is seen."""

    def __init__(self, formation):
        super().__init__(daemon=True)
        self.formation = formation
        self.begin = time.monotonic()
        self.ending = False

    def run(self):
        last = None
        while not self.ending:
            now = {name: (row["current_group_state"], row["assigned_group_state"]) for name, row in self.formation.state().items()}
            if now and now != last:
                words = "   ".join(f"{name}: {current}" + ("" if current == goal else f" -> {goal}") for name, (current, goal) in now.items())
                print(f"  {time.monotonic() - self.begin:6.2f} s  {words}", flush=True)
                last = now
            time.sleep(0.02)


def main():
    say("a monitor and two nodes on loopback")
    with Formation(nodes=2) as formation:
        print(formation.run("show", "state", "--pgdata", formation.monitor.pgdata).stdout)
        print("application URI:", formation.uri())
        say("a client inserts unique ids, one by one; the primary's postmaster and its keeper get kill -9")
        writer = Writer(formation)
        watcher = Watcher(formation)
        watcher.start()
        time.sleep(2)
        former = formation.primary()
        former.crash()
        formation.wait_takeover(former)
        time.sleep(2)
        crash = writer.stop()
        say(f"{former.name} comes back")
        former.start()
        formation.wait_healthy()
        say("switchover under load")
        writer = Writer(formation)
        time.sleep(1)
        formation.run("perform", "switchover", "--pgdata", formation.monitor.pgdata)
        formation.wait_healthy()
        time.sleep(1)
        switch = writer.stop()
        watcher.ending = True
        watcher.join()
        _, verdict = formation.check_acknowledged()
        print(formation.run("show", "state", "--pgdata", formation.monitor.pgdata).stdout)
        say("summary")
        print(f"  kill -9 of primary and keeper: no write for {crash['longest_gap_ms']:.0f} ms")
        print(f"  switchover:                    no write for {switch['longest_gap_ms']:.0f} ms")
        print(f"  {verdict['acknowledged']} ids acknowledged, {verdict['missing']} lost; {verdict['in_doubt']} in doubt "
              f"({verdict['in_doubt_present']} of them are there)")
        return 1 if verdict["missing"] else 0


if __name__ == "__main__":
    sys.exit(main())
