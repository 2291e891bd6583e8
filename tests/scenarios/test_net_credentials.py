"""Stolen passwords of the roles on the data nodes, used from another host and from a node's own."""
import os
import subprocess

from formation import Formation, expect, major

# What the probe needs is SELECT 1. What PUBLIC may do in the database postgres it may too; these are not for PUBLIC.
REFUSED_TO_THE_PROBE = [
    "SELECT * FROM vigil", "INSERT INTO vigil VALUES (1)", "DROP TABLE vigil", "SELECT rolpassword FROM pg_authid", "SELECT pg_read_file('PG_VERSION')",
    "SELECT pg_ls_dir('.')", "COPY (SELECT 1) TO PROGRAM 'true'", "CREATE ROLE r", "CREATE DATABASE d", "SET ROLE pgvigil_replicator", "CHECKPOINT",
    "ALTER ROLE pgvigil_probe CONNECTION LIMIT -1", "ALTER SYSTEM SET port = 1", "SELECT pg_reload_conf()", "SELECT pg_promote()", "SELECT pg_switch_wal()",
    "SELECT pg_create_physical_replication_slot('s')", "SELECT pg_drop_replication_slot('pgvigil_standby_2')",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> session_user"]
if int(major()) >= 15:
    REFUSED_TO_THE_PROBE.append("CREATE TABLE public.t (x int)")  # before, PUBLIC could


def scenario_stolen_passwords():
    with Formation(auth="scram-sha-256", network=True) as f:
        primary, standby = f.primary(), f.secondary()
        primary.sql("CREATE TABLE vigil (x int)")
        with open(os.path.join(primary.state, "pgpass")) as file:
            passwords = dict(line.strip().split(":")[3:] for line in file)

        def psql(role, host, statement, more=""):
            where = f"host={primary.host} port={primary.port} user={role} dbname=postgres {more}"
            return subprocess.run(f.command(["psql", "-X", "-A", "-t", where, "-c", statement], host), env=dict(f.env, PGPASSWORD=passwords[role]),
                                  capture_output=True, text=True, timeout=30)

        # The client's host has a line for everybody (formation.py): it is not for this role.
        for more, statement in (("", "SELECT 1"), ("replication=true", "IDENTIFY_SYSTEM"), ("replication=database", "IDENTIFY_SYSTEM")):
            expect(psql("pgvigil_replicator", standby.name, statement, more).returncode == 0, f"{more}: a node of the group is refused")
            answer = psql("pgvigil_replicator", "client", statement, more)
            expect(answer.returncode == 2 and "rejects" in answer.stderr, f"{more}: a stranger came in: {answer}")
        expect(psql("pgvigil_probe", "monitor", "SELECT 1").stdout == "1\n", "the monitor's host is refused")
        for statement in REFUSED_TO_THE_PROBE:
            answer = psql("pgvigil_probe", "monitor", statement)
            expect(answer.returncode == 1 and "ERROR" in answer.stderr, f"{statement}: {answer}")
        answer = psql("pgvigil_probe", "monitor", "IDENTIFY_SYSTEM", "replication=true")
        expect(answer.returncode == 2 and "pg_hba.conf" in answer.stderr, f"the probe may replicate: {answer}")
        # Who has written a line for the role keeps it.
        with open(os.path.join(primary.pgdata, "pg_hba.conf"), "a") as file:
            file.write("host postgres pgvigil_replicator 10.77.0.0/24 scram-sha-256\n")
        f.run("reload", "--pgdata", primary.pgdata)
        f.wait_until(lambda: psql("pgvigil_replicator", "client", "SELECT 1").returncode == 0, what="the administrator's own line counts")
        f.wait_healthy()
