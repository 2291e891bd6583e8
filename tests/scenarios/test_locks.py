"""Sessions that hold rows of the monitor's database: one group waits for them, the others do not."""
import contextlib
import os
import subprocess
import time

from commands import command, standbys
from formation import Formation, expect, text_of
from test_multi import Part

HOSTS = "one"  # the sessions are beside the monitor


@contextlib.contextmanager
def holding(f, user, statement, password_file=None, then=""):
    """A psql that leaves its transaction open, as a person does who goes to lunch; or does something else in it, which lasts."""
    env = dict(f.env)
    if password_file:
        env["PGPASSWORD"] = text_of(password_file).strip()
    host = "127.0.0.1" if password_file else f.monitor.state
    psql = subprocess.Popen(["psql", "-XAtq", "-h", host, "-p", str(f.monitor.port), "-U", user, "-d", "pgvigil"], env=env, text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        psql.stdin.write(f"BEGIN;\n{statement};\n\\echo held\n")
        psql.stdin.flush()
        told = psql.stdout.readline()
        while told and told != "held\n":
            expect("ERROR" not in told and "FATAL" not in told, f"{user} holds nothing: {told}")
            told = psql.stdout.readline()
        expect(told, f"psql as {user} has ended")
        psql.stdin.write(then)
        psql.stdin.flush()
        yield psql
    finally:
        psql.kill()
        psql.communicate()


def fails_over(f):
    former = f.primary()
    former.crash()
    return former


def comes_back(f, former):
    f.wait_takeover(former, seconds=30)
    former.start()
    f.wait_healthy()
    f.goes_on()


def told_of(f, words):
    return [line for line in text_of(f.monitor.log).splitlines() if words in line]


def scenario_held_rows():
    """Whoever holds the rows of one group: the other group's failover goes on as ever. What keepers and operators leave open is ended after some
    seconds; a session of the database's owner is only named."""
    with Part() as one:
        one.run("create", "formation", "--formation", "other", "--pgdata", one.monitor.pgdata)
        with Part("other", first=one) as other:
            for f in (one, other):
                f.start_writers()
            thief = standbys(one, one.primary())[0]
            number = one.state()[thief.name]["node_id"]
            credential = os.path.join(thief.state, "own-credential")
            name = one.primary().name
            for user, statement, password_file, then in (
                    (f"pgvigil_keeper_{number}", f"SELECT pgvigil.say_sslmode({number}, 'require')", credential, "SELECT pg_sleep(600);\n"),
                    ("pgvigil_node", f"SELECT pgvigil.set_node_candidate_priority('default', '{name}', 51)", one.password_file, "")):
                with holding(one, user, statement, password_file, then):
                    both = [fails_over(one), fails_over(other)]
                    comes_back(other, both[1])
                    comes_back(one, both[0])
                expect(len(told_of(one, f"of {user}")) == 1, f"the session of {user} is not named once: {told_of(one, user)}")
            with holding(one, one.owner(), "SELECT FROM pgvigil.grp WHERE formation = 'default' FOR UPDATE"):
                both = [fails_over(one), fails_over(other)]
                comes_back(other, both[1])
                one.wait_until(lambda: told_of(one, f"of {one.owner()}"), what="the log names the session")
            comes_back(one, both[0])
            expect(len(told_of(one, f"of {one.owner()}")) == 1, f"named more than once: {told_of(one, one.owner())}")
            expect("another monitor process" not in text_of(one.monitor.log), "its own backend was left behind with the lock of the process that decides")
            for f in (one, other):
                f.check_acknowledged()


WAITING = "FROM pg_stat_activity WHERE application_name = 'pgvigil' AND wait_event_type = 'Lock'"


def scenario_commands_at_held_rows():
    """A command that was told to have failed is not carried out when the rows are free again."""
    with Formation() as f:
        standby = f.secondary()
        before, quorum = f.state(), command(f, "get", "node", "replication-quorum", "--name", standby.name).stdout
        asked = (("drop", "node", "--force", "--name", standby.name), ("set", "node", "replication-quorum", "false", "--name", standby.name))
        for words in asked:
            with holding(f, f.owner(), "SELECT FROM pgvigil.grp FOR UPDATE"):
                done = command(f, *words, check=False)
                expect(done.returncode == 6 and "nothing was changed" in done.stderr, f"{done}")
        # Its session is lost while it waits: nobody knows.
        with holding(f, f.owner(), "SELECT FROM pgvigil.grp FOR UPDATE"):
            waiting = subprocess.Popen([f.pgvigil, *asked[0], "--pgdata", f.monitor.pgdata], env=f.env, stderr=subprocess.PIPE, text=True)
            f.wait_until(lambda: f.monitor.sql(f"SELECT pg_terminate_backend(pid) {WAITING}", database="pgvigil") == "t", what="the command waits")
            told = waiting.communicate(timeout=30)[1]
            expect(waiting.returncode == 6 and "may have been carried out" in told, f"{waiting.returncode}: {told}")
        time.sleep(2)
        expect({name: row["node_id"] for name, row in f.state().items()} == {name: row["node_id"] for name, row in before.items()}, "a node was dropped later")
        expect(command(f, "get", "node", "replication-quorum", "--name", standby.name).stdout == quorum, "a setting was changed later")
        f.wait_healthy()
