"""A node comes back, and WAL that it needs is not where PostgreSQL looks for it."""
import os
import shutil

from commands import command, crash_parted
from formation import Formation, Writer, expect, major, text_of


def switch_segments(node, count):
    """WAL without a checkpoint: a segment each."""
    for _ in range(count):
        node.sql("SELECT pg_logical_emit_message(true, 'pgvigil', 'x'), pg_switch_wal()")


def keep_little(f):
    """No checkpoint by itself, and nothing kept for others but by slots. Set by hand: pgvigil keeps more."""
    for node in f.nodes:
        for setting in ("max_wal_size = '8GB'", "checkpoint_timeout = '1h'", "wal_keep_size = 0", "min_wal_size = '32MB'"):
            node.sql(f"ALTER SYSTEM SET {setting}")
        node.sql("SELECT pg_reload_conf()")


def scenario_checkpoint_long_ago():
    """A primary under load has its last checkpoint far behind when it crashes. The next one has removed that WAL after its own first
    checkpoint; pg_rewind keeps it (an old one does not, and without it the recovery would wait for ever: a base backup then)."""
    with Formation(nodes=2) as f:
        Writer(f)
        keep_little(f)
        former, survivor = f.primary(), f.secondary()
        former.sql("CHECKPOINT")
        switch_segments(former, 6)
        end = former.sql("SELECT pg_current_wal_lsn()")
        f.wait_until(lambda: survivor.sql(f"SELECT bool_and(restart_lsn > '{end}') FROM pg_replication_slots") == "t",
                     what="nothing before that is kept for the primary")
        f.goes_on()
        oldest = "SELECT min(substr(name, 9)) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'"
        begins = survivor.sql(oldest)
        crash_parted(former, survivor)
        f.wait_takeover(former)

        def removed():
            survivor.sql("CHECKPOINT")
            return survivor.sql(oldest) > begins
        f.wait_until(removed, what="the new primary has removed WAL")
        former.start()
        f.wait_healthy()
        log = text_of(former.log)
        expect(int(major()) < 14 or "rewound" in log and "base backup" not in log.split("goal catchingup")[-1], "it was not rewound:\n" + log[-3000:])
        f.goes_on()
        f.check_acknowledged()


def scenario_source_made_later():
    """A standby crashed before the node was made that is the primary now: nobody has the WAL between any more."""
    with Formation(nodes=3) as f:
        Writer(f)
        keep_little(f)
        crashed = f.nodes[2] if f.primary() is not f.nodes[2] else f.nodes[1]
        other = next(node for node in f.nodes if node not in (f.primary(), crashed))
        f.primary().sql("CHECKPOINT")
        switch_segments(f.primary(), 2)
        f.goes_on()
        crashed.crash()
        command(f, "drop", "node", "--name", other.name)
        f.run("drop", "node", "--pgdata", other.pgdata, "--destroy", check=False)
        f.nodes.remove(other)
        later = f.add_node("later")
        f.wait_state(later, "secondary")
        f.writers[0].stop()  # it knows the first nodes
        command(f, "perform", "promotion", "--name", later.name)
        Writer(f)
        f.goes_on()
        crashed.start()
        f.wait_healthy()
        f.goes_on()
        f.check_acknowledged()


def scenario_two_promotions_in_a_segment():
    """A standby was away for both. Its next primary archives, and has renamed the segment in which the timeline between begins and
    ends: walsenders find it no more."""
    with Formation(nodes=3) as f:
        Writer(f)
        for node in f.nodes:
            archive = os.path.join(node.state, "archive")
            os.makedirs(archive)
            f.own(archive)
            node.sql("ALTER SYSTEM SET archive_mode = on")
            node.sql(f"ALTER SYSTEM SET archive_command = 'cp %p {archive}/%f'")
        for node in f.nodes:
            if node is not f.primary():
                f.run("perform", "restart", "--pgdata", node.pgdata, check=False)
        away = f.secondary()
        f.run("stop", "--pgdata", away.pgdata)
        for _ in range(2):
            former = f.primary()
            command(f, "perform", "switchover")
            f.wait_takeover(former)
            f.wait_until(lambda: len(f.in_state("secondary")) >= 1, what="the former primary follows")
        names = [name for name in os.listdir(os.path.join(f.primary().pgdata, "pg_wal")) if name.endswith(".partial")]
        expect(names, "no segment was renamed")
        away.start()
        f.wait_healthy()
        f.goes_on()
        f.check_acknowledged()


def scenario_crashed_behind_the_fork():
    """What a standby has is part of the next primary's history, and it takes long to start. pg_rewind would finish its recovery, write a
    checkpoint of its own in the middle of that history, and find that there is nothing to rewind."""
    with Formation(nodes=3) as f:
        Writer(f)
        f.goes_on()
        standby = f.secondary()
        standby.crash()
        f.goes_on()
        command(f, "perform", "switchover")
        f.wait_until(lambda: len(f.in_state("secondary")) >= 1, what="the former primary follows")
        f.goes_on()
        slow = os.path.join(standby.state, "slow")
        with open(os.path.join(standby.pgdata, "postgresql.auto.conf"), "a") as file:
            file.write(f"restore_command = 'test ! -e {slow} || sleep 12; false'\n")
        open(slow, "w").close()
        standby.start()
        f.wait_until(lambda: "goes on without its PostgreSQL" in text_of(standby.log), what="it is slow")
        f.wait_until(lambda: any(words in text_of(standby.log) for words in ("rewind to", "base backup from", "accepts no session yet")),
                     what="it waits, or is made anew")
        os.remove(slow)
        f.wait_healthy()
        log = text_of(standby.log).split(" starts in state ")[-1]
        expect("rewind to" not in log and "base backup" not in log, "it was not left to go on:\n" + log)
        f.goes_on()
        f.check_acknowledged()


