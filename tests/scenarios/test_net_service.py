"""What needs root to arrange: the keeper of a service in file systems of its own."""
import subprocess
import time

from formation import Formation


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
