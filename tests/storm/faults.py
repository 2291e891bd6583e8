"""What can happen. A fault is made from random choices and knows the formation: begin() does it, end() takes it back;
both may be called in whatever state the others have left it. A new kind is a class with a weight in KINDS."""
import os
import signal
import subprocess

from formation import children


class Fault:
    lasts = (0.5, 8.0)  # seconds from begin() to end(), at random

    def __init__(self, storm, generator):
        self.storm = storm
        self.f = storm.f
        self.generator = generator

    def node(self):
        """Half of all hit the primary."""
        primary = self.storm.primary()
        if primary is not None and self.generator.random() < 0.5:
            return primary
        return self.generator.choice(self.f.nodes)

    def host(self):
        return "monitor" if self.generator.random() < 0.2 else self.node().name

    def begin(self):
        """Returns what it is done to, for the trace."""
        raise NotImplementedError

    def end(self):
        pass


class KillPostmaster(Fault):
    lasts = (0.0, 0.0)

    def begin(self):
        node = self.node()
        node.kill_postmaster()
        return node.name


class KillKeeper(Fault):
    def begin(self):
        self.daemon = self.node()
        self.storm.kill(self.daemon)
        return self.daemon.name

    def end(self):
        self.storm.start(self.daemon)


class Crash(KillKeeper):
    def begin(self):
        self.daemon = self.node()
        self.storm.kill(self.daemon)  # first: it would start PostgreSQL again
        self.daemon.kill_postmaster()
        return self.daemon.name


class KillMonitor(KillKeeper):
    def begin(self):
        self.daemon = self.f.monitor
        self.storm.kill(self.daemon)
        return "monitor"


class CrashMonitor(KillKeeper):
    def begin(self):
        self.daemon = self.f.monitor
        self.storm.kill(self.daemon)
        self.daemon.kill_postmaster()
        return "monitor"


class KillMonitorPostgres(Fault):
    lasts = (0.0, 0.0)

    def begin(self):
        self.f.monitor.kill_postmaster()
        return "monitor"


class KillPart(Fault):
    """One process of a PostgreSQL."""
    lasts = (0.0, 0.0)

    def begin(self):
        node = self.node()
        pids = children(node.postmaster() or -1)
        if pids:
            signal_all([self.generator.choice(pids)], signal.SIGKILL)
        return node.name


