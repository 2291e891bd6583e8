"""What both benchmarks share: options, the unprivileged user, the writing client's gap, medians."""
import argparse
import glob
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.abspath(os.environ.get("PGVIGIL_BIN", os.path.join(HERE, "..", "..", "build")))
PROGRAMS = ("pgvigil", "pgvigil-monitor", "pgvigil-keeper", "pgvigil-writer")
if "PGVIGIL_PG_BIN" in os.environ:
    PG_BIN = os.environ["PGVIGIL_PG_BIN"]
else:
    PG_BIN = max(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[4]), default="")


def options(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=int, default=5, help="runs of each measure (5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return parser


def unprivileged(script):
    """Root cannot run PostgreSQL, and the other user may not be able to read the checkout: root stages the programs and runs the script there."""
    if not PG_BIN:
        sys.exit("no PostgreSQL under /usr/lib/postgresql: run scripts/setup, or set PGVIGIL_PG_BIN")
    missing = [name for name in PROGRAMS if not os.access(os.path.join(BUILD, name), os.X_OK)]
    if missing:
        sys.exit(f"not built in {BUILD}: {', '.join(missing)}; run scripts/build")
    if os.getuid() != 0:
        return
    stage = tempfile.mkdtemp(prefix="pgvigil-bench.")
    try:
        os.makedirs(stage + "/bin")
        for name in PROGRAMS:
            shutil.copy(os.path.join(BUILD, name), stage + "/bin")
        for folder in ("bench", "scenarios"):
            shutil.copytree(os.path.join(HERE, "..", folder), f"{stage}/tests/{folder}", ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run(["chmod", "-R", "a+rX", stage], check=True)
        command = ["runuser", "-u", os.environ.get("PGVIGIL_USER", "postgres"), "--", "env", f"PGVIGIL_BIN={stage}/bin", "PYTHONDONTWRITEBYTECODE=1",
                   "/usr/bin/python3", f"{stage}/tests/bench/{os.path.basename(script)}", *sys.argv[1:]]
        status = subprocess.run(command, cwd=stage).returncode
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    sys.exit(status)


def scenarios_on_path():
    sys.path.insert(0, os.path.join(HERE, "..", "scenarios"))


def verdict(uri, log, env=None):
    """Raises unless every acknowledged id is in the table: a short gap that loses something is worth nothing."""
    result = subprocess.run([os.path.join(BUILD, "pgvigil-writer"), "--uri", uri, "--check", log], capture_output=True, text=True, timeout=90, env=env)
    if result.returncode != 0:
        raise RuntimeError(f"acknowledged ids are missing: {result.stdout}{result.stderr}")
    return json.loads(result.stdout)


def line(name, gaps):
    return f"{name:<34} median {statistics.median(gaps):8.1f} ms   of {', '.join(f'{gap:.0f}' for gap in gaps)}"
