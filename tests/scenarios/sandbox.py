"""What the runners of scenarios and storms have in common: a copy that another user can read, and an end for all that
was started."""
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

OWNER = os.environ.get("PGVIGIL_USER", "postgres")
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")


def stage():
    """PostgreSQL refuses to run as root, and the other user may not be able to read the checkout (under /root)."""
    binaries = os.environ.get("PGVIGIL_BIN", os.path.join(ROOT, "build"))
    copy = tempfile.mkdtemp(prefix="pgvigil-tests.")
    os.makedirs(copy + "/build")
    for name in ("pgvigil", "pgvigil-monitor", "pgvigil-keeper", "pgvigil-writer", "against_sql"):
        shutil.copy(os.path.join(binaries, name), copy + "/build")
    for folder in ("scripts", "sql"):
        shutil.copytree(os.path.join(ROOT, folder), os.path.join(copy, folder))
    for folder in ("scenarios", "storm", "bench"):
        shutil.copytree(os.path.join(HERE, "..", folder), os.path.join(copy, "tests", folder),
                        ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["chmod", "-R", "a+rX", copy], check=True)
    os.makedirs(copy + "/tmp")
    os.chmod(copy + "/tmp", 0o1777)
    return copy


def environment(copy):
    """For what runs from the copy."""
    values = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", PGVIGIL_BIN=copy + "/build")
    values.update(HOME=pwd.getpwnam(OWNER).pw_dir, USER=OWNER, LOGNAME=OWNER)
    if "PGVIGIL_KEEP" not in values:
        values["TMPDIR"] = copy + "/tmp"
    return values


def as_owner(words, makes_hosts=False):
    """makes_hosts: it may do what network namespaces need."""
    rights = ["--inh-caps=+net_admin,+sys_admin", "--ambient-caps=+net_admin,+sys_admin"] if makes_hosts else []
    return ["setpriv", f"--reuid={OWNER}", f"--regid={OWNER}", "--init-groups", *rights, "--"] + words


def contained(words, in_memory=()):
    """For root. What is left behind ends with it, however it ends: processes, mounts, namespaces, shared memory, and what is in the directories
    `in_memory`. The shell reaps the orphans, as init does: a postmaster that is a zombie would look alive to the next one."""
    mounts = [f"mount -t tmpfs -o mode=1777 pgvigil-test {shlex.quote(path)} && " for path in ("/dev/shm", *in_memory)]
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", "bash", "-c",
            "".join(mounts) + '"$@"; exit $?', "contained"] + words


def available_memory():
    """In MiB."""
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("MemAvailable"))


def run_copy(program, arguments, result=None, as_root=True):
    """For root: a program of this tree, from a copy and contained; its exit code. `result`: where the file goes that it writes by --json."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    copy = stage()
    written = copy + "/tmp/result.json"
    words = [sys.executable, f"{copy}/{program}", *arguments, *(["--json", written] if result else []), "--inside"]
    child = None
    try:
        child = subprocess.Popen(contained(words if as_root else as_owner(words)), cwd=copy, env=environment(copy))
        code = child.wait()
        if os.path.exists(written):
            shutil.copyfile(written, result)
        return code
    finally:
        if child is not None and child.poll() is None:
            child.kill()
            child.wait()
        shutil.rmtree(copy, ignore_errors=True)
