"""Rounds of faults that overlap, then everything is healed and judged."""
import collections
import os
import random
import re
import time

import faults
from formation import Formation, ScenarioError, Writer

BAD_WORDS = ("internal error", "terminate called", "Assertion", "AddressSanitizer", "runtime error")


class Storm:
    def __init__(self, options):
        self.options = options
        self.generator = random.Random(options.seed)
        self.kinds = options.only or [name for name, (_, weight) in faults.KINDS.items() if weight > 0]
        self.weights = [max(1, faults.KINDS[name][1]) for name in self.kinds]
        self.counts = collections.Counter()
        self.problems = []
        self.may_end = set()  # daemons that were killed or stopped
        self.to_start = set()
        self.commands = []
        self.begin = time.monotonic()

    def say(self, text):
        print(f"[{time.monotonic() - self.begin:7.2f} s] {text}", flush=True)

    def problem(self, text):
        self.problems.append(text)
        self.say("PROBLEM " + text)

    # --- What faults need.

    def primary(self):
        """As last seen: asking the monitor would take longer than the fault."""
        return self.seen_primary

    def expect_end(self, daemon):
        self.may_end.add(daemon)

    def kill(self, daemon):
        if daemon.running():
            self.expect_end(daemon)
            daemon.kill()

    def start(self, daemon):
        self.to_start.add(daemon)

    def look(self):
        for daemon in [self.f.monitor] + self.f.nodes:
            if daemon.process is not None and not daemon.running() and daemon not in self.may_end:
                with open(daemon.log, errors="replace") as log:
                    last = "".join(log.readlines()[-8:])
                self.problem(f"{daemon.name}: its daemon ended by itself with {daemon.process.returncode}:\n{last}")
                self.expect_end(daemon)
                self.start(daemon)
        for daemon in list(self.to_start):
            if not daemon.running():
                daemon.start()
            elif daemon in self.may_end:
                continue  # it was told to stop, and is still at it
            self.to_start.discard(daemon)
            self.may_end.discard(daemon)
        for command in [command for command in self.commands if command.poll() is not None]:
            self.commands.remove(command)

    # --- The plan.

    def plan_round(self):
        """A list of (when, how long, kind, generator for its choices)."""
        entries = []
        for _ in range(self.generator.choice((1, 1, 2, 2, 3, 4))):
            kind = self.generator.choices(self.kinds, self.weights)[0]
            least, most = faults.KINDS[kind][0].lasts
            choices = random.Random(self.generator.random())
            entries.append((self.generator.uniform(0, 4), self.generator.uniform(least, most), kind, choices))
        return sorted(entries, key=lambda entry: entry[0])

    def play_round(self):
        self.seen_primary = self.f.primary() or self.seen_primary
        begin = time.monotonic()
        ends = []
        todo = self.plan_round()
        while todo or ends:
            now = time.monotonic() - begin
            self.look()
            if todo and todo[0][0] <= now:
                _, lasts, kind, generator = todo.pop(0)
                fault = faults.KINDS[kind][0](self, generator)
                self.counts[kind] += 1
                self.say(f"{kind} {fault.begin()} for {lasts:.1f} s")
                ends.append((time.monotonic() - begin + lasts, fault))
            for entry in [entry for entry in ends if entry[0] <= now]:
                ends.remove(entry)
                entry[1].end()
            time.sleep(0.02)

    # --- The verdict.

    def healthy(self):
        self.look()
        return self.f.healthy()

    def wait_healthy(self):
        try:
            begin = time.monotonic()
            self.f.wait_until(self.healthy, 90, "a healthy formation")
            took = time.monotonic() - begin
            self.healing = max(self.healing, took)
            if took > 30:
                events = self.f.run("show", "events", "--count", "40", "--pgdata", self.f.monitor.pgdata).stdout
                self.say(f"that took {took:.0f} s:\n{self.f.describe()}{events}")
            return True
        except ScenarioError as error:
            self.problem(str(error))
            return False

    def judge(self):
        for writer in self.f.writers:
            writer.stop()
        verdict = {"acknowledged": 0, "in_doubt": 0}
        try:
            _, verdict = self.f.check_acknowledged()
        except ScenarioError as error:
            self.problem(str(error))
            verdict["missing"] = sum(map(int, re.findall(r'"missing": (\d+)', str(error)))) or "?"
        for daemon in [self.f.monitor] + self.f.nodes:
            with open(daemon.log, errors="replace") as log:
                for line in log:
                    if any(word in line for word in BAD_WORDS):
                        self.problem(f"{daemon.name}: {line.strip()}")
        rows = self.f.monitor.sql("SELECT rule_name, count(DISTINCT term) FROM pgvigil.event GROUP BY 1", "pgvigil")
        rules = dict(row.split("|") for row in rows.splitlines())
        gap = max(writer.summary["longest_gap_ms"] for writer in self.f.writers if writer.node is None)
        print("faults: " + ", ".join(f"{count} {kind}" for kind, count in sorted(self.counts.items())))
        print(f"storm: seed {self.options.seed}, {self.options.nodes} nodes, number_sync_standbys {self.options.nss}: "
              f"{sum(self.counts.values())} faults, {self.f.term() - 1} changes of the term, "
              f"{rules.get('clean_handover', 0)} hand-overs, {rules.get('primary_lost', 0)} times a primary was lost, "
              f"{verdict['acknowledged']} acknowledged, {verdict['missing']} lost, {verdict['in_doubt']} in doubt, "
              f"longest gap {gap / 1000:.1f} s, slowest healing {self.healing:.1f} s, {len(self.problems)} problems",
              flush=True)

    def run(self):
        print(f"storm: seed {self.options.seed}", flush=True)
        self.healing = 0.0
        settings = [("set", "formation", "number-sync-standbys", str(self.options.nss))] if self.options.nss else []
        with Formation(nodes=self.options.nodes, network=True, settings=settings) as self.f:
            f = self.f
            for _ in range(2):
                Writer(f, rate=100)
                time.sleep(1.1)  # their ids begin with the second
            for node in f.nodes:
                Writer(f, rate=20, node=node)
            f.goes_on()
            self.seen_primary = f.primary()
            self.begin = time.monotonic()
            while time.monotonic() - self.begin < self.options.seconds and not self.problems:
                self.play_round()
                if self.generator.random() < self.options.calm:
                    self.say("healing")
                    self.wait_healthy()
            self.say("end of the faults")
            f.network.heal()
            for command in self.commands:
                command.wait(90)
            if self.wait_healthy():
                f.goes_on()
            self.judge()
            if self.problems and os.environ.get("PGVIGIL_KEEP"):
                raise ScenarioError("; ".join(self.problems))
        if self.problems:
            print("\n".join(["problems:"] + self.problems))
        return 1 if self.problems else 0
