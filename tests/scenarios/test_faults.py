"""Each process crashes in turn; hangs; divergence; durability."""
import os
import random
import shutil
import signal
import subprocess
import threading
import time

from formation import Formation, ScenarioError, Writer, expect, text_of, tool


def settle(f, former=None):
    """Healthy again, the writer goes on, nothing acknowledged is lost."""
    f.wait_healthy()
    if former is not None:
        expect(f.primary() is not former, f"{former.name} is still the primary")
    f.goes_on()
    f.check_acknowledged()


def scenario_postmaster_of_primary():
    with Formation() as f:
        Writer(f)
        time.sleep(1)
        former = f.primary()
        former.kill_postmaster()
        f.wait_until(lambda: former.postmaster() is not None, what="PostgreSQL runs again")
        settle(f)


def scenario_postmaster_of_secondary():
    with Formation() as f:
        Writer(f)
        primary, secondary = f.primary(), f.secondary()
        secondary.kill_postmaster()
        time.sleep(1)
        settle(f)
        expect(f.primary() is primary, "the primary has changed without need")


def scenario_keepers():
    with Formation() as f:
        Writer(f)
        primary, secondary = f.primary(), f.secondary()
        pids = primary.postmaster(), secondary.postmaster()
        for node in (primary, secondary):
            node.kill()
            time.sleep(4.5)  # longer than unhealthy_after: PostgreSQL is well, so nothing may happen to the role
            expect(f.primary() is primary, "a dead keeper alone made a failover")
            node.start()
            f.wait_healthy()
        expect((primary.postmaster(), secondary.postmaster()) == pids, "a PostgreSQL was restarted")
        settle(f)


def scenario_monitor_process():
    with Formation() as f:
        Writer(f)
        former = f.primary()
        f.monitor.kill()
        time.sleep(1)
        f.monitor.start()
        time.sleep(1)
        former.crash()
        f.wait_takeover(former)
        former.start()
        settle(f, former)


def scenario_asked_while_nobody_decides():
    """The monitor's process is dead, and its PostgreSQL takes commands. One that nobody heard in its time is refused later, a recent one is carried out."""
    with Formation() as f:
        standby = f.secondary()

        def request(what):
            return f.monitor.sql(f"SELECT {what} FROM pgvigil.request ORDER BY id DESC LIMIT 1", database="pgvigil")

        def ask_nobody(drain_ms):
            f.run("set", "formation", "settings", "drain_ms", drain_ms, "--pgdata", f.monitor.pgdata)
            f.monitor.kill()
            asked = f.run("enable", "maintenance", "--name", standby.name, "--wait", "1", "--pgdata", f.monitor.pgdata, check=False)
            expect(asked.returncode == 12 and "drain_ms" in asked.stderr, f"{asked}")
        ask_nobody(1000)
        f.wait_until(lambda: request("at < now() - interval '1 second'") == "t", what="it was asked long ago")
        f.monitor.start()
        f.wait_until(lambda: request("status") == "refused", what="it is refused")
        expect("no monitor was there" in request("message") and "asked long ago" in text_of(f.monitor.log), request("message"))
        f.wait_healthy()
        expect("start_maintenance" not in [event["rule_name"] for event in f.events()], "it was carried out")
        ask_nobody(60000)
        f.monitor.start()
        f.wait_state(standby, "maintenance")


def scenario_monitor_postgres():
    with Formation() as f:
        Writer(f)
        former = f.primary()
        f.monitor.kill_postmaster()
        time.sleep(2)
        f.wait_until(lambda: f.in_state("primary") == [former.name], what="the monitor is back and nothing has changed")
        former.crash()
        f.wait_takeover(former)
        former.start()
        settle(f, former)


