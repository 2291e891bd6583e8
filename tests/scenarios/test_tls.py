"""TLS of the monitor: on by itself, switched and given another certificate while it runs."""
import os
import stat
import subprocess

from formation import Formation


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def enter(f, **how):
    """Over TCP, as an operator with the printed URI; how the session is encrypted: "t" or "f", or why not at all."""
    words = {"host": "127.0.0.1", "port": str(f.monitor.port), "user": "pgvigil_node", "dbname": "pgvigil", **how}
    with open(f.password_file) as file:
        env = dict(f.env, PGPASSWORD=file.read().strip())
    result = subprocess.run(["psql", "-X", "-A", "-t", " ".join(f"{key}={value}" for key, value in words.items()), "-c",
                             "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"], env=env, capture_output=True, text=True, timeout=30)
    return result.stdout.strip() or result.stderr


def keepers_encrypted(f):
    return f.monitor.sql("SELECT count(*) FILTER (WHERE ssl) || ' of ' || count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
                         "WHERE usename ~ 'pgvigil_keeper'", database="pgvigil")


def scenario_monitor():
    with Formation(auth="scram-sha-256") as f:
        f.wait_until(lambda: keepers_encrypted(f) == "2 of 2", what="both keepers come in by TLS")
        certificate, key = (os.path.join(f.monitor.state, name) for name in ("server.crt", "server.key"))
        expect(stat.S_IMODE(os.stat(key).st_mode) == 0o600, "others may read the key")
        uri = f.run("show", "uri", "--pgdata", f.monitor.pgdata).stdout
        expect("/pgvigil?sslmode=require" in uri, f"the URI for the nodes does not ask for it: {uri}")
        verified = {"sslmode": "verify-full", "sslrootcert": certificate}
        expect(enter(f, **verified) == "t", f"its name is not in the certificate: {enter(f, **verified)}")
        expect("rejects connection" in enter(f, sslmode="disable"), "it lets in who does not encrypt")

        # Another certificate in the same files. Who trusts the old one alone does not come in any more.
        old = os.path.join(f.work, "old.crt")
        os.rename(certificate, old)
        pid = f.monitor.postmaster()
        os.unlink(key)
        f.run("create", "monitor", "--pgdata", f.monitor.pgdata, "--ssl-self-signed")
        f.run("reload", "--pgdata", f.monitor.pgdata)
        f.wait_until(lambda: enter(f, **verified) == "t", what="the new certificate counts")
        expect("certificate verify failed" in enter(f, sslmode="verify-full", sslrootcert=old), "the old certificate is still used")

        f.run("create", "monitor", "--pgdata", f.monitor.pgdata, "--no-ssl")
        f.run("reload", "--pgdata", f.monitor.pgdata)
        f.wait_until(lambda: enter(f, sslmode="disable") == "f", what="TLS is off")
        f.nodes[0].kill()
        f.nodes[0].start()
        f.wait_healthy()
        f.run("create", "monitor", "--pgdata", f.monitor.pgdata, "--server-cert", certificate, "--server-key", key, "--ssl-ca-file", certificate)
        f.run("reload", "--pgdata", f.monitor.pgdata)
        f.wait_until(lambda: "rejects connection" in enter(f, sslmode="disable"), what="TLS is on again")
        expect(enter(f, **verified) == "t" and f.monitor.postmaster() == pid, "it was started anew")
        f.wait_healthy()
        for options in (["--no-ssl", "--ssl-self-signed"], ["--server-cert", certificate], ["--ssl-mode", "sometimes"]):
            refused = f.run("create", "monitor", "--pgdata", f.monitor.pgdata, *options, check=False)
            expect(refused.returncode in (1, 2), f"{options}: {refused}")