def with_archive(f):
    """A second node, and an archive that both write to and read from."""
    one = f.nodes[0]
    f.wait_state(one, "single")
    archive = os.path.join(f.work, "archive")
    f.directory(archive)
    one.sql("ALTER SYSTEM SET archive_mode = on")
    one.sql(f"ALTER SYSTEM SET archive_command = 'cp %p {archive}/%f'")
    one.sql(f"ALTER SYSTEM SET restore_command = 'sleep 2; cp {archive}/%f %p'")  # long enough to be seen before it streams
    f.run("stop", "--pgdata", one.pgdata)
    one.start()
    f.add_node()
    f.wait_healthy()
    keep_little(f)
    return archive


def remove_up_to_now(f, node):
    """From the node itself, also what others need."""
    last = node.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")

    def removed():
        node.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
        switch_segments(node, 1)
        node.sql("CHECKPOINT")
        return last not in os.listdir(os.path.join(node.pgdata, "pg_wal"))
    f.wait_until(removed, what="the primary has removed WAL")
    return last


def remove_all_but_archived(f, node, archive):
    expect(remove_up_to_now(f, node) in os.listdir(archive), "it is not in the archive")


def scenario_wal_in_the_archive():
    """What the primary has removed meanwhile comes from the archive, for a standby that was away and for a former primary that has to be
    rewound: neither is copied. What the archive does not have either makes a copy necessary."""
    with Formation(nodes=1) as f:
        archive = with_archive(f)
        Writer(f, rate=50)
        f.goes_on()
        primary, standby = f.primary(), f.secondary()

        def back(node):
            size = os.path.getsize(node.log)
            node.start()
            f.wait_healthy()
            return text_of(node.log)[size:]
        f.run("stop", "--pgdata", standby.pgdata)
        f.wait_state(primary, "wait_primary")
        remove_all_but_archived(f, primary, archive)
        told = back(standby)
        expect("base backup" not in told, "the standby was copied:\n" + told)
        f.goes_on()
        crash_parted(primary, standby)
        f.wait_takeover(primary)
        remove_all_but_archived(f, standby, archive)
        told = back(primary)
        expect("comes from the archive" in told and "rewound" in told and "base backup" not in told, "it was not rewound:\n" + told)
        f.goes_on()
        f.run("stop", "--pgdata", primary.pgdata)
        f.wait_state(standby, "wait_primary")
        remove_all_but_archived(f, standby, archive)
        for name in os.listdir(archive):
            os.remove(os.path.join(archive, name))
        told = back(primary)
        expect("base backup" in told, "it was not copied:\n" + told)
        f.check_acknowledged()


def scenario_copy_that_cannot_begin():
    """A former primary with WAL of its own has to be copied, and cannot be: its pg_wal is the top of a file system. However often that is tried, what was
    kept at earlier incidents stays, and its own WAL is kept once."""
    with Formation(nodes=2) as f:
        f.start_writers()
        keep_little(f)
        former, survivor = f.primary(), f.secondary()
        f.goes_on()
        former.crash()
        f.wait_takeover(former)
        former.write_alone()
        remove_up_to_now(f, survivor)
        wal, elsewhere = os.path.join(former.pgdata, "pg_wal"), os.path.join(former.state, "wal")
        shutil.move(wal, elsewhere)
        os.symlink(elsewhere, wal)
        mark = os.path.join(elsewhere, "lost+found")
        os.mkdir(mark)
        diverged = os.path.join(former.state, "diverged")
        for number in "123":
            os.makedirs(os.path.join(diverged, number))
        for path in (diverged, elsewhere, *(os.path.join(diverged, number) for number in "123")):
            f.own(path)
        survivor.sql("ALTER SYSTEM SET log_statement = 'all'")
        survivor.sql("SELECT pg_reload_conf()")
        former.start()
        f.wait_until(lambda: "holds lost+found" in f.state()[former.name]["reason"], what="it says what is wrong")
        attempts = "pg_tablespace_location(oid) AS location"
        server_log = os.path.join(survivor.state, "postgresql.log")
        f.wait_until(lambda: text_of(server_log).count(attempts) >= 4, what="it is tried again and again")
        expect({"1", "2", "3"} <= set(os.listdir(diverged)), f"what was kept before is gone: {os.listdir(diverged)}")
        os.rmdir(mark)
        f.wait_healthy()
        expect("base backup from" in text_of(former.log), "it was not copied")
        sets = set(os.listdir(diverged))
        expect(sets == {"2", "3", "4"} and "README" in os.listdir(os.path.join(diverged, "4")), f"its own WAL was not kept once: {sets}")
        f.check_acknowledged()