def writes(node):
    """A commit is acknowledged."""
    try:
        return node.formation.program(node.psql("CREATE TABLE IF NOT EXISTS commits (); INSERT INTO commits DEFAULT VALUES"), seconds=10).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def scenario_monitor_lost():
    """Cut off from the monitor only, a synchronous primary goes on, for longer than a lease."""
    with Formation() as f:
        writer = Writer(f)
        primary = f.primary()
        f.monitor.crash()
        time.sleep(14)
        expect(primary.postmaster() is not None and primary.sql("SELECT pg_is_in_recovery()") == "f", "the primary has stopped")
        before = int(primary.sql("SELECT count(*) FROM vigil_ids"))
        f.wait_until(lambda: int(primary.sql("SELECT count(*) FROM vigil_ids")) > before, what="writes go on")
        f.monitor.start()
        settle(f)
        expect(f.primary() is primary and writer.summary["longest_gap_ms"] < 5000, f"writes stopped: {writer.summary}")


def scenario_restarts_without_a_monitor():
    """There is no monitor, and there will be none for long: a synchronous primary whose keeper starts anew goes on, and after a power failure one
    starts and writes as soon as its standbys are there."""
    with Formation() as f:
        Writer(f)
        primary, secondary = f.primary(), f.secondary()
        f.monitor.crash()
        postmaster = primary.postmaster()
        primary.kill()
        primary.start()
        time.sleep(14)
        expect(primary.postmaster() == postmaster, "the keeper has stopped its PostgreSQL")
        f.wait_until(lambda: writes(primary), what="writes go on")
        for node in (primary, secondary):
            node.crash()
        for node in (secondary, primary):
            node.start()
        f.wait_until(lambda: primary.postmaster() and writes(primary), 60, "the primary has started without a monitor, and takes writes")
        time.sleep(14)
        expect(writes(primary), "it takes no writes any more")
        f.monitor.start()
        settle(f)
        expect(f.primary() is primary and not f.elections(), f"the primary was replaced: {f.elections()}")


def scenario_cut_off_from_everybody():
    """Without monitor and standby the primary stops by itself, until one of them is back."""
    with Formation() as f:
        Writer(f)
        f.goes_on()
        primary, secondary = f.primary(), f.secondary()
        f.monitor.crash()
        secondary.crash()
        f.wait_until(lambda: primary.postmaster() is None, 40, "the primary fences itself")
        time.sleep(15)
        expect(primary.postmaster() is None, "it runs, and there is nobody to confirm its commits")
        secondary.start()
        f.wait_until(lambda: primary.postmaster() and writes(primary), 60, "the standby is back, and the primary takes writes again")
        time.sleep(14)
        expect(writes(primary), "it takes no writes any more")
        secondary.crash()
        f.wait_until(lambda: primary.postmaster() is None, 40, "the primary fences itself again")
        f.monitor.start()
        secondary.start()
        settle(f)


def scenario_whole_node():
    with Formation() as f:
        Writer(f)
        for _ in range(3):
            time.sleep(1)
            former = f.primary()
            former.crash()
            f.wait_takeover(former)
            time.sleep(0.5)
            former.start()
            f.wait_healthy()
        f.check_acknowledged()


def scenario_hung_primary():
    with Formation() as f:
        Writer(f)
        time.sleep(1)
        former = f.primary()
        former.signal_postgres(signal.SIGSTOP)
        f.wait_takeover(former)
        settle(f, former)


def scenario_hung_primary_comes_back():
    """It wakes up after another has taken over: its keeper must not be there to help."""
    with Formation() as f:
        Writer(f)
        time.sleep(1)
        former = f.primary()
        former.signal_postgres(signal.SIGSTOP)
        former.kill(signal.SIGSTOP)
        f.wait_takeover(former)
        time.sleep(1)
        former.signal_postgres(signal.SIGCONT)
        # With its keeper still stopped, the old primary answers; the commit waits for a standby that has left it.
        expect(former.sql("SELECT pg_is_in_recovery()") == "f", "it is a standby by itself")
        try:
            former.sql("INSERT INTO vigil_ids (id) VALUES (-1)", seconds=3)
            raise ScenarioError("two nodes acknowledge writes")
        except subprocess.TimeoutExpired:
            pass
        former.kill(signal.SIGCONT)
        settle(f, former)


