"""TLS of the monitor and of the nodes: on by itself, switched and given another certificate while it runs."""
import os
import shutil
import signal
import stat
import subprocess
import time

from formation import Daemon, Formation, expect, text_of, tool

HOSTS = "one"  # certificates are made for this address


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


def role_of(f, node, role, **how):
    """A session of one of pgvigil's roles with a node, as enter()."""
    with open(os.path.join(node.state, "pgpass")) as file:
        passwords = dict(line.strip().split(":")[3:] for line in file)
    words = {"host": node.host, "port": str(node.port), "user": role, "dbname": "postgres", **how}
    result = subprocess.run(["psql", "-X", "-A", "-t", " ".join(f"{key}={value}" for key, value in words.items()), "-c", "SELECT 1"],
                            env=dict(f.env, PGPASSWORD=passwords[role]), capture_output=True, text=True, timeout=30)
    return result.stdout.strip() or result.stderr


def encrypted(f):
    """Of the sessions of pgvigil's roles with all nodes: (encrypted ones, all). A standby has the probes of monitor and peers."""
    counts = [node.sql("SELECT count(*) FILTER (WHERE s.ssl) || ' ' || count(*) FROM pg_stat_ssl s JOIN pg_stat_activity USING (pid) "
                       "WHERE usename IN ('pgvigil_probe', 'pgvigil_replicator')").split() for node in f.nodes]
    return sum(int(count[0]) for count in counts), sum(int(count[1]) for count in counts)


def wait_all(f, on):
    def all_so():
        some, number = encrypted(f)
        streams = f.primary().sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
        return number >= 3 * len(f.nodes) - 2 and some == (number if on else 0) and streams == str(len(f.nodes) - 1)
    f.wait_until(all_so, what=f"probes and replication are {'all' if on else 'not'} encrypted")


def take_over_and_back(f):
    """While clients write, the primary is lost and comes back: replication in both directions, and a rewind."""
    f.start_writers()
    former = f.primary()
    former.crash()
    f.wait_takeover(former)
    former.start()
    f.wait_healthy()


def conninfo(f):
    return f.secondary().sql("SHOW primary_conninfo")


def scenario_nodes():
    """By itself, also through a failover, a rewind and a base backup."""
    with Formation() as f:
        f.wait_encrypted()
        f.wait_healthy()
        wait_all(f, True)
        expect("sslmode='require'" in conninfo(f), conninfo(f))
        expect("sslmode=require" in f.uri(), f.uri())
        for node in f.nodes:
            expect(role_of(f, node, "pgvigil_probe") == "1", "the probe does not come in")
            for role in ("pgvigil_probe", "pgvigil_replicator"):
                refused = role_of(f, node, role, sslmode="disable")
                expect("rejects connection" in refused, f"{role} comes in unencrypted: {refused}")
        take_over_and_back(f)
        third = f.add_node("third")
        f.wait_encrypted()
        f.wait_healthy()
        wait_all(f, True)
        hba = os.path.join(third.pgdata, "pg_hba.conf")
        before = os.stat(hba).st_mtime_ns
        third.kill()
        third.start()
        f.wait_healthy()
        expect(os.stat(hba).st_mtime_ns == before, "a keeper that starts again opens the door for a moment")
        # Its settings are pgvigil's: without them nobody could come in.
        third.sql("ALTER SYSTEM SET ssl = off")
        f.run("reload", "--pgdata", third.pgdata)
        f.wait_until(lambda: third.sql("SHOW ssl") == "on" and "ssl" not in open(os.path.join(third.pgdata, "postgresql.auto.conf")).read(),
                     what="ALTER SYSTEM is taken back")
        f.check_acknowledged()


def openssl(*words):
    subprocess.run(["openssl", *words], check=True, capture_output=True)


