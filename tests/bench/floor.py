"""The floor: two bare servers without a manager, synchronous ANY 1; this program stops the primary and promotes the standby at once, by itself."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scenarios"))
from formation import BIN, free_port  # noqa: E402

BINDIR = subprocess.run(["bash", "-c", "ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1"], capture_output=True, text=True).stdout.strip()


class Bare:
    """Two bare servers, made by hand."""

    def __init__(self):
        self.work = tempfile.mkdtemp(prefix="pgvigil-floor.")
        self.ports = [free_port(), free_port()]
        self.dirs = [os.path.join(self.work, name) for name in "ab"]
        self.pg("initdb", "-D", self.dirs[0], "--data-checksums", "--auth=trust")
        self.configure(0)
        self.start(0)
        self.copy(0, 1)
        self.sql(0, "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (b0, b1)'")
        self.sql(0, "SELECT pg_reload_conf()")
        self.wait_streaming(0)

    def pg(self, program, *args):
        subprocess.run([os.path.join(BINDIR, program), *args], check=True, capture_output=True)

    def configure(self, i):
        with open(os.path.join(self.dirs[i], "postgresql.conf"), "a") as conf:
            conf.write(f"port = {self.ports[i]}\nunix_socket_directories = '{self.work}'\nlisten_addresses = '127.0.0.1'\n"
                       "wal_log_hints = on\nwal_keep_size = 512MB\nwal_retrieve_retry_interval = 100ms\n")

    def start(self, i):
        self.pg("pg_ctl", "-D", self.dirs[i], "-l", self.dirs[i] + ".log", "-w", "start")

    def copy(self, source, target):
        shutil.rmtree(self.dirs[target], ignore_errors=True)
        self.pg("pg_basebackup", "-D", self.dirs[target], "-R", "-c", "fast", "-d", f"host=127.0.0.1 port={self.ports[source]} application_name=b{target}")
        self.configure(target)
        # Set in advance, as a manager would: after its promotion it must not wait for itself.
        with open(os.path.join(self.dirs[target], "postgresql.auto.conf"), "a") as conf:
            conf.write("synchronous_standby_names = ''\n")
        self.start(target)

    def sql(self, i, text):
        return subprocess.run(["psql", "-X", "-A", "-t", "-h", self.work, "-p", str(self.ports[i]), "-d", "postgres", "-c", text], check=True,
                              capture_output=True, text=True).stdout.strip()

    def wait_streaming(self, i):
        while self.sql(i, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'") != "1":
            time.sleep(0.02)

    def uri(self):
        return f"postgres://127.0.0.1:{self.ports[0]},127.0.0.1:{self.ports[1]}/postgres?target_session_attrs=read-write"

    def measure(self, how):
        """One gap; the roles are then changed back by a new copy."""
        writer = subprocess.Popen([os.path.join(BIN, "pgvigil-writer"), "--uri", self.uri(), "--log", self.work + "/writer.log"], stdout=subprocess.PIPE, text=True)
        time.sleep(1.5)
        if how == "kill":
            with open(os.path.join(self.dirs[0], "postmaster.pid")) as file:
                os.kill(int(file.readline()), signal.SIGKILL)
        else:
            self.sql(0, "CHECKPOINT")
            self.pg("pg_ctl", "-D", self.dirs[0], "-m", "fast", "-w", "stop")
        self.pg("pg_ctl", "-D", self.dirs[1], "-W", "promote")
        time.sleep(1.5)
        writer.terminate()
        gap = json.loads(writer.communicate()[0])["longest_gap_ms"]
        if how == "kill":
            time.sleep(0.5)
        self.dirs.reverse()
        self.ports.reverse()
        shutil.rmtree(self.dirs[1], ignore_errors=True)
        self.sql(0, "CHECKPOINT")
        self.copy(0, 1)
        self.sql(0, "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (b0, b1)'")
        self.sql(0, "SELECT pg_reload_conf()")
        self.wait_streaming(0)
        return gap

    def close(self):
        for directory in self.dirs:
            subprocess.run([os.path.join(BINDIR, "pg_ctl"), "-D", directory, "-m", "immediate", "stop"], capture_output=True)
        shutil.rmtree(self.work, ignore_errors=True)