def scenario_divergence():
    """The old primary has local commits that nobody else has; it is rewound."""
    with Formation() as f:
        Writer(f)
        former = f.primary()
        former.kill(signal.SIGSTOP)
        f.secondary().kill(signal.SIGSTOP)
        survivor = f.secondary()
        # A commit that waits for its standby, which receives nothing any more, not even later: it stays local.
        survivor.kill_postmaster(signal.SIGSTOP)
        survivor.signal_postgres(signal.SIGSTOP)
        former.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
        f.wait_until(lambda: former.sql("SELECT count(*) FROM pg_stat_replication") == "0", what="nothing is sent")
        waiting = f.begin(former.psql("CREATE TABLE only_here (x int)"))
        time.sleep(0.5)
        former.kill_postmaster()
        former.kill(signal.SIGKILL)
        waiting.wait(10)
        survivor.signal_postgres(signal.SIGCONT)
        survivor.kill(signal.SIGCONT)
        f.wait_takeover(former)
        time.sleep(1)
        former.start()
        settle(f, former)
        with open(former.log) as log:
            text = log.read()
        expect("rewound" in text and "base backup" not in text.split("rewound")[0][-2000:], "the old primary was not rewound:\n" + text[-2000:])


def scenario_rewind_of_a_crashed_standby():
    """It does not even start as one in time: its recovery is finished by the rewind, which wants no standby."""
    with Formation() as f:
        Writer(f)
        former = f.primary()
        former.crash()
        f.wait_takeover(former)
        # Records of its own after the end that the new primary knows.
        server = f.begin([tool("postgres"), "-D", former.pgdata, "-c", "synchronous_standby_names="], former.name)
        f.wait_until(lambda: f.program(former.psql("CREATE TABLE only_here AS SELECT generate_series(1, 1000)")).returncode == 0, what="it runs by hand")
        server.kill()
        server.wait()
        slow = os.path.join(former.state, "slow")
        for name, text in (("standby.signal", ""), ("postgresql.auto.conf", f"restore_command = 'test ! -e {slow} || sleep 20; false'\n")):
            path = os.path.join(former.pgdata, name)
            with open(path, "a") as file:
                file.write(text)
            os.chmod(path, 0o600)
        open(slow, "w").close()
        former.start()
        f.wait_until(lambda: any(word in text_of(former.log) for word in ("rewound", "base backup from")), what="it is rewound or copied")
        os.remove(slow)
        settle(f, former)
        expect("rewound" in text_of(former.log) and "single-user" not in text_of(former.log), "it was not rewound:\n" + text_of(former.log)[-2000:])


def scenario_switchover_under_load():
    with Formation() as f:
        Writer(f)
        for _ in range(4):
            time.sleep(0.5)
            former = f.primary()
            f.switchover()
            f.wait_healthy()
            expect(f.primary() is not former, "the primary has not changed")
        f.check_acknowledged()


def scenario_switchover_to_a_node_that_is_not_there():
    """What the monitor knows of the candidate is a second old: its server has stopped meanwhile, and never gets what the old primary writes at
    its own stop. The old primary goes on at once, and is not taken for lost because it was silent as ordered."""
    with Formation() as f:
        Writer(f)
        primary, secondary = f.primary(), f.secondary()
        f.goes_on(primary)
        term = f.term()
        secondary.kill(signal.SIGSTOP)  # its keeper
        secondary.kill_postmaster(signal.SIGINT)
        f.wait_until(lambda: secondary.postmaster() is None, what="the candidate's PostgreSQL stops")
        asked = f.ask("perform", "promotion", "--name", secondary.name, "--pgdata", f.monitor.pgdata)
        f.wait_state(primary, "draining")
        secondary.kill(signal.SIGCONT)
        f.goes_on(primary, seconds=30)  # the hand-over would be given up after 60 s anyway
        settle(f)
        expect(f.term() == term and f.primary() is primary, "there was an election")
        asked.wait(90)