class Authority:
    """Signs certificates, as somebody's own does."""

    def __init__(self, f):
        self.f = f
        self.certificate, self.key = os.path.join(f.work, "ca.crt"), os.path.join(f.work, "ca.key")
        openssl("req", "-x509", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "10", "-subj", "/CN=authority",
                "-keyout", self.key, "-out", self.certificate)
        self.f.own(self.certificate)

    def options(self, name, host="127.0.0.1"):
        certificate, key, request, extension = (os.path.join(self.f.work, name + end) for end in (".crt", ".key", ".csr", ".ext"))
        openssl("req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=" + name, "-keyout", key, "-out", request)
        with open(extension, "w") as file:
            file.write(f"subjectAltName=DNS:{host},IP:{host}\n")  # libpq before 15 does not look at the second
        openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial", "-days", "10", "-extfile", extension,
                "-out", certificate)
        os.chmod(key, 0o600)
        for file in (certificate, key):
            self.f.own(file)
        return ["--server-cert", certificate, "--server-key", key, "--ssl-ca-file", self.certificate]


def count_given_up(node):
    """Sessions that the other side has ended before it said who it is."""
    log = text_of(os.path.join(node.state, "postgresql.log"))
    return log.count("connection received") - log.count("connection authorized")


def scenario_authority():
    """Certificates that everybody verifies; one that does not hold what it should cuts nobody off."""
    f = Formation(nodes=0)
    authority = Authority(f)
    f.monitor_options = authority.options("monitor")
    f.node_options = lambda node: authority.options(node.name, "127.0.0.2" if node.name == "wrong" else "127.0.0.1")
    with f:
        f.monitor_uri += f"?sslmode=verify-full&sslrootcert={authority.certificate}"
        one = f.add_node()
        f.wait_state(one, "single")
        f.add_node()
        f.wait_encrypted("verify-full")
        f.wait_healthy()
        wait_all(f, True)
        expect("sslmode='verify-full'" in conninfo(f) and f"sslrootcert='{authority.certificate}'" in conninfo(f), conninfo(f))
        uri = f.uri()
        expect("sslmode=verify-full" in uri and "sslrootcert=" in uri, uri)
        f.start_writers()
        wrong = f.add_node("wrong")
        f.wait_healthy()
        f.wait_until(lambda: "not reached by sslmode=verify-full" in open(wrong.log).read(), what="it says what is wrong")
        expect(f.state()["wrong"]["sslmode"] == "prefer", "the others are told to verify what cannot be verified")
        with open(os.path.join(wrong.pgdata, "postgresql.conf"), "a") as conf:
            conf.write("log_connections = on\n")
        wrong.kill_postmaster(signal.SIGHUP)
        f.wait_until(lambda: count_given_up(wrong) > 0, what="it tries again")
        begin = count_given_up(wrong)
        time.sleep(5)
        more = count_given_up(wrong) - begin
        expect(more <= 8, f"{more} sessions in 5 seconds")
        f.wait_healthy()
        f.run("enable", "ssl", "--pgdata", wrong.pgdata, *authority.options("right"))
        f.wait_encrypted("verify-full")
        f.wait_healthy()
        wait_all(f, True)
        key = os.path.join(f.work, "right.key")
        nonsense = os.path.join(f.work, "nonsense.crt")
        with open(nonsense, "w") as file:
            file.write("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
        for options, words in ((["--ssl-self-signed", "--ssl-ca-file", nonsense], "holds no certificate"),
                               (["--ssl-ca-file", nonsense], "holds no certificate"), (["--ssl-ca-file", "/nowhere"], "there is no"),
                               (["--server-cert", authority.certificate, "--server-key", key], "is not the key of"),
                               (["--server-cert", authority.certificate, "--server-key", "/nowhere"], "there is no"),
                               (["--ssl-self-signed", "--ssl-mode", "verify-full"], "--ssl-ca-file")):
            refused = f.run("enable", "ssl", "--pgdata", wrong.pgdata, *options, check=False)
            expect(refused.returncode == 1 and words in refused.stderr, f"{options}: {refused}")
        expect(f.run("config", "get", "ssl.ca_file", "--pgdata", wrong.pgdata).stdout.strip() == authority.certificate, "what was refused counts")
        expect(not os.path.exists(os.path.join(wrong.state, "server.crt")), "a certificate was made that nobody uses")
        os.chmod(key, 0o644)
        refused = f.run("enable", "ssl", "--pgdata", wrong.pgdata, "--server-cert", os.path.join(f.work, "right.crt"), "--server-key", key, check=False)
        expect(refused.returncode == 1 and "open to others" in refused.stderr, f"{refused}")
        f.check_acknowledged()


def scenario_client_certificates():
    """A password alone is not enough: whoever comes in as a node shows a certificate of the authority."""
    f = Formation(nodes=0)
    authority = Authority(f)
    f.monitor_options = authority.options("monitor") + ["--client-certificates", "required"]
    f.node_options = lambda node: authority.options(node.name) + ["--client-certificates", "required"]
    with f:
        f.monitor_uri += f"?sslmode=verify-full&sslrootcert={authority.certificate}"
        one = f.add_node()
        f.wait_state(one, "single")
        two = f.add_node()
        f.wait_encrypted("verify-full")
        f.wait_healthy()
        certificate = {"sslcert": os.path.join(f.work, two.name + ".crt"), "sslkey": os.path.join(f.work, two.name + ".key")}
        stranger = os.path.join(f.work, "stranger")
        openssl("req", "-x509", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "10", "-subj", "/CN=stranger",
                "-keyout", stranger + ".key", "-out", stranger + ".crt")
        os.chmod(stranger + ".key", 0o600)
        f.own(stranger + ".key")
        of_others = {"sslcert": stranger + ".crt", "sslkey": stranger + ".key"}
        for name, come_in in (("the monitor", lambda **how: enter(f, **how)), ("a node", lambda **how: role_of(f, one, "pgvigil_replicator", **how))):
            expect("requires a valid client certificate" in come_in(sslmode="require"), f"{name}: the password is enough: {come_in(sslmode='require')}")
            expect("unknown ca" in come_in(sslmode="require", **of_others), f"{name} takes anybody's certificate: {come_in(sslmode='require', **of_others)}")
            expect(come_in(sslmode="require", **certificate) in ("t", "1"), f"{name}: {come_in(sslmode='require', **certificate)}")
        expect(two.name in f.run("show", "state", "--pgdata", two.pgdata).stdout, "a node's own commands do not come in")
        take_over_and_back(f)
        wait_all(f, True)

        # Without one nothing begins. With the monitor's demand gone it comes in, and with its own certificate it follows.
        f.node_options = lambda node: ["--no-ssl"]
        bare = Daemon(f, "bare")
        refused = f.run(*f.create_args(bare), check=False)
        expect(refused.returncode != 0 and "client certificate" in refused.stderr, f"it is registered without a certificate: {refused}")
        for options in (["--ssl-self-signed"], ["--no-ssl"]):
            refused = f.run("create", "monitor", "--pgdata", f.monitor.pgdata, *options, "--client-certificates", "required", check=False)
            expect(refused.returncode == 1, f"nobody could show one: {refused}")
        f.run("enable", "ssl", "--pgdata", f.monitor.pgdata, *f.monitor_options[:-1], "none")
        expect(enter(f, sslmode="require") == "t", "it goes on asking")
        f.run("enable", "ssl", "--pgdata", f.monitor.pgdata, *f.monitor_options)
        expect("requires a valid client certificate" in enter(f, sslmode="require"), "it does not ask again")
        f.wait_healthy()
        f.check_acknowledged()


def scenario_switched_while_it_runs():
    """enable ssl and disable ssl, of monitor and nodes, without a restart and without a lost write."""
    f = Formation(nodes=0)
    f.monitor_options = ["--no-ssl"]
    f.node_options = lambda node: ["--no-ssl"]
    with f:
        f.wait_state(f.add_node(), "single")
        f.add_node()
        f.wait_healthy()
        f.start_writers()
        wait_all(f, False)
        pids = [daemon.postmaster() for daemon in [f.monitor] + f.nodes]
        elections = len(f.elections())
        authority = Authority(f)
        for options, sslmode in (([], "require"), (authority.options, "verify-full"), (["--ssl-self-signed"], "require")):
            for daemon in [f.monitor] + f.nodes:
                f.run("enable", "ssl", "--pgdata", daemon.pgdata, *(options(daemon.name) if callable(options) else options))
            f.wait_encrypted(sslmode)
            f.wait_healthy()
            wait_all(f, True)
            f.wait_until(lambda: f"sslmode='{sslmode}'" in conninfo(f), what=f"replication by sslmode={sslmode}")
            expect("rejects connection" in enter(f, sslmode="disable"), "the monitor lets in who does not encrypt")
            f.goes_on()
        # Another certificate in the same files.
        node = f.nodes[0]
        certificate, old = os.path.join(node.state, "server.crt"), os.path.join(f.work, "old.crt")
        shutil.copy(certificate, old)
        f.run("enable", "ssl", "--ssl-self-signed", "--pgdata", node.pgdata)
        shown = role_of(f, node, "pgvigil_probe", sslmode="verify-full", sslrootcert=certificate)
        expect(shown == "1", f"the command has ended, and the new certificate does not count: {shown}")
        refused = role_of(f, node, "pgvigil_probe", sslmode="verify-full", sslrootcert=old)
        expect("certificate verify failed" in refused, f"the old certificate is still used: {refused}")
        for daemon in f.nodes + [f.monitor]:
            f.run("disable", "ssl", "--pgdata", daemon.pgdata)
        f.wait_encrypted("prefer")
        f.wait_until(lambda: all(daemon.sql("SHOW ssl") == "off" for daemon in [f.monitor] + f.nodes), what="TLS is off")
        f.wait_healthy()
        # Sessions that are there stay encrypted; new ones are not.
        f.primary().sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
        f.wait_until(lambda: f.primary().sql("SELECT s.ssl FROM pg_stat_ssl s JOIN pg_stat_replication USING (pid) WHERE state = 'streaming'") == "f",
                     what="it streams unencrypted")
        f.wait_healthy()
        expect(pids == [daemon.postmaster() for daemon in [f.monitor] + f.nodes], "something was started anew")
        expect(len(f.elections()) == elections, "there was an election")
        f.check_acknowledged()


def scenario_own_certificate_of_a_cluster():
    """A cluster that has TLS keeps its certificate; its sessions are encrypted all the same."""
    with Formation(nodes=0) as f:
        one = Daemon(f, "one")
        subprocess.run([tool("initdb"), "-D", one.pgdata, "-k", "--auth=trust"], check=True, capture_output=True)
        authority = Authority(f)
        certificate, key = authority.options("mine")[1:4:2]
        with open(os.path.join(one.pgdata, "postgresql.conf"), "a") as file:
            file.write(f"ssl = on\nssl_cert_file = '{certificate}'\nssl_key_file = '{key}'\nunix_socket_directories = '{one.state}'\n")
        f.run(*f.create_args(one))
        one.start()
        f.nodes.append(one)
        f.wait_encrypted()
        f.add_node("two")
        f.wait_encrypted()
        f.wait_healthy()
        wait_all(f, True)
        expect(one.sql("SHOW ssl_cert_file") == certificate, f"it has another certificate: {one.sql('SHOW ssl_cert_file')}")
        expect(role_of(f, one, "pgvigil_probe", sslmode="verify-full", sslrootcert=authority.certificate) == "1", "it shows another certificate")
        f.run("drop", "node", "--pgdata", one.pgdata)


def certificate_for(f, path, days):
    """Another self-signed certificate in the place of one, good for so many days."""
    subprocess.run(["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", str(days), "-subj", "/CN=pgvigil",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path[:-3] + "key", "-out", path], check=True, capture_output=True)


def scenario_ending():
    """Who has a certificate that ends within 14 days says so wherever an operator looks, and no more once there is another one."""
    with Formation(nodes=1) as f:
        node = f.nodes[0]
        f.wait_state(node, "single")
        for daemon in (f.monitor, node):
            def seen(words, daemon=daemon):
                places = [f.run("status", "--pgdata", daemon.pgdata).stdout, f.run("status", "--pgdata", daemon.pgdata, "--json").stdout]
                if daemon is node:
                    places.append(f.run("show", "state", "--pgdata", f.monitor.pgdata).stdout)
                return [words in place for place in places]
            certificate = os.path.join(daemon.state, "server.crt")
            words = f"the certificate {certificate} ends on "
            for days, said in ((13, True), (15, False)):
                certificate_for(f, certificate, days)
                f.run("reload", "--pgdata", daemon.pgdata)
                f.wait_until(lambda: set(seen(words)) == {said}, what=f"{daemon.name} with {days} days left: {said} at all places, not {seen(words)}")
            expect(text_of(daemon.log).count(words) == 1, f"not once in the log of {daemon.name}")
