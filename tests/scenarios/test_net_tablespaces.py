"""Tablespaces, which lie at the same path on every node: each node sees a directory of its own there (a mount
namespace), as on hosts of their own."""
import os
import shutil
import signal
import subprocess

from commands import crash_parted
from formation import Formation, expect


class Apart(Formation):
    """What is `place` to a node is `place_of(node)` to us."""

    def __init__(self):
        self.holders = {}
        super().__init__(nodes=0, network=True)
        self.place = os.path.join(self.work, "tablespaces")
        self.directory(self.place)

    def place_of(self, name):
        return os.path.join(self.work, name, "tablespaces")

    def command(self, words, host="client"):
        if not host.startswith("node"):
            return super().command(words, host)
        if host not in self.holders:
            self.directory(self.place_of(host))
            script = f"mount --bind {self.place_of(host)} {self.place} && echo there && exec sleep infinity"
            self.holders[host] = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c",
                                                   script], stdout=subprocess.PIPE, text=True)
            expect(self.holders[host].stdout.readline() == "there\n", "no mount namespace could be made")
        return ["nsenter", f"--mount=/proc/{self.holders[host].pid}/ns/mnt", *super().command(words, host)]

    def close(self, failed=False):
        super().close(failed)
        for holder in self.holders.values():
            holder.kill()
            holder.wait()


def everything_below(directory):
    return [os.path.join(folder, name) for folder, _, files in os.walk(directory) for name in files]


def begin_a_copy_and_end_it(f, standby):
    """While it fills the tablespace: there are no links to it yet in PGDATA."""
    f.run("config", "set", "replication.maximum_backup_rate", "200k", "--pgdata", standby.pgdata)
    shutil.rmtree(standby.pgdata)
    shutil.rmtree(os.path.join(f.place_of(standby.name), "space"))
    standby.start()
    f.wait_until(lambda: everything_below(f.place_of(standby.name)), what="the tablespace is being copied")
    standby.kill(signal.SIGKILL)
    links = os.path.join(standby.pgdata, "pg_tblspc")
    expect(not os.path.exists(links) or not os.listdir(links), "the link is there: this proves less")
    f.run("config", "set", "replication.maximum_backup_rate", "100M", "--pgdata", standby.pgdata)


def scenario_base_backup_rewind_and_rebuild():
    with Apart() as f:
        one = f.add_node()
        f.wait_state(one, "single")
        location = os.path.join(f.place, "space")
        f.directory(os.path.join(f.place_of(one.name), "space"))
        one.sql(f"CREATE TABLESPACE space LOCATION '{location}'")
        one.sql("CREATE TABLE there (x int) TABLESPACE space")
        one.sql("INSERT INTO there SELECT generate_series(1, 100000)")
        f.add_node()
        f.wait_healthy()
        f.start_writers()
        count = 100000

        def check(what):
            """All nodes have what was written into the tablespace; one row more each time."""
            nonlocal count
            count += 1
            f.primary().sql("INSERT INTO there VALUES (0)")
            for node in f.nodes:
                f.wait_until(lambda: node.sql("SELECT count(*) FROM there") == str(count), 20, f"{what}: {node.name}")
                expect(everything_below(f.place_of(node.name)), f"{what}: {node.name} has nothing in its directory")

        def text_of_log(node):
            with open(node.log) as log:
                return log.read()

        check("base backup")
        former, survivor = f.primary(), f.secondary()
        crash_parted(former, survivor)
        f.wait_takeover(former)
        f.primary().sql("INSERT INTO there VALUES (1)")
        count += 1
        former.start()
        f.wait_healthy()
        check("rewind")
        expect("rewound" in text_of_log(former), "nothing was rewound")

        def stop(standby):
            f.run("stop", "--pgdata", standby.pgdata)
            f.wait_state(f.primary(), "wait_primary")

        # Copied anew over what is there, as after a rewind that failed.
        standby = f.secondary()
        stop(standby)
        with open(os.path.join(standby.state, "copy-in-progress"), "w") as marker:
            marker.write("rewind\n")
        f.own(marker.name)
        standby.start()
        f.wait_healthy()
        check("rebuild")

        stop(standby)
        begin_a_copy_and_end_it(f, standby)
        standby.start()
        f.wait_healthy()
        check("a copy begun again")

        f.run("drop", "node", "--pgdata", standby.pgdata, "--destroy")
        f.nodes.remove(standby)
        expect(not everything_below(f.place_of(standby.name)), "--destroy leaves what is in the tablespace")
        f.goes_on()
        f.check_acknowledged()
