"""What clients get from `show uri` when the primary's host vanishes without a word. Each host is a network namespace."""
import json
import subprocess
import time

from formation import Formation, expect


def uri(f, *options):
    return json.loads(f.run("show", "uri", "--formation", "default", *options, "--json", "--pgdata", f.monitor.pgdata).stdout)["uri"] + f"&user={f.owner()}"


def psql(f, where, text):
    env = {name: value for name, value in f.env.items() if name != "PGCONNECT_TIMEOUT"}
    return subprocess.Popen(f.command(["psql", "-X", "-A", "-t", "-d", where, "-c", text]), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def scenario_primary_vanishes():
    """A client that waits for an answer learns within seconds that none will come, and finds the new primary with the same URI; without the
    timeouts it waits on."""
    with Formation(nodes=2, network=True) as f:
        former = f.primary()
        patient, plain = (psql(f, where, "SELECT pg_sleep(600)") for where in (uri(f), uri(f, "--plain")))
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND wait_event = 'PgSleep'"
        f.wait_until(lambda: former.sql(sessions) == "2", what="two clients wait for an answer")
        time.sleep(7)  # longer than the limit: a server that is well and has nothing to say yet is not left
        expect(patient.poll() is None, f"the client has left a healthy server: {patient.stderr}")
        f.network.cut(former.name)
        began = time.monotonic()
        _, errors = patient.communicate(timeout=30)  # psql 13 calls it an error of the statement
        noticed = time.monotonic() - began
        expect(patient.returncode in (1, 2) and 2 < noticed < 7, f"after {noticed:.1f} s: {patient.returncode}, {errors}")
        f.wait_takeover(former)
        began = time.monotonic()
        # The host that has vanished is the first of the URI: it costs connect_timeout.
        found = psql(f, uri(f), "SELECT inet_server_addr()")
        expect(found.communicate(timeout=30)[0].strip() == f.primary().host, "the new primary was not found")
        expect(time.monotonic() - began < 20, f"a new session took {time.monotonic() - began:.1f} s")
        expect(plain.poll() is None, "without timeouts: the test proves nothing")
        plain.kill()
        plain.wait()
