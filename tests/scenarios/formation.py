"""A formation of real processes for scenarios, the demo and the benchmarks: on loopback, or each node on a host of its own (network=True:
network namespaces, for root). Python's standard library only."""
import contextlib
import importlib
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

WRITERS_NOISE = ("cannot execute INSERT in a read-only", "STATEMENT:  INSERT INTO ids")  # thousands of them, in PostgreSQL's log
BIN = os.environ.get("PGVIGIL_BIN", os.path.join(os.path.dirname(__file__), "..", "..", "build"))


class ScenarioError(AssertionError):
    pass


_reserved = []  # abstract sockets: a port is ours as long as this process lives, and nothing is left behind


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def text_of(path):
    with open(path, errors="replace") as file:
        return file.read()


def free_port():
    """Below the ephemeral range: there an outgoing connection could take the port while PostgreSQL restarts. Scenarios run side by side,
    and a port is picked long before it is listened on; the reservation keeps them apart."""
    for port in random.sample(range(6200, 7000), 800):
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0pgvigil-test-port-{port}")
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            reservation.close()
            continue
        _reserved.append(reservation)
        return port
    raise ScenarioError("no free port between 6200 and 6999")


def bindir():
    """Of the PostgreSQL that pgvigil finds too: in PATH, else the newest that is installed (find_bindir())."""
    installed = sorted(os.listdir("/usr/lib/postgresql"), key=int, reverse=True) if os.path.isdir("/usr/lib/postgresql") else []
    directories = os.environ["PATH"].split(":") + [f"/usr/lib/postgresql/{version}/bin" for version in installed]
    return next(directory for directory in directories if os.path.exists(directory + "/postgres") and os.path.exists(directory + "/pg_rewind"))


def tool(name):
    return os.path.join(bindir(), name)


def major():
    return subprocess.run([tool("postgres"), "--version"], check=True, capture_output=True, text=True).stdout.split()[2].split(".")[0]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def children(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    if int(stat.read().rsplit(")", 1)[1].split()[1]) == pid:
                        found.append(int(entry))
            except OSError:
                pass
    return found


class Daemon:
    """A monitor or a keeper: its directories, its process, its PostgreSQL."""

    def __init__(self, formation, name):
        self.formation = formation
        self.name = name
        self.pgdata = os.path.join(formation.work, name, "pgdata")
        self.state = os.path.join(formation.work, name, "state")
        self.log = os.path.join(formation.work, name + ".log")
        self.host = formation.network.add_host(name) if formation.network else "127.0.0.1"
        self.port = 5432 if formation.network else free_port()
        self.env = {}  # of the daemon alone
        self.process = None
        formation.daemons.append(self)
        formation.directory(os.path.join(formation.work, name))
        if formation.disk_size and name != "monitor":
            mount = formation.mount if formation.disk == "tmpfs" else formation.mount_image
            self.disk = mount(os.path.join(formation.work, name, "disk"), formation.disk_size)
            self.pgdata = os.path.join(self.disk, "pgdata")
            if formation.disk == "ext4, state too":
                self.state = os.path.join(self.disk, "state")

    def start(self, *options):
        """options: of the command line, before the command."""
        log = open(self.log, "ab")
        words = ["env", *[f"{name}={value}" for name, value in self.env.items()], self.formation.pgvigil, *options, "run", "--pgdata", self.pgdata]
        self.process = subprocess.Popen(self.formation.command(words, self.name), stdout=log, stderr=log, env=self.formation.env, start_new_session=True)
        log.close()

    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self, number=signal.SIGKILL):
        """Ends the daemon alone; its PostgreSQL goes on."""
        self.process.send_signal(number)
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            self.process.wait(60)

    def postmaster(self):
        try:
            with open(os.path.join(self.pgdata, "postmaster.pid")) as file:
                pid = int(file.readline())
            return pid if alive(pid) else None
        except (OSError, ValueError):
            return None

    def kill_postmaster(self, number=signal.SIGKILL):
        pid = self.postmaster()
        if pid:
            os.kill(pid, number)

    def signal_postgres(self, number):
        """All processes of the PostgreSQL, as when the host hangs."""
        pid = self.postmaster()
        for process in [pid] + children(pid) if pid else []:
            try:
                os.kill(process, number)
            except ProcessLookupError:
                pass

    def crash(self):
        """The whole node: keeper and postmaster at once. A keeper that could still do something would start PostgreSQL again."""
        if self.running():
            self.kill(signal.SIGSTOP)
        self.kill_postmaster()
        self.kill()

    def write_alone(self, config=None):
        """WAL that nobody else has, on a node that has crashed: it has to be rewound."""
        words = [tool("postgres"), "--single", "-D", self.pgdata, *(["-c", f"config_file={config}"] if config else []), "-c", "synchronous_standby_names=",
                 "postgres"]
        done = self.formation.program(words, self.name, input="CREATE TABLE only_here AS SELECT 1 AS x\n")
        expect(done.returncode == 0 and "ERROR" not in done.stderr, f"nothing was written: {done}")

    def psql(self, text, database="postgres"):
        """Over its Unix socket, which a network fault does not touch."""
        return [tool("psql"), "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", self.state, "-p", str(self.port), "-d", database, "-c", text]

    def sql(self, text, database="postgres", seconds=20):
        result = self.formation.program(self.psql(text, database), seconds=seconds)
        if result.returncode != 0:
            raise ScenarioError(f"{self.name}: {text}: {result.stderr}")
        return result.stdout.strip()

    def socket_uri(self):
        return f"postgres:///postgres?host={self.state}&port={self.port}&user={self.formation.owner()}"


