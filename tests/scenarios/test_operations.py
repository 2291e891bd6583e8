"""What takes a keeper long: recovery, checkpoints, promotions, stops, copies."""
import os
import signal
import socket
import struct
import threading
import time

from formation import Formation, expect, text_of, tool
from test_hangs import hang, wait_part


def scenario_recovery_is_not_replaced_by_a_copy():
    """A standby has received far more than it has replayed, and its host starts anew: the primary keeps WAL for it from where it ends, not from
    where its control file says that it is. It is let finish."""
    with Formation(nodes=2) as f:
        f.start_writers()
        primary, standby = f.primary(), f.secondary()
        primary.sql("ALTER SYSTEM SET wal_keep_size = 0")
        primary.sql("SELECT pg_reload_conf()")
        standby.sql("CHECKPOINT")
        standby.sql("SELECT pg_wal_replay_pause()")
        replayed = standby.sql("SELECT pg_last_wal_replay_lsn()")
        first = primary.sql(f"SELECT pg_walfile_name('{replayed}')")

        def removed():
            primary.sql("SELECT pg_switch_wal()")
            primary.sql("CHECKPOINT")
            return first not in os.listdir(os.path.join(primary.pgdata, "pg_wal"))
        f.wait_until(removed, what="the primary has removed WAL that the standby has not replayed")
        standby.crash()
        slow = os.path.join(standby.state, "slow")
        with open(os.path.join(standby.pgdata, "postgresql.auto.conf"), "a") as file:
            file.write(f"restore_command = 'while test -e {slow}; do sleep 0.1; done; false'\n")
        open(slow, "w").close()
        f.run("config", "set", "timeouts.start", "2", "--pgdata", standby.pgdata)
        size = os.path.getsize(standby.log)
        standby.start()
        f.wait_until(lambda: "goes on without its PostgreSQL" in text_of(standby.log)[size:], what="it is not ready for sessions in time")
        recovering = standby.postmaster()
        f.wait_until(lambda: "accepts no session" in f.state()[standby.name]["reason"] or "base backup" in text_of(standby.log)[size:], what="it is said why")
        os.remove(slow)
        f.wait_healthy()
        expect("base backup" not in text_of(standby.log)[size:], "it was copied anew:\n" + text_of(standby.log)[size:])
        expect(standby.postmaster() == recovering, "the recovery was begun anew")
        f.check_acknowledged()


def make_impatient(f, node):
    for key, value in (("timeouts.stop", "2"), ("timeouts.switchover_on_stop", "3")):
        f.run("config", "set", key, value, "--pgdata", node.pgdata)
    f.run("reload", "--pgdata", node.pgdata)


def stop_in_time(f, node):
    """The keeper ends, and its PostgreSQL with it."""
    node.process.send_signal(signal.SIGTERM)
    f.wait_until(lambda: not node.running(), 40, f"the keeper of {node.name} ends")
    f.wait_until(lambda: node.postmaster() is None, 3, "PostgreSQL does not go on without its keeper")


def scenario_stop_during_a_checkpoint():
    """The hand-over of a primary that is stopped begins with a checkpoint; one that does not end must not keep it from stopping."""
    with Formation(nodes=2) as f:
        f.start_writers()
        primary = f.primary()
        make_impatient(f, primary)
        os.kill(wait_part(f, primary, "checkpointer"), signal.SIGSTOP)
        stop_in_time(f, primary)
        f.wait_takeover(primary)
        f.goes_on()
        primary.start()
        f.wait_healthy()
        f.check_acknowledged()


def scenario_stop_during_a_promotion():
    """It was asked for and does not end. What may have happened is in the state file: with the other node still away, this one goes on with it."""
    with Formation(nodes=2) as f:
        f.start_writers()
        former, candidate = f.primary(), f.secondary()
        make_impatient(f, candidate)
        os.kill(wait_part(f, candidate, "startup"), signal.SIGSTOP)
        former.crash()
        f.wait_until(lambda: f.state()[candidate.name]["assigned_group_state"] == "wait_primary", what="the order to take over")
        f.wait_until(lambda: os.path.exists(os.path.join(candidate.pgdata, "promote")), what="the promotion is asked for")
        stop_in_time(f, candidate)
        candidate.start()
        f.wait_state(candidate, "wait_primary")
        f.goes_on()
        former.start()
        f.wait_healthy()
        f.check_acknowledged()


def switchover_in_time(f, seconds=45):
    """The old primary follows as it is."""
    former, term, begin = f.primary(), f.term(), time.monotonic()
    size = os.path.getsize(former.log)
    f.switchover()
    f.wait_takeover(former)
    took = time.monotonic() - begin
    expect(took < seconds, f"the switchover took {took:.1f} s")
    f.wait_healthy()
    log = text_of(former.log)[size:]
    expect("base backup from" not in log and "rewound" not in log, f"the old primary could not follow as it was:\n{log}")
    expect(f.term() == term + 1, "it was no plain hand-over")
    f.goes_on()
    return log