def scenario_secondary_lost_asynchronous():
    with Formation() as f:
        Writer(f)
        primary, secondary = f.primary(), f.secondary()
        secondary.crash()
        f.wait_state(primary, "wait_primary")
        before = int(primary.sql("SELECT count(*) FROM vigil_ids"))
        f.wait_until(lambda: int(primary.sql("SELECT count(*) FROM vigil_ids")) > before + 10, what="asynchronous writes go on")
        events = f.run("show", "events", "--count", "20", "--pgdata", f.monitor.pgdata).stdout
        expect("without a synchronous standby" in events, "nobody was told:\n" + events)
        secondary.start()
        settle(f)


def scenario_secondary_lost_synchronous():
    """number_sync_standbys = 1: writes block rather than lose."""
    with Formation() as f:
        f.run("set", "formation", "number-sync-standbys", "1", "--pgdata", f.monitor.pgdata)
        Writer(f)
        time.sleep(1)
        primary, secondary = f.primary(), f.secondary()
        secondary.crash()
        time.sleep(6)
        expect(f.primary() is primary and primary.sql("SHOW synchronous_standby_names") != "", "the names were given up")
        before = primary.sql("SELECT count(*) FROM vigil_ids")
        time.sleep(1.5)
        expect(primary.sql("SELECT count(*) FROM vigil_ids") == before, "a write was acknowledged without its standby")
        secondary.start()
        settle(f)


def scenario_primary_lost_after_the_secondary():
    """Asynchronous, the last node dies: nobody is promoted with less than everything; an operator may choose to."""
    with Formation() as f:
        primary, secondary = f.primary(), f.secondary()
        secondary.crash()
        f.wait_state(primary, "wait_primary")
        primary.sql("CREATE TABLE late AS SELECT 1 AS x")
        primary.crash()
        secondary.start()
        time.sleep(6)
        expect(f.state()[secondary.name]["assigned_group_state"] not in ("wait_primary", "primary", "single"), "a node without the last commits was promoted")
        f.run("perform", "failover", "--allow-data-loss", "--pgdata", f.monitor.pgdata)
        f.wait_takeover(primary)
        primary.start()
        f.wait_healthy()


def scenario_keeper_killed_in_transitions():
    """kill -9 of a keeper at random moments of switchovers; a new one goes on where it stopped."""
    generator = random.Random(20261121)
    with Formation() as f:
        Writer(f)
        for _ in range(10):
            victim = generator.choice(f.nodes)
            asked = f.ask("perform", "switchover", "--pgdata", f.monitor.pgdata, "--wait", "30")
            time.sleep(generator.uniform(0.0, 0.5))
            victim.kill()
            time.sleep(generator.uniform(0.0, 0.5))
            victim.start()
            asked.wait(60)
            f.wait_healthy()
        f.check_acknowledged()


def scenario_keeper_killed_in_base_backup():
    with Formation(nodes=1) as f:
        f.wait_state(f.nodes[0], "single")
        f.nodes[0].sql("CREATE TABLE bulk AS SELECT repeat('x', 1000) AS t FROM generate_series(1, 200000)")
        two = f.add_node()
        f.wait_until(lambda: os.path.exists(os.path.join(two.state, "copy-in-progress")), what="the base backup has begun")
        two.kill()
        two.start()
        f.wait_healthy()
        expect(two.sql("SELECT count(*) FROM bulk") == "200000", "the copy is incomplete")


