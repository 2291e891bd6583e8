"""What the keeper writes into PostgreSQL's files and roles, when others have written there before it, or after."""
import os
import re

from formation import Formation, expect, text_of
from test_adoption import append, fill, join, made_by_hand

STREAMING = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'"


def scenario_written_and_not_reloaded():
    """The keeper ended between the write and the signal: the files are as they should be, the server goes by others."""
    with Formation(nodes=2) as f:
        standby = f.secondary()
        file = os.path.join(standby.pgdata, "postgresql-pgvigil.conf")
        written = text_of(file)
        standby.kill()
        with open(file, "w") as settings:
            settings.write(re.sub("primary_conninfo = .*", "primary_conninfo = ''", written))
        standby.sql("SELECT pg_reload_conf()")
        f.wait_until(lambda: standby.sql(STREAMING) == "0", what="the standby is cut off")
        with open(file, "w") as settings:
            settings.write(written)
        standby.start()
        f.wait_until(lambda: standby.sql(STREAMING) == "1", 20, "the standby streams by what is written")
        f.wait_healthy()


def scenario_old_recovery_target():
    """What a recovery to a point in time has left in the primary's files is no target of its standbys."""
    with Formation(nodes=0) as f:
        first = made_by_hand(f, "first")
        append(os.path.join(first.pgdata, "postgresql.conf"), "recovery_target_time = '2001-01-01 00:00:00+00'\n")
        fill(f, first, "CREATE TABLE t (x int)", "ALTER SYSTEM SET recovery_target_time = '2001-01-01 00:00:00+00'")
        join(f, first)
        f.wait_state(first, "single")
        standby = f.add_node("second")
        f.wait_healthy()
        f.start_writers()
        first.sql("INSERT INTO t VALUES (1)")
        f.wait_until(lambda: standby.sql("SELECT count(*) FROM t") == "1", 20, "the standby replays")
        expect(standby.sql("SHOW recovery_target_time") == "", "it has a target")
        first.crash()
        f.wait_takeover(first)
        f.goes_on()
        expect(standby.sql("SELECT count(*) FROM t") == "1", "the row is gone")
        first.start()
        f.wait_healthy()
        f.check_acknowledged()


def scenario_upstream_by_alter_system():
    """A DBA sets a standby's primary_conninfo or primary_slot_name: without its name the primary's list is never satisfied."""
    with Formation(nodes=2) as f:
        standby = f.secondary()
        present = {name: standby.sql(f"SHOW {name}") for name in ("primary_conninfo", "primary_slot_name")}
        by_hand = {"primary_conninfo": re.sub("application_name=[^ ]*", "", present["primary_conninfo"]), "primary_slot_name": ""}
        expect(by_hand["primary_conninfo"] != present["primary_conninfo"], f"no name in {present}")
        for name, value in by_hand.items():
            quoted = value.replace("'", "''")
            standby.sql(f"ALTER SYSTEM SET {name} = '{quoted}'")
            standby.sql("SELECT pg_reload_conf()")
            f.wait_until(lambda: standby.sql(f"SHOW {name}") == present[name], 20, f"{name} is as it was")
            expect(name not in text_of(os.path.join(standby.pgdata, "postgresql.auto.conf")), "it comes back")
        f.start_writers()
        f.check_acknowledged()


def scenario_roles_that_were_there():
    """A copy of another formation's cluster: its roles get this one's passwords and rights. The passwords themselves are
    nowhere in what the servers log."""
    with Formation(nodes=0, auth="scram-sha-256") as f:
        first = made_by_hand(f, "first")
        append(os.path.join(first.pgdata, "postgresql.conf"), "log_transaction_sample_rate = 1\n")
        fill(f, first, "CREATE ROLE pgvigil_replicator LOGIN PASSWORD 'another'", "CREATE ROLE pgvigil_probe NOLOGIN")
        join(f, first)
        f.wait_state(first, "single")
        second = f.add_node("second")
        f.wait_healthy()
        second.crash()
        f.wait_state(first, "wait_primary")
        second.start()
        f.wait_healthy()

        f.run("stop", "--pgdata", f.monitor.pgdata)
        append(os.path.join(f.monitor.pgdata, "postgresql.conf"), "log_transaction_sample_rate = 1\n")
        f.create_monitor()
        f.wait_healthy()
        secrets = [line.split(":")[-1].strip() for line in text_of(os.path.join(first.state, "pgpass")).splitlines()]
        secrets.append(text_of(f.password_file).strip())
        for daemon in (first, f.monitor):
            log = text_of(os.path.join(daemon.state, "postgresql.log"))
            expect("SCRAM-SHA-256$" in log, f"{daemon.name} logs less than this test needs")
            expect(not any(secret in log for secret in secrets), f"{daemon.name} has logged a password")


def scenario_mount_point():
    """A file system's own directory has lost+found: initdb and pg_basebackup refuse it, and what is there is not given up for a
    copy that cannot be made."""
    with Formation(nodes=2) as f:
        standby = f.secondary()
        mounted = os.path.join(f.work, "mounted")
        os.makedirs(os.path.join(mounted, "lost+found"))
        words = f.create_args(standby)
        words[words.index("--pgdata") + 1] = mounted
        words[words.index("--state-directory") + 1] = mounted + "-state"
        refused = f.run(*words, check=False)
        expect(refused.returncode == 1 and "below the mount point" in refused.stderr, f"{refused}")
        expect(not os.path.exists(mounted + "-state"), "something was left")

        f.run("stop", "--pgdata", standby.pgdata)
        os.mkdir(os.path.join(standby.pgdata, "lost+found"))
        append(os.path.join(standby.state, "copy-in-progress"), "rewind\n")
        standby.start()
        f.wait_until(lambda: "below the mount point" in f.state()[standby.name]["reason"], what="show state says why it is not copied")
        expect(os.path.exists(os.path.join(standby.pgdata, "PG_VERSION")), "it was emptied")
        os.rmdir(os.path.join(standby.pgdata, "lost+found"))
        f.wait_healthy()
