"""What an unclean end leaves behind, as after a power loss: lock files that name whoever has got the number since, or nobody."""
import contextlib
import os
import subprocess

from formation import Formation, expect, text_of


@contextlib.contextmanager
def stranger(f, node):
    """A process of the same owner that is no PostgreSQL, and goes by its signals."""
    process = subprocess.Popen(f.command(["sleep", "1000"], node.name))
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def lock_files(node):
    return os.path.join(node.pgdata, "postmaster.pid"), os.path.join(node.state, f".s.PGSQL.{node.port}.lock")


def rewrite(f, path, text):
    with open(path, "w") as file:
        file.write(text)
    f.own(path)


def named(path, pid):
    """The lock file with another number in it, its other lines as they were."""
    return "\n".join([str(pid), *text_of(path).split("\n")[1:]])


def comes_back(f, node):
    node.start()
    f.wait_state(node, "single")
    f.wait_until(lambda: node.postmaster() and f.program(node.psql("SELECT 1")).stdout == "1\n", what="PostgreSQL runs")


def scenario_lock_files_of_somebody_else():
    """PostgreSQL asks only whether a process with that number lives."""
    with Formation(nodes=1) as f:
        node = f.nodes[0]
        f.wait_state(node, "single")
        for which in ((0, 1), (0,), (1,)):
            node.crash()
            with stranger(f, node) as pid:
                for number in which:
                    path = lock_files(node)[number]
                    rewrite(f, path, named(path, pid))
                comes_back(f, node)


def scenario_empty_lock_files():
    """As a file system leaves them that has not written them out; and with zeros in place of what was in them."""
    with Formation(nodes=1) as f:
        node = f.nodes[0]
        f.wait_state(node, "single")
        for text in ("", "\0" * 80):
            node.crash()
            for path in lock_files(node):
                rewrite(f, path, text)
            comes_back(f, node)


def scenario_socket_lock_of_another_cluster():
    """It names another data directory, and its process lives: it is left alone, and the reason is told."""
    with Formation(nodes=1) as f:
        node = f.nodes[0]
        f.wait_state(node, "single")
        node.crash()
        with stranger(f, node) as pid:
            path = lock_files(node)[1]
            lines = text_of(path).split("\n")
            foreign = "\n".join([str(pid), "/srv/another", *lines[2:]])
            rewrite(f, path, foreign)
            node.start()
            f.wait_until(lambda: "lock file" in text_of(node.log), what="it tells what is in its way")
            expect(text_of(path) == foreign, "the lock file of another cluster was touched")
        f.wait_until(lambda: node.postmaster() and f.program(node.psql("SELECT 1")).stdout == "1\n", what="PostgreSQL runs")