class Writer:
    """A client that follows the primary; or, with a node, one that is beside that node and knows no other (its ids are in a table of their
    own): what two nodes acknowledge at a time shows as ids of one of them that are missing in the end."""

    def __init__(self, formation, rate=0, node=None, table="vigil_ids", options=()):
        self.formation = formation
        self.summary = None
        self.node = node
        self.table = f"ids_of_{node.name}" if node else table
        self.log = os.path.join(formation.work, f"writer-{len(formation.writers)}.log")
        self.process = subprocess.Popen(formation.command([os.path.join(BIN, "pgvigil-writer"), "--uri", node.socket_uri() if node else formation.uri(),
                                                           *(["--stay"] if node else []), "--log", self.log, "--rate", str(rate), "--table", self.table, *options]),
                                        stdout=subprocess.PIPE, env=formation.env, text=True)
        formation.writers.append(self)

    def answers(self):
        """(time, timeline, this writer) of every acknowledged id."""
        with open(self.log) as log:
            lines = [line.split() for line in log if line.endswith("\n")]
        return [(int(words[2]), int(words[3]), self) for words in lines if words[0] == "A"]

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        if self.summary is None:
            self.summary = json.loads(self.process.communicate(timeout=30)[0])
        return self.summary


def two_writers(answers):
    """What shows, of the answers of all writers, that two nodes acknowledged at a time; None when nothing does. A timeline is one node's, and when
    a later one has acknowledged, an earlier one does not any more. A single answer to a client may come late (the last release of an old primary
    that hung, or a client that was slow to note it); for a second one it would need its standbys again."""
    owners, late, newest = {}, set(), 0
    for at, timeline, writer in sorted(answers, key=lambda answer: answer[0]):
        if writer.node is not None and owners.setdefault(timeline, writer.node) is not writer.node:
            return f"{owners[timeline].name} and {writer.node.name} on timeline {timeline}"
        if timeline < newest and (writer, timeline) in late:
            return f"timeline {timeline} again at {at} by {writer.log}, after timeline {newest}"
        if timeline < newest:
            late.add((writer, timeline))
        newest = max(newest, timeline)
    return None