def scenario_copy_with_wal_elsewhere():
    """pg_wal is a link to another disk: a base backup leaves it one, also when it breaks off, and waits for a disk that is not there."""
    with Formation(nodes=2) as f:
        Writer(f, rate=100)
        f.goes_on()
        two = f.secondary()
        link, disk = os.path.join(two.pgdata, "pg_wal"), os.path.join(f.work, "disk", "wal")
        marker = os.path.join(two.state, "copy-in-progress")
        two.crash()
        f.directory(os.path.dirname(disk))
        shutil.move(link, disk)
        os.symlink(disk, link)
        with open(marker, "w") as file:
            file.write("rewind\n")  # one that broke off: a base backup follows
        os.rename(disk, disk + ".away")
        two.start()
        f.wait_until(lambda: "is its disk mounted?" in f.state()[two.name]["reason"], what="show state says that the disk is missing")
        expect(os.path.islink(link) and os.path.exists(two.pgdata + "/PG_VERSION"), "something was removed")
        os.rename(disk + ".away", disk)
        f.wait_until(lambda: "pg_wal " in text_of(marker) and not os.path.exists(two.pgdata + "/PG_VERSION"), what="the base backup has begun")
        two.kill()
        if os.path.islink(link):
            os.unlink(link)  # as between the removal of the old cluster and the first steps of the copy
        two.start()
        f.wait_healthy()
        expect(os.path.islink(link) and os.readlink(link) == disk, "pg_wal is not the link that it was")
        expect(any(len(name) == 24 for name in os.listdir(disk)), f"its WAL is not there: {os.listdir(disk)}")
        f.switchover()
        f.goes_on(two)
        f.check_acknowledged()


def scenario_rto_script():
    with Formation() as f:
        Writer(f)
        time.sleep(0.5)
        pids = {node.name: node for node in f.nodes}
        crash = os.path.join(f.work, "crash.sh")
        with open(crash, "w") as file:
            file.write("set -e\ncase $1 in\n")
            for name, node in pids.items():
                file.write(f"{name}) kill -9 $(head -1 {node.pgdata}/postmaster.pid) $(cat {node.state}/pid);;\n")
            file.write("esac\n")
        former = f.primary()
        here = os.path.dirname(os.path.abspath(__file__))
        rto = os.environ.get("PGVIGIL_RTO_SCRIPT", os.path.join(here, "..", "..", "scripts", "test_pg_failover.sh"))
        asked = os.path.join(f.work, "start")

        def start():
            f.wait_until(lambda: os.path.exists(asked), 200, "the script starts the node")
            former.process.wait(10)
            former.start()
        starter = threading.Thread(target=start, daemon=True)
        starter.start()
        with open(f.password_file) as file:
            password = file.read().strip()
        env = dict(f.env, PGVIGIL=f.pgvigil, MONITOR_URI=f.monitor_uri, PGPASSWORD=password, STOP_COMMAND=f"bash {crash} {{name}}", START_COMMAND=f"touch {asked}")

        def script(env, *options):
            return f.program(["bash", rto, *options], seconds=240, env=env)
        result = script(env)
        expect(result.returncode == 0 and "PASS" in result.stdout, f"exit {result.returncode}: {result.stdout}{result.stderr}")
        starter.join()
        unhealthy = script(dict(env, FORMATION="none"))
        expect(unhealthy.returncode == 1, f"an unhealthy baseline: exit {unhealthy.returncode}")
        missing = script(dict(env, PGVIGIL="/nonexistent"))
        expect(missing.returncode == 3, f"a missing tool: exit {missing.returncode}")
        nothing = dict(env, STOP_COMMAND="true", RTO_TARGET_SECONDS="1")  # it stops nothing, and nobody is promoted
        late = script(nothing)
        expect(late.returncode == 2 and "no promotion within 1 s" in late.stdout, f"no promotion: exit {late.returncode}: {late.stdout}{late.stderr}")
        for option in ("--monitor", "--stop-command", "--start-command"):
            bare = script(env, option)
            expect(bare.returncode == 3 and f"{option} needs a value" in bare.stderr, f"{option} alone: exit {bare.returncode}: {bare.stderr}")
        f.check_acknowledged()
