"""What a service manager does to the daemons: it listens, it stops them, it starts them anew, it starts everything at once."""
import array
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import time

from formation import BIN, Daemon, Formation, expect, major, text_of, tool

HOSTS = "one"  # of one machine


class ServiceManager:
    """The other end of $NOTIFY_SOCKET. It notes who says what."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(path)
        self.socket.setblocking(False)
        self.said = []  # (time, pid, line)
        self.path = path

    def variables(self, watchdog_ms):
        return {"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": str(watchdog_ms * 1000)}

    def hear(self):
        while True:
            try:
                text, ancillary, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(struct.calcsize("3i")))
            except BlockingIOError:
                return self.said
            pid = struct.unpack("3i", array.array("B", ancillary[0][2]).tobytes())[0]
            self.said += [(time.monotonic(), pid, line) for line in text.decode().splitlines()]

    def lines(self, beginning):
        return [line for _, _, line in self.hear() if line.startswith(beginning)]


def scenario_notifications():
    with Formation(nodes=1) as f:
        f.wait_state(f.nodes[0], "single")
        for daemon, status in ((f.nodes[0], "STATUS=single"), (f.monitor, "STATUS=deciding for 1 nodes")):
            f.run("stop", "--pgdata", daemon.pgdata)
            manager = ServiceManager(os.path.join(f.work, daemon.name + ".notify"))
            daemon.env = manager.variables(watchdog_ms=600)
            daemon.start()
            f.wait_until(lambda: manager.lines("READY=1"), what=f"{daemon.name} is ready")
            f.wait_until(lambda: status in manager.lines("STATUS="), what=f"{daemon.name} says {status}: {manager.hear()}")
            # Alive is said often enough, and by a loop that goes round.
            before = len(manager.lines("WATCHDOG=1"))
            time.sleep(2)
            heard = len(manager.lines("WATCHDOG=1")) - before
            expect(7 <= heard <= 20, f"{heard} signs of life in 2 s with a watchdog of 600 ms")
            daemon.kill(signal.SIGSTOP)
            before = len(manager.lines("WATCHDOG=1"))
            time.sleep(1)
            expect(len(manager.lines("WATCHDOG=1")) == before, "a stopped process still says that it is alive")
            daemon.kill(signal.SIGCONT)
            pid = daemon.process.pid
            f.run("stop", "--pgdata", daemon.pgdata)
            expect(manager.lines("STOPPING=1") and manager.lines("EXTEND_TIMEOUT_USEC="), f"the stop is not announced: {manager.hear()}")
            expect(len(manager.lines("READY=1")) == 1, "ready is said more than once")
            # Debian's PostgreSQL would speak, too, if it could: in the name of the service.
            strangers = {line for _, sender, line in manager.hear() if sender != pid}
            expect(not strangers, f"others than the daemon speak for it: {strangers}")
            daemon.env = {}
            daemon.start()
        f.wait_state(f.nodes[0], "single")


def scenario_sigterm_hands_over():
    with Formation(nodes=2) as f:
        writer = f.start_writers()
        former = f.primary()
        former.process.send_signal(signal.SIGTERM)
        successor = f.wait_takeover(former)
        expect(former.process.wait(30) == 0, f"the keeper ended with {former.process.returncode}")
        expect(former.postmaster() is None, "PostgreSQL was left running")
        f.goes_on(successor)
        expect(not f.elections(), f"it was a failover, no hand-over: {f.elections()}")
        former.start()
        f.wait_healthy()
        expect(f.primary() is successor, "the old primary has taken over again")
        f.check_acknowledged()
        expect(writer.stop()["longest_gap_ms"] < 3000, f"writes stood still: {writer.stop()}")


def scenario_sigterm_as_configured():
    with Formation(nodes=2) as f:
        writer = f.start_writers()
        former = f.primary()
        f.run("config", "set", "timeouts.switchover_on_stop", "0", "--pgdata", former.pgdata)
        f.run("reload", "--pgdata", former.pgdata)
        f.wait_until(lambda: "configuration read again" in open(former.log).read(), what="the configuration is read again")
        f.run("stop", "--pgdata", former.pgdata)
        successor = f.wait_takeover(former)
        expect(f.elections(), "the primary has handed over, and was told not to")
        # The last one has nobody to wait for.
        begin = time.monotonic()
        f.wait_state(successor, "wait_primary")
        f.run("stop", "--pgdata", successor.pgdata)
        expect(time.monotonic() - begin < 15, "the last node waits for a successor")
        for node in f.nodes:
            node.start()
        f.wait_healthy()
        f.goes_on()
        expect(writer.stop()["acknowledged"] > 0, "the writer got nothing")
        f.check_acknowledged()


def scenario_stop_without_a_monitor():
    """A stop must not wait for a monitor that has gone."""
    with Formation(nodes=2) as f:
        former = f.primary()
        f.monitor.crash()
        begin = time.monotonic()
        former.process.send_signal(signal.SIGTERM)
        expect(former.process.wait(60) == 0 and former.postmaster() is None, "the primary does not stop")
        expect(time.monotonic() - begin < 25, f"the stop took {time.monotonic() - begin:.0f} s")
        f.monitor.start()
        f.wait_takeover(former)
        former.start()
        f.wait_healthy()


class FormationOfItsOwnPrograms(Formation):
    """Its programs can be replaced."""

    def create_monitor(self):
        self.programs = os.path.join(self.work, "bin")
        self.directory(self.programs)
        for name in ("pgvigil", "pgvigil-monitor", "pgvigil-keeper"):
            shutil.copy(os.path.join(BIN, name), self.programs)
        self.pgvigil = os.path.join(self.programs, "pgvigil")
        super().create_monitor()

    def upgrade(self):
        for name in ("pgvigil", "pgvigil-monitor", "pgvigil-keeper"):
            shutil.copy(os.path.join(BIN, name), os.path.join(self.programs, name + ".new"))
            os.rename(os.path.join(self.programs, name + ".new"), os.path.join(self.programs, name))


def runs_what_is_installed(daemon):
    return not os.readlink(f"/proc/{daemon.process.pid}/exe").endswith("(deleted)")


def scenario_upgrade():
    """New programs, and not one session of an application is lost."""
    with FormationOfItsOwnPrograms(nodes=2) as f:
        writer = f.start_writers()
        daemons = [f.monitor, *f.nodes]
        postmasters = [daemon.postmaster() for daemon in daemons]
        primary, term = f.primary(), f.term()
        f.upgrade()
        expect(not any(runs_what_is_installed(daemon) for daemon in daemons), "the old programs are not replaced")
        for daemon in daemons:
            daemon.process.send_signal(signal.SIGUSR2)
        f.wait_until(lambda: all(runs_what_is_installed(daemon) for daemon in daemons), what="the new programs run")
        expect(all(daemon.running() for daemon in daemons), "a daemon has ended")
        f.wait_healthy()
        f.goes_on()
        expect([daemon.postmaster() for daemon in daemons] == postmasters, "a PostgreSQL was restarted")
        expect(f.primary() is primary and f.term() == term, "the primary has changed")
        f.check_acknowledged()
        summary = writer.stop()
        expect(summary["failed"] == summary["in_doubt"] == 0, f"sessions were lost: {summary}")
        # A stop stays a stop, whatever comes after it.
        primary.process.send_signal(signal.SIGSTOP)
        primary.process.send_signal(signal.SIGTERM)
        primary.process.send_signal(signal.SIGUSR2)
        primary.process.send_signal(signal.SIGCONT)
        expect(primary.process.wait(60) == 0, "the keeper went on")


def cold_start(f, daemons):
    f.goes_on()
    for daemon in [f.monitor, *f.nodes]:
        daemon.crash()
    for daemon in daemons:
        daemon.start()
    f.wait_healthy()
    f.goes_on()


def scenario_cold_start():
    """The power of the whole house has failed. Whoever comes back first."""
    with Formation(nodes=3) as f:
        f.start_writers()
        cold_start(f, [f.monitor, *f.nodes])
        cold_start(f, [*reversed(f.nodes), f.monitor])
        f.check_acknowledged()


def scenario_orderly_shutdown_of_everything():
    """All hosts are shut down at once, then switched on at once."""
    with Formation(nodes=2) as f:
        f.start_writers()
        daemons = [f.monitor, *f.nodes]
        for daemon in daemons:
            daemon.process.send_signal(signal.SIGTERM)
        for daemon in daemons:
            expect(daemon.process.wait(90) == 0, f"{daemon.name} ended with {daemon.process.returncode}")
            expect(daemon.postmaster() is None, f"the PostgreSQL of {daemon.name} was left running")
        for daemon in daemons:
            daemon.start()
        f.wait_healthy()
        f.goes_on()
        f.check_acknowledged()


def scenario_debian_cluster():
    """A cluster made by pg_createcluster is refused until Debian has let go of it, and keeps its settings then."""
    with Formation(nodes=0) as f:
        node = Daemon(f, "debian")
        version = major()
        etc = os.path.join(f.work, "debian", "etc")
        configuration = os.path.join(etc, version, "main")
        f.env["PG_CLUSTER_CONF_ROOT"] = etc
        os.makedirs(configuration)
        subprocess.run([tool("initdb"), "-D", node.pgdata, "-k", "--auth=trust"], check=True, capture_output=True)
        # What pg_createcluster does, which refuses to do it for this test's user in this place.
        for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
            shutil.move(os.path.join(node.pgdata, name), configuration)
        os.mkdir(os.path.join(configuration, "conf.d"))
        with open(os.path.join(configuration, "conf.d", "own.conf"), "w") as conf:
            conf.write("work_mem = '7MB'\n")
        with open(os.path.join(configuration, "postgresql.conf"), "a") as conf:
            conf.write(f"data_directory = '{node.pgdata}'  # a comment\nhba_file='{configuration}/pg_hba.conf'\n"
                       f"ident_file = '{configuration}/pg_ident.conf'\n"
                       f"port = {node.port}\nunix_socket_directories = '{f.work}'\ninclude_dir = 'conf.d'\ncluster_name = 'own'\n")
        command = [word for word in f.create_args(node) if word not in ("--pgport", node.port)]

        def start_conf(text):
            with open(os.path.join(configuration, "start.conf"), "w") as file:
                file.write("# a comment\n" + text + "\n")

        def refused(why):
            result = f.run(*command, check=False)
            expect(result.returncode == 1 and why in result.stderr, f"not refused because of \"{why}\": {result.stderr}")
            expect("pg_ctlcluster " + version + " main stop" in result.stderr, "it is not said how to hand it over: " + result.stderr)
            expect(not os.path.exists(os.path.join(node.pgdata, "postgresql.conf")), "a refused cluster was touched")

        refused("starts it at boot")  # no start.conf means auto
        start_conf("auto")
        refused("starts it at boot")
        start_conf("manual")
        subprocess.run([tool("pg_ctl"), "-D", configuration, "-l", node.log, "-w", "start"], check=True, capture_output=True)
        refused("it runs")
        result = f.run("create", "monitor", "--pgdata", node.pgdata, check=False)
        expect(result.returncode == 1 and "Debian's cluster" in result.stderr, "a monitor may have it: " + result.stderr)
        subprocess.run([tool("pg_ctl"), "-D", node.pgdata, "-w", "stop"], check=True, capture_output=True)
        f.run(*command)
        f.nodes.append(node)
        f.run("config", "set", "postgresql.socket_directory", node.state, "--pgdata", node.pgdata)
        node.start()
        f.wait_state(node, "single")
        expect(node.sql("SHOW work_mem") == "7MB" and node.sql("SHOW cluster_name") == "own", "the cluster has lost its settings")
        expect(node.sql("SHOW hba_file") == os.path.join(configuration, "pg_hba.conf"), node.sql("SHOW hba_file"))
        f.add_node("copy")
        f.wait_healthy()


def scenario_unit_opens_what_is_written():
    """/etc is closed to a service, but for where the configuration of its cluster lies."""
    with Formation(nodes=1) as f:
        node = f.nodes[0]
        for file, wanted in (("", "-/etc/postgresql"), ("/etc/some where/postgresql.conf", '"-/etc/some where"')):
            if file:
                f.run("config", "set", "postgresql.config_file", file, "--pgdata", node.pgdata)
            unit = f.run("show", "systemd", "--pgdata", node.pgdata).stdout.splitlines()
            expect([line for line in unit if line.startswith("ReadWritePaths")] == ["ReadWritePaths=" + wanted], f"{file}: {unit}")


def core_limit(pid):
    with open(f"/proc/{pid}/limits") as limits:
        return next(line.split()[4] for line in limits if line.startswith("Max core file size"))


def scenario_core_dumps():
    """Daemons, which know passwords, leave none; their PostgreSQL has the limit that they were started with, also after they have started anew."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    expect(hard in (resource.RLIM_INFINITY,) or hard >= 4096, "the hard limit of core files is too low for this test")
    resource.setrlimit(resource.RLIMIT_CORE, (4096, hard))
    with Formation(nodes=1) as f:
        node = f.nodes[0]
        f.wait_state(node, "single")

        def check(when):
            for daemon in (f.monitor, node):
                expect(core_limit(daemon.process.pid) == "0", f"{when} the daemon of {daemon.name} may leave a core file")
                expect(core_limit(daemon.postmaster()) == "4096", f"{when} the PostgreSQL of {daemon.name} has not the limit that was given")
        check("at the start")
        node.process.send_signal(signal.SIGUSR2)
        f.wait_until(lambda: text_of(node.log).count("keeper of node") == 2, what="the keeper has started anew")
        before = node.postmaster()
        node.kill_postmaster()
        f.wait_until(lambda: node.postmaster() not in (None, before), what="another PostgreSQL")
        check("after a start anew")