class Formation:
    def __init__(self, nodes=2, auth="trust", settings=(), network=None, disk_size=None, disk="tmpfs"):
        """network: each node on a host of its own; None: where `run` can make them. disk_size: in MB; every node's PGDATA is on a
        file system of its own of that size (for root). disk: tmpfs; ext4, which can hang; or "ext4, state too": the keeper's state directory is
        on it as well."""
        self.work = tempfile.mkdtemp(prefix="pgvigil-scenario.", dir=os.environ.get("TMPDIR", "/tmp"))
        self.env = dict(os.environ, PGVIGIL_CONFIG_DIR=os.path.join(self.work, "etc"), LC_ALL="C.UTF-8", PGCONNECT_TIMEOUT="5")
        self.disk_size, self.disk = disk_size, disk
        self.mounts = []
        self.network = None
        if network or (network is None and os.environ.get("PGVIGIL_HOSTS") == "apart"):
            from network import Network
            self.network = Network()
            self.network.add_host("client")
        if os.getuid() == 0:
            self.env.update(HOME=pwd.getpwnam(self.owner()).pw_dir, USER=self.owner(), LOGNAME=self.owner())
            os.chmod(self.work, 0o755)
            self.own(self.work)
        for name in ("PGDATA", "PGPORT", "PGVIGIL_MONITOR", "PG_AUTOCTL_MONITOR", "PGPASSWORD", "PGHOST"):
            self.env.pop(name, None)
        self.pgvigil = os.path.join(BIN, "pgvigil")
        self.auth = auth
        self.writers = []
        self.daemons = []  # all that there were, also before they are nodes
        self.nodes = []
        self.monitor = Daemon(self, "monitor")
        self.monitor_options = []
        self.node_options = lambda node: []
        self.count = nodes
        self.settings = settings

    def __enter__(self):
        try:
            self.create_monitor()
            for _ in range(self.count):
                self.add_node()
            if self.count > 1:
                self.wait_healthy()
                self.wait_encrypted()
            for setting in self.settings:
                self.run(*setting, "--pgdata", self.monitor.pgdata)
        except BaseException:
            self.close(failed=True)
            raise
        return self

    def __exit__(self, kind, value, trace):
        self.close(failed=kind is not None)

    def own(self, path):
        """PostgreSQL refuses root: what it is to use belongs to another user."""
        if os.getuid() == 0:
            owner = pwd.getpwnam(self.owner())
            os.chown(path, owner.pw_uid, owner.pw_gid)

    def directory(self, path, mode=0o755):
        if not os.path.isdir(path):
            os.makedirs(path, mode)
            self.own(path)

    def mount(self, path, megabytes):
        self.directory(path)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "pgvigil-test", path], check=True)
        self.own(path)
        self.mounts.append(path)
        return path

    def mount_image(self, path, megabytes):
        """An ext4 of its own, in a file: `freeze` makes it hang, as a disk does that does not answer."""
        self.directory(path)
        with open(path + ".image", "wb") as image:
            image.truncate(megabytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-E", "root_owner=0:0", path + ".image"], check=True)
        subprocess.run(["mount", "-o", "loop", path + ".image", path], check=True)
        self.own(path)
        self.mounts.append(path)
        return path

    @contextlib.contextmanager
    def frozen(self, disk):
        """Whoever writes there hangs, in state D: the test itself must not. Thawed by itself when the test does not come to it."""
        subprocess.run(["fsfreeze", "--freeze", disk], check=True)
        guard = subprocess.Popen(["sh", "-c", f"sleep 200; fsfreeze --unfreeze '{disk}'"], start_new_session=True)
        try:
            yield
        finally:
            os.killpg(guard.pid, signal.SIGKILL)
            guard.wait()
            subprocess.run(["fsfreeze", "--unfreeze", disk], check=True)

    def command(self, words, host="client"):
        """As the owner of the clusters, on a host. Each of the programs in front becomes the next: the pid is that of the last."""
        if not self.network:
            return words
        user = [f"--reuid={self.owner()}", f"--regid={self.owner()}", "--init-groups"] if os.getuid() == 0 else ["--inh-caps=-all", "--ambient-caps=-all"]
        return [*self.network.enter(host), "setpriv", *user, "--", *words]

    def program(self, words, host="client", seconds=120, **options):
        """To its end, by whatever it ends."""
        return subprocess.run(self.command(words, host), **{"env": self.env, **options}, capture_output=True, text=True, timeout=seconds)

    def begin(self, words, host="client"):
        """A program in the background."""
        return subprocess.Popen(self.command(words, host), env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def words(self, args):
        """Of a pgvigil command, and the host that it is given on: that of the PGDATA it names, if any."""
        words = [self.pgvigil, *map(str, args)]
        named = words[words.index("--pgdata") + 1] if "--pgdata" in words[:-1] else None
        return words, next((daemon.name for daemon in self.daemons if daemon.pgdata == named), "client")

    def run(self, *args, check=True, seconds=120):
        result = self.program(*self.words(args), seconds)
        if check and result.returncode != 0:
            raise ScenarioError(f"pgvigil {' '.join(map(str, args))}: exit {result.returncode}: {result.stdout}{result.stderr}")
        return result

    def ask(self, *args):
        """A pgvigil command in the background."""
        return self.begin(*self.words(args))

    def create_monitor(self):
        monitor = self.monitor
        self.run("create", "monitor", "--pgdata", monitor.pgdata, "--pgport", monitor.port, "--hostname", monitor.host, "--state-directory", monitor.state,
                 *self.monitor_options)
        self.monitor_uri = f"postgres://pgvigil_node@{monitor.host}:{monitor.port}/pgvigil"
        self.password_file = os.path.join(monitor.state, "node-password")
        monitor.start()
        self.wait_until(lambda: self.run("show", "state", "--pgdata", monitor.pgdata, "--json", check=False).returncode == 0, what="the monitor answers")

    def create_args(self, node):
        return ["create", "postgres", "--pgdata", node.pgdata, "--pgport", node.port, "--hostname", node.host, "--monitor", self.monitor_uri,
                "--monitor-password-file", self.password_file, "--name", node.name, "--state-directory", node.state, "--auth", self.auth]

    def add_node(self, name=None, options=()):
        node = Daemon(self, name or f"node{len(self.nodes) + 1}")
        self.nodes.append(node)
        self.run(*self.create_args(node), *self.node_options(node), *options)
        node.start()
        if self.network and len(self.nodes) == 1:
            self.wait_state(node, "single")
            self.let_clients_in(node)
        return node

    def let_clients_in(self, node):
        """The clients are on another host; later nodes copy the line."""
        with open(os.path.join(node.pgdata, "pg_hba.conf"), "a") as file:
            file.write("host all all 10.77.0.0/24 trust\n")
        node.sql("SELECT pg_reload_conf()")

    def node(self, name):
        return next(node for node in self.nodes if node.name == name)

    def uri(self):
        """As an application gets it; over TCP with the user that owns the cluster."""
        rows = json.loads(self.run("show", "uri", "--pgdata", self.monitor.pgdata, "--json").stdout)
        uri = next(row["uri"] for row in rows if row["type"] == "formation")
        return uri + "&user=" + os.environ.get("PGVIGIL_TEST_USER", self.owner())

    def owner(self):
        return os.environ.get("PGVIGIL_USER", "postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name

    def state(self):
        result = self.run("show", "state", "--pgdata", self.monitor.pgdata, "--json", check=False)
        return {row["nodename"]: row for row in json.loads(result.stdout)} if result.returncode == 0 else {}

    def events(self):
        return json.loads(self.run("show", "events", "--count", "1000", "--pgdata", self.monitor.pgdata, "--json").stdout)

    def switchover(self):
        """Once a node is ready: on a busy machine one of a healthy formation may just be late."""
        def performed():
            result = self.run("perform", "switchover", "--pgdata", self.monitor.pgdata, check=False)
            if result.returncode != 0 and "no node is ready" not in result.stderr:
                raise ScenarioError(f"the switchover ends with {result.returncode}: {result.stdout}{result.stderr}")
            return result.returncode == 0
        self.wait_until(performed, what="a switchover")

    def elections(self):
        """Those that the loss of a primary has begun."""
        return [event for event in self.events() if event["rule_name"] in ("primary_lost", "handover_failed", "promotion_failed")]

    def start_writers(self, rate=200):
        """One that follows the primary, and one beside every node. Returns the first."""
        writers = [Writer(self, rate)] + [Writer(self, 40, node) for node in self.nodes]
        self.goes_on()
        return writers[0]

    def written(self, node, table="vigil_ids", since=0):
        """How many ids are there, of those written after `since` (the epoch's seconds); 0 when there is no table, or no answer."""
        try:
            return int(node.sql(f"SELECT count(*) FROM {table} WHERE written_at > to_timestamp({since})", seconds=5))
        except (ScenarioError, subprocess.TimeoutExpired):
            return 0

    def goes_on(self, node=None, seconds=60):
        """Writes are acknowledged, by this node or by whoever is the primary."""
        before = self.written(node or self.wait_until(self.primary, what="a primary"))

        def more():
            takes_writes = node or self.primary()
            return takes_writes is not None and self.written(takes_writes) > before + 10
        self.wait_until(more, seconds, f"{node.name if node else 'the primary'} takes writes")

    def in_state(self, *states):
        """Names of the nodes that have reached one of the states as their goal."""
        return [name for name, row in self.state().items()
                if row["current_group_state"] in states and row["assigned_group_state"] == row["current_group_state"]]

    def healthy(self):
        """One primary, every other node a secondary."""
        reached = [row["current_group_state"] for row in self.state().values() if row["assigned_group_state"] == row["current_group_state"]]
        return reached.count("primary") == 1 and reached.count("secondary") == len(self.nodes) - 1

    def primary(self):
        """The node that takes writes, also while it changes from one writing state to another."""
        writing = ("single", "wait_primary", "primary", "apply_settings")
        names = [name for name, row in self.state().items()
                 if row["current_group_state"] in writing and row["assigned_group_state"] in writing]
        return self.node(names[0]) if len(names) == 1 else None

    def secondary(self):
        names = self.in_state("secondary")
        return self.node(names[0]) if names else None

    def wait_until(self, condition, seconds=60, what="a condition"):
        """What the condition gives as soon as it is true. A costly look (a program that is run) takes a third of the time at most."""
        deadline = time.monotonic() + seconds
        while (begin := time.monotonic()) < deadline:
            value = condition()
            if value:
                return value
            time.sleep(max(0.05, 2 * (time.monotonic() - begin)))
        raise ScenarioError(f"not within {seconds} s: {what}\n{self.describe()}")

    def wait_encrypted(self, sslmode="require", seconds=60):
        """Every node is reached by this sslmode."""
        self.wait_until(lambda: [row["sslmode"] for row in self.state().values()] == [sslmode] * len(self.nodes), seconds,
                        f"sessions with every node by sslmode={sslmode}")

    def wait_healthy(self, seconds=120):
        self.wait_until(self.healthy, seconds, "a healthy formation")

    def wait_state(self, node, *states, seconds=60):
        self.wait_until(lambda: node.name in self.in_state(*states), seconds, f"{node.name} in {' or '.join(states)}")

    def wait_takeover(self, former, seconds=60):
        """Another node takes writes; that node."""
        def another():
            primary = self.primary()
            return primary if primary is not former else None
        return self.wait_until(another, seconds, f"another primary than {former.name}")

    def check_acknowledged(self):
        """Every acknowledged id of every writer is in the table; ends the writers. Returns their summaries and the verdict."""
        summaries = [writer.stop() for writer in self.writers]
        verdict = {}
        for table in sorted({writer.table for writer in self.writers}):
            logs = [word for writer in self.writers if writer.table == table and os.path.getsize(writer.log) for word in ("--check", writer.log)]
            if not logs:
                continue  # beside a node that never took writes: the table does not exist
            result = self.program([os.path.join(BIN, "pgvigil-writer"), "--uri", self.uri(), "--table", table, *logs])
            if result.returncode != 0:
                raise ScenarioError(f"acknowledged ids are missing in {table}: {result.stdout}{result.stderr}\n{self.describe()}")
            for key, value in json.loads(result.stdout).items():
                verdict[key] = verdict.get(key, 0) + value
        if not verdict.get("acknowledged"):
            raise ScenarioError("the writer got nothing acknowledged: the check proves nothing\n" + self.describe())
        broken = two_writers([answer for writer in self.writers for answer in writer.answers()])
        if broken:
            raise ScenarioError(f"two nodes acknowledged at a time: {broken}\n{self.describe()}")
        return summaries, verdict

    def term(self):
        return max(row["term"] for row in self.wait_until(self.state, what="the monitor answers").values())

    def describe(self):
        text = self.run("show", "state", "--pgdata", self.monitor.pgdata, check=False).stdout
        for daemon in [self.monitor] + self.nodes:
            for log in (daemon.log, os.path.join(daemon.state, "postgresql.log")):
                if os.path.exists(log):
                    with open(log, errors="replace") as file:
                        told = [line for line in file if not any(word in line for word in WRITERS_NOISE)]
                    text += f"--- {log}\n" + "".join(told[-25:])
        return text

    def close(self, failed=False):
        for writer in self.writers:
            if writer.process.poll() is None:
                writer.process.kill()
                writer.process.wait()
        for daemon in self.nodes + [self.monitor]:
            if daemon.running():
                daemon.process.send_signal(signal.SIGCONT)
                daemon.process.kill()
                daemon.process.wait()
            daemon.signal_postgres(signal.SIGCONT)
            daemon.kill_postmaster(signal.SIGQUIT)  # not SIGKILL: shared memory would be left behind
            deadline = time.monotonic() + 5
            while daemon.postmaster() and time.monotonic() < deadline:
                time.sleep(0.02)
            daemon.signal_postgres(signal.SIGKILL)
        if self.network:
            self.network.close()
        for path in self.mounts:
            subprocess.run(["umount", "--lazy", path])
        if failed and os.environ.get("PGVIGIL_KEEP"):
            print(f"kept: {self.work}", file=sys.stderr)
            return
        for _ in range(20):
            shutil.rmtree(self.work, ignore_errors=True)
            if not os.path.exists(self.work):
                return
            time.sleep(0.1)


if __name__ == "__main__":
    # One scenario: its module and its name. SIGTERM ends it in an orderly way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    getattr(importlib.import_module(sys.argv[1]), sys.argv[2])()
