"""What needs root to arrange: the keeper of a service in file systems of its own, and commands that root himself gives."""
import os
import subprocess
import time

from formation import Formation, expect


def scenario_adopted_from_another_mount_namespace():
    """A keeper ends by itself, the service manager starts it again, in a new mount namespace. From there the paths of the PostgreSQL that
    runs look different."""
    with Formation(nodes=2, network=True) as f:
        node = f.secondary()
        f.run("stop", "--pgdata", node.pgdata)
        f.directory(f.work + "/elsewhere")
        words = f.command([f.pgvigil, "run", "--pgdata", node.pgdata], node.name)
        inside = ["unshare", "--mount", "sh", "-c", 'mount --rbind / "$0" && exec chroot "$0" "$@"', f.work + "/elsewhere"]
        with open(node.log, "ab") as log:
            node.process = subprocess.Popen([*inside, *words], stdout=log, stderr=log, env=f.env, start_new_session=True)
        f.wait_healthy()
        words = ["perform", "promotion", "--name", node.name, "--monitor", f.monitor_uri, "--monitor-password-file", f.password_file]
        f.wait_until(lambda: f.run(*words, check=False).returncode == 0, what="the node streams again, and takes over")
        f.wait_healthy()
        pid, term = node.postmaster(), f.term()
        node.kill()
        node.start()
        time.sleep(3)
        f.wait_healthy()
        if node.postmaster() != pid or f.term() != term or f.primary() is not node:
            raise AssertionError("the PostgreSQL that runs was not recognized")


def scenario_commands_of_root():
    """What they write belongs to whom the node belongs to. And all that is started here starts in a directory of root's, as from a shell of his."""
    f = Formation(nodes=2, network=True)
    closed = os.path.join(f.work, "closed")
    os.mkdir(closed, 0o700)
    os.chdir(closed)
    with f:
        node = f.secondary()

        def as_root(*words):
            words = [*f.network.enter(node.name), f.pgvigil, *words, "--pgdata", node.pgdata]
            done = subprocess.run(words, env=f.env, capture_output=True, text=True, timeout=120)
            expect(done.returncode == 0, f"{words}: {done}")
            found = [path for place in ("etc", node.name) for path, _, files in os.walk(os.path.join(f.work, place)) for path in
                     (path, *(os.path.join(path, name) for name in files)) if os.path.lexists(path) and os.lstat(path).st_uid == 0]
            expect(not found, f"{words} leaves root's files: {found}")

        as_root("config", "set", "log.level", "debug")
        as_root("enable", "ssl", "--ssl-self-signed")
        f.run("reload", "--pgdata", node.pgdata)
        node.kill()
        node.start()
        f.wait_healthy()
        as_root("enable", "monitor", "--monitor", f.monitor_uri, "--monitor-password-file", f.password_file)
        f.wait_healthy()
        as_root("drop", "node", "--destroy")
        expect(os.listdir(node.pgdata) == [] and node.process.wait(30) == 121, "it is not dropped")
        f.nodes.remove(node)
        f.wait_state(f.nodes[0], "single")
