"""Full disks and clocks that jump. Each host is a network namespace, each disk a small file system: root is needed."""
import glob
import json
import os
import shutil
import subprocess
import time

from formation import Formation, ScenarioError, expect, text_of


def fill(disk):
    """To the last byte: what PostgreSQL frees meanwhile is taken too."""
    with open(os.path.join(disk, "filler"), "ab", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass


def free(disk):
    os.unlink(os.path.join(disk, "filler"))


def felt(node):
    with open(os.path.join(node.state, "postgresql.log"), errors="replace") as file:
        return "No space left" in file.read()


def writable_again(f, node, disk):
    """Some node takes writes, whichever, after the disk has been felt to be full, and while it is kept so."""
    f.wait_until(lambda: felt(node), what=f"{node.name} has no space left")
    before = max(f.written(each) for each in f.nodes)

    def more():
        time.sleep(0.5)
        fill(disk)
        return max(f.written(each) for each in f.nodes) > before + 200
    f.wait_until(more, 60, "writes go on somewhere")


def settle(f):
    f.wait_healthy(90)
    f.goes_on()


def scenario_full_data_disk_of_the_standby():
    with Formation(nodes=2, network=True, disk_size=300) as f:
        f.start_writers()
        primary, standby = f.primary(), f.secondary()
        fill(standby.disk)
        # It goes on until it needs another segment.
        primary.sql("SELECT pg_switch_wal() FROM generate_series(1, 5)")
        writable_again(f, standby, standby.disk)
        free(standby.disk)
        settle(f)
        expect(f.primary() is primary, "a full standby made a failover")
        f.check_acknowledged()


def scenario_full_data_disk_of_the_primary():
    """There is room for WAL, but not for data: it lives and answers, and can't write."""
    with Formation(nodes=2, network=True, disk_size=300) as f:
        f.start_writers()
        primary = f.primary()
        fill(primary.disk)
        writable_again(f, primary, primary.disk)
        free(primary.disk)
        settle(f)
        f.check_acknowledged()


def wal_disk(f, node, megabytes):
    """Its pg_wal is moved to a file system of its own."""
    f.run("stop", "--pgdata", node.pgdata)
    disk = f.mount(os.path.join(f.work, node.name, "wal-disk"), megabytes)
    place, target = os.path.join(node.pgdata, "pg_wal"), os.path.join(disk, "pg_wal")
    subprocess.run(["cp", "-a", place, target], check=True)
    shutil.rmtree(place)
    os.symlink(target, place)
    node.start()
    f.wait_healthy()
    return disk


def scenario_full_wal_disk():
    with Formation(nodes=2, network=True) as f:
        disks = {node: wal_disk(f, node, 200) for node in f.nodes}
        f.start_writers(rate=0)
        for which in (f.secondary, f.primary):
            node = which()
            fill(disks[node])
            try:
                f.primary().sql("SELECT pg_switch_wal() FROM generate_series(1, 5)")
            except ScenarioError:
                pass  # the primary, when it is its disk
            writable_again(f, node, disks[node])
            free(disks[node])
            settle(f)
        f.check_acknowledged()


def scenario_full_state_disk():
    """A keeper that cannot write down what it promises says and does nothing that it could forget: no vote, no
    promotion. With room again it goes on by itself."""
    with Formation(nodes=1, network=True) as f:
        former = f.nodes[0]
        f.wait_state(former, "single")
        f.directory(os.path.join(f.work, "node2"))
        disk = f.mount(os.path.join(f.work, "node2", "state"), 8)
        standby = f.add_node()
        f.wait_healthy()
        f.start_writers()
        fill(disk)
        former.crash()
        f.wait_until(lambda: "No space left" in text_of(standby.log), what="the keeper feels it")
        time.sleep(5)  # a takeover takes a tenth of that
        expect(standby.sql("SELECT pg_is_in_recovery()") == "t", "promoted by a promise that is nowhere")
        held = json.loads(text_of(os.path.join(standby.state, "keeper.json")))
        row = f.state()[standby.name]
        expect(held["reported"] == row["current_group_state"], f"told is {row}, on disk {held}")
        expect(text_of(standby.log).count("state file") in (1, 2), "not said, or again and again")
        free(disk)
        f.wait_takeover(former)
        former.start()
        settle(f)
        f.check_acknowledged()


def set_clock(path, seconds):
    with open(path + ".new", "w") as file:
        file.write(f"{seconds:+d}\n")
    os.replace(path + ".new", path)


def scenario_clocks_jump():
    """The wall clocks of the primary's host and of the monitor's, for daemons and PostgreSQL, by an hour forth and
    back: no reason for a failover."""
    library = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
    expect(library, "libfaketime is missing: apt-get install libfaketime")
    with Formation(nodes=2, network=True) as f:
        f.start_writers()
        primary = f.primary()
        clocks = {}
        for daemon in (f.monitor, primary):
            clock = clocks[daemon.name] = os.path.join(f.work, daemon.name + ".clock")
            set_clock(clock, 0)
            daemon.env = {"LD_PRELOAD": library[0], "FAKETIME_TIMESTAMP_FILE": clock, "FAKETIME_NO_CACHE": "1",
                          "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DISABLE_SHM": "1"}
            f.run("stop", "--pgdata", daemon.pgdata)
            daemon.start()
            if daemon is primary:
                f.wait_takeover(primary)
            settle(f)
        if f.primary() is not primary:
            f.run("perform", "promotion", "--name", primary.name, "--pgdata", f.monitor.pgdata)
            settle(f)
        before = len(f.elections())
        for daemon in (primary, f.monitor):
            for hours in (1, 0, -1, 0):
                set_clock(clocks[daemon.name], 3600 * hours)
                shown = float(daemon.sql("SELECT extract(epoch FROM clock_timestamp())")) - time.time()
                expect(abs(shown - 3600 * hours) < 60, f"{daemon.name} is off by {shown} s, not {hours} h")
                time.sleep(5)
                settle(f)
        expect(f.primary() is primary and len(f.elections()) == before, f"a failover: {f.elections()[before:]}")
        f.check_acknowledged()
