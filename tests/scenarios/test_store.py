"""What the simulator takes for the monitor's database is what sql/ makes of one."""
import os

from formation import BIN, Formation, expect

HISTORIES = int(os.environ.get("PGVIGIL_HISTORIES", "30"))
FIRST = os.environ.get("PGVIGIL_SEED", "1")
EMPTY_NODE = "116000561507"  # one without data tells a monitor that has forgotten it


def scenario_simulated_histories():
    """Whole histories of the simulator, each of its questions asked of a real database, too; no monitor decides there meanwhile."""
    with Formation(nodes=0) as f:
        f.monitor.kill()  # its PostgreSQL goes on
        conninfo = f"host={f.monitor.state} port={f.monitor.port} user={f.owner()} dbname=pgvigil"
        for histories, first in ((HISTORIES, FIRST), (1, EMPTY_NODE)):
            result = f.program([os.path.join(BIN, "against_sql"), conninfo, str(histories), first], seconds=60 + 30 * histories)
            expect(result.returncode == 0 and f"{histories} passed, 0 failed" in result.stdout, f"{result.stdout[-5000:]}\n{result.stderr[-2000:]}")