def signal_all(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def postgres_of(daemon):
    pid = daemon.postmaster()
    return [pid] + children(pid) if pid else []


class Hang(Fault):
    lasts = (0.5, 15.0)

    def begin(self):
        daemon, self.pids = self.choose()
        signal_all(self.pids, signal.SIGSTOP)
        return daemon.name

    def end(self):
        signal_all(self.pids, signal.SIGCONT)


def process_of(daemon):
    return [daemon.process.pid] if daemon.running() else []


class HangKeeper(Hang):
    def choose(self):
        node = self.node()
        return node, process_of(node)


class HangPostgres(Hang):
    def choose(self):
        node = self.node()
        return node, postgres_of(node)


class HangNode(Hang):
    def choose(self):
        node = self.node()
        return node, process_of(node) + postgres_of(node)


class HangPart(Hang):
    def choose(self):
        node = self.node()
        pids = postgres_of(node)
        return node, [self.generator.choice(pids)] if pids else []


class HangMonitor(Hang):
    def choose(self):
        return self.f.monitor, process_of(self.f.monitor)


class HangMonitorPostgres(Hang):
    def choose(self):
        return self.f.monitor, postgres_of(self.f.monitor)


class Line(Fault):
    def end(self):
        self.f.network.end(self.key)


class Cut(Line):
    def begin(self):
        host = self.host()
        self.key = ("cut", host)
        self.f.network.cut(host)
        return host


class TwoHosts(Line):
    def two(self):
        one = self.host()
        hosts = ["monitor"] + [node.name for node in self.f.nodes]
        return one, self.generator.choice([name for name in hosts if name != one])


class CutOneWay(TwoHosts):
    def begin(self):
        source, target = self.two()
        self.key = ("one way", source, target)
        self.f.network.cut_one_way(source, target)
        return f"{source} -> {target}"


class CutBetween(TwoHosts):
    def begin(self):
        one, other = self.two()
        self.key = ("between", one, other)
        self.f.network.cut_between(one, other)
        return f"{one} - {other}"


class Loss(Line):
    lasts = (1.0, 10.0)

    def begin(self):
        host, percent = self.host(), self.generator.choice((2, 10, 30))
        self.key = ("lose", host)
        self.f.network.lose(host, percent)
        return f"{host} {percent} %"


class LinkDown(Line):
    def begin(self):
        host = self.host()
        self.key = ("link down", host)
        if ("delay", host) not in self.f.network.faults:
            self.f.network.link_down(host)
        return host


class Delay(Line):
    lasts = (1.0, 10.0)

    def begin(self):
        host = self.host()
        self.key = ("delay", host)
        milliseconds = self.generator.choice((2, 20, 80))
        if self.key not in self.f.network.faults and ("link down", host) not in self.f.network.faults:
            self.f.network.delay(host, milliseconds / 1000, jitter=milliseconds / 2000)
        return f"{host} {milliseconds} ms"


class Command(Fault):
    """An operator's, on the monitor's machine; whether it is accepted depends on what else goes on."""

    def ask(self, *words):
        words = self.f.command([self.f.pgvigil, *words, "--pgdata", self.f.monitor.pgdata], "monitor")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.storm.commands.append(subprocess.Popen(words, env=self.f.env, **quiet))


class Switchover(Command):
    lasts = (0.0, 0.0)

    def begin(self):
        self.ask("perform", "switchover", "--wait", "30")
        return ""


class Promotion(Command):
    lasts = (0.0, 0.0)

    def begin(self):
        node = self.generator.choice(self.f.nodes)
        self.ask("perform", "promotion", "--name", node.name, "--wait", "30")
        return node.name


class Maintenance(Command):
    lasts = (2.0, 12.0)

    def begin(self):
        self.named = self.generator.choice(self.f.nodes)
        self.ask("enable", "maintenance", "--name", self.named.name, "--wait", "5")
        return self.named.name

    def end(self):
        self.ask("disable", "maintenance", "--name", self.named.name, "--wait", "0")


class StopNode(Fault):
    """In an orderly way."""
    lasts = (1.0, 12.0)

    def begin(self):
        self.daemon = self.node()
        if self.daemon.running():
            self.storm.expect_end(self.daemon)
            self.daemon.process.send_signal(signal.SIGTERM)
        return self.daemon.name

    def end(self):
        self.storm.start(self.daemon)


KINDS = {
    "kill-postmaster": (KillPostmaster, 8),
    "kill-keeper": (KillKeeper, 6),
    "kill-part": (KillPart, 4),
    "crash": (Crash, 10),
    "kill-monitor": (KillMonitor, 3),
    "crash-monitor": (CrashMonitor, 2),
    "kill-monitor-postgres": (KillMonitorPostgres, 3),
    "hang-keeper": (HangKeeper, 5),
    "hang-postgres": (HangPostgres, 5),
    "hang-node": (HangNode, 6),
    "hang-part": (HangPart, 5),
    "hang-monitor": (HangMonitor, 2),
    "hang-monitor-postgres": (HangMonitorPostgres, 2),
    "cut": (Cut, 8),
    "cut-one-way": (CutOneWay, 6),
    "cut-between": (CutBetween, 6),
    "loss": (Loss, 4),
    "link-down": (LinkDown, 3),
    "delay": (Delay, 3),
    "switchover": (Switchover, 6),
    "promotion": (Promotion, 5),
    "stop-node": (StopNode, 5),
    # Only when it is asked for by --only.
    "maintenance": (Maintenance, 0),
}