def scenario_switchover_with_a_receiver_that_hangs():
    """Somebody else receives WAL and does not answer: PostgreSQL would not end before he does."""
    with Formation(nodes=2) as f:
        f.start_writers()
        primary = f.primary()
        primary.sql("ALTER SYSTEM SET wal_sender_timeout = '5min'")
        primary.sql("SELECT pg_reload_conf()")
        archive = os.path.join(f.work, "archive")
        f.directory(archive)
        receiver = f.begin([tool("pg_receivewal"), "-D", archive, "-h", primary.state, "-p", str(primary.port)])
        try:
            f.wait_until(lambda: primary.sql("SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pg_receivewal' AND state = 'streaming'")
                         == "1", what="it receives")
            receiver.send_signal(signal.SIGSTOP)
            f.goes_on()
            switchover_in_time(f)
        finally:
            receiver.kill()
            receiver.wait()
        f.check_acknowledged()


def scenario_switchover_with_an_archiver_that_hangs():
    with Formation(nodes=1) as f:
        one = f.nodes[0]
        f.wait_state(one, "single")
        slow = os.path.join(f.work, "slow")
        one.sql("ALTER SYSTEM SET archive_mode = on")
        one.sql(f"ALTER SYSTEM SET archive_command = 'test ! -e {slow} || sleep 600'")
        f.run("stop", "--pgdata", one.pgdata)
        one.start()
        f.add_node()
        f.wait_healthy()
        f.start_writers()
        with open(slow, "w"):
            f.primary().sql("SELECT pg_switch_wal()")
        log = switchover_in_time(f)
        expect("not archived" in log, f"nobody is told what is missing in the archive:\n{log}")
        os.remove(slow)
        f.check_acknowledged()


def scenario_switchover_to_a_slow_candidate():
    """It gets all WAL, however long it takes."""
    with Formation(nodes=2) as f:
        f.start_writers()
        primary, candidate = f.primary(), f.secondary()
        asked = []

        def switchover():
            # More than what is on its way in a socket.
            primary.sql("SET synchronous_commit = local; CREATE TABLE much AS SELECT repeat('x', 1000) FROM generate_series(1, 30000)")
            asked.append(f.ask("perform", "switchover", "--pgdata", f.monitor.pgdata))
            f.wait_until(lambda: f.in_state("draining") or "draining" in [row["assigned_group_state"] for row in f.state().values()], what="it drains")
        term = f.term()
        hang([wait_part(f, candidate, "walreceiver")], 6, meanwhile=switchover)
        expect(asked[0].wait(60) == 0, "the switchover failed")
        f.wait_healthy()
        expect(f.primary() is candidate and f.term() == term + 1, "it was no plain hand-over")
        f.check_acknowledged()


class Crowd:
    """Clients that take every free session, wait in it, and go on asking: what others give back in between, they take too."""

    def __init__(self, f, node, role):
        words = b"user\0" + role.encode() + b"\0database\0postgres\0\0"
        self.f, self.node, self.hello = f, node, struct.pack("!ii", 8 + len(words), 3 << 16) + words
        self.sessions, self.refused = [], 0
        self.leave = threading.Event()
        self.thread = threading.Thread(target=self.crowd, daemon=True)
        self.thread.start()

    def crowd(self):
        if self.f.network:
            self.f.network.visit("client")
        while not self.leave.is_set():
            session = socket.create_connection((self.node.host, self.node.port), timeout=10)
            session.sendall(self.hello)
            try:
                answer = session.recv(1000)
            except ConnectionResetError:  # more came at once than the postmaster answers
                answer = b""
            full = b"C53300\0" in answer  # also after the role was let in, where the last ones are a superuser's
            if answer[:1] == b"R" and not full:
                self.sessions.append(session)
                continue
            session.close()
            self.refused += full
            self.leave.wait(0.02)

    def end(self):
        self.leave.set()
        self.thread.join()
        for session in self.sessions:
            session.close()


def scenario_return_to_a_primary_without_free_sessions():
    """Clients that wait for the quorum have taken them all, and end only when the old primary is back."""
    with Formation(nodes=1) as f:
        one = f.nodes[0]
        f.wait_state(one, "single")
        one.sql("ALTER SYSTEM SET max_connections = 20")
        one.sql("CREATE ROLE app LOGIN")
        f.run("stop", "--pgdata", one.pgdata)
        one.start()
        f.add_node()
        f.wait_healthy()
        f.run("set", "formation", "number-sync-standbys", "1", "--pgdata", f.monitor.pgdata)
        f.start_writers()
        former = f.primary()
        former.crash()
        primary = f.wait_takeover(former)
        crowd = Crowd(f, primary, "app")
        f.wait_until(lambda: crowd.refused, what="no session is free")
        before, taken = crowd.refused, len(crowd.sessions)
        former.start()
        f.wait_healthy(90)
        expect(f.primary() is primary, "another primary")
        expect(taken >= 10 and crowd.refused - before > 10, f"there were free sessions: this proves nothing: {taken} taken, {crowd.refused - before} refused")
        crowd.end()
        f.goes_on()
        f.check_acknowledged()
