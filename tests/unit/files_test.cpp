// Files that people and PostgreSQL read: configuration, settings, HBA, timeline history, the keeper's state, connection
// strings. Hostile input too.
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "common/config/config.hpp"
#include "common/config/values.hpp"
#include "common/model/goal.hpp"
#include "common/monitor_api/legible.hpp"
#include "common/monitor_api/monitor_api.hpp"
#include "common/os/file.hpp"
#include "common/pg/conninfo.hpp"
#include "common/postgres/config_files.hpp"
#include "common/postgres/data_directory.hpp"
#include "keeper/actions/copy_marker.hpp"

using namespace pgvigil;
namespace fs = std::filesystem;

namespace {

struct Directory {
  fs::path path;
  Directory() {
    char name[] = "/tmp/pgvigil-unit.XXXXXX";
    path = ::mkdtemp(name);
  }
  ~Directory() { fs::remove_all(path); }
};

std::string content(const fs::path& path) {
  return os::read_file(path).value_or("(none)");
}

std::string config_error(const std::string& text) {
  try {
    config::parse(text, "/etc/node.toml");
  } catch (const UserError& error) {
    CHECK(error.code == ExitCode::bad_config);
    return error.what();
  }
  return "accepted";
}

const std::string good =
    "[node]\nrole = \"keeper\"\nstate_directory = \"/s\"\n[monitor]\nuri = "
    "\"postgres://m/pgvigil\"\n[postgresql]\npgdata = \"/d\"\n";

}  // namespace

TEST_CASE("configuration: round trip") {
  config::Config config = config::parse(good, "/etc/node.toml");
  config.name = "quo\"te\\d";
  config.port = 6432;
  config.manage_hba = false;
  const config::Config again = config::parse(config::to_toml(config), config.file);
  CHECK(again == config);
  for (const std::string& key : config::keys()) CHECK(config::get(again, key) == config::get(config, key));
  CHECK(config::config_path_for("/srv/pg-a") != config::config_path_for("/srv/pg_a"));
}

TEST_CASE("configuration: found by its name, and by what stands in it") {
  Directory d;
  ::setenv("PGVIGIL_CONFIG_DIR", d.path.c_str(), 1);
  const fs::path usual = config::config_path_for("/d");
  CHECK(usual.parent_path() == d.path);
  CHECK(config::config_path_for("/d/") == usual);
  CHECK(config::config_path_for("/d", std::string("main")) == d.path / "main.toml");
  CHECK(config::config_named("main.toml") == d.path / "main.toml");
  CHECK(config::config_named("/etc/pgvigil/main.toml") == "/etc/pgvigil/main.toml");
  os::write_file_atomic(d.path / "broken.toml", "[", 0600);
  config::Config main = config::parse(good, d.path / "main.toml");
  config::save(main);
  CHECK(config::config_path_for("/d") == d.path / "main.toml");
  CHECK(config::config_path_for("/d", std::string("main")) == d.path / "main.toml");
  CHECK_THROWS_AS(config::config_path_for("/d", std::string("other")), UserError);  // one node, one file
  CHECK(config::config_path_for("/d/") == d.path / "main.toml");
  CHECK(config::config_path_for("/e") != d.path / "main.toml");
  main.pgdata = "/d/";  // as older versions wrote it
  config::save(main);
  CHECK(config::config_path_for("/d") == d.path / "main.toml");
  main.pgdata = "/d";
  config::save(main);
  ::unsetenv("PGVIGIL_CONFIG_DIR");
  CHECK(config::default_state_directory("/etc/pgvigil/main.toml") == "/var/lib/pgvigil/main");
  CHECK(config::unit_of(main).empty());
  main.file = "/etc/pgvigil/main.toml";
  CHECK(config::unit_of(main) == "pgvigil-keeper@main.service");
  main.role = config::Role::monitor;
  CHECK(config::unit_of(main).empty());  // the monitor's unit knows one name only
  main.file = "/etc/pgvigil/monitor.toml";
  CHECK(config::unit_of(main) == "pgvigil-monitor.service");
}

TEST_CASE("configuration: a setting of an older version is read, counts for nothing, and is not written again") {
  const config::Config config = config::parse(good + "[timeouts]\nstop = 7\nheartbeat_ms = 500\n", "/etc/node.toml");
  CHECK(config.stop == 7);
  CHECK(config.without_effect == std::vector<std::string>{"/etc/node.toml:10:1: timeouts.heartbeat_ms"});
  CHECK(config::to_toml(config).find("heartbeat") == std::string::npos);
  CHECK(config::parse(good, "/etc/node.toml").without_effect.empty());
}

TEST_CASE("configuration: every key is explained, with its range and what it is when not set") {
  const auto lines = config::explained();
  CHECK(lines.size() == config::keys().size());
  for (const auto& line : lines) {
    CAPTURE(line.first);
    CHECK(line.second.size() > 5);
    CHECK(line.second.front() != '(');
  }
  const auto words = [&](const std::string& key) {
    return std::find_if(lines.begin(), lines.end(), [&](const auto& line) { return line.first == key; })->second;
  };
  CHECK(words("timeouts.stop") == "seconds that a stop of PostgreSQL may take (1 to 86400; 60 when it is not set)");
  CHECK(words("log.format") == "of the log's lines (text, json; text when it is not set)");
}

TEST_CASE("configuration: refused with file, line and column") {
  CHECK(config_error(good + "prot = 1\n").find("/etc/node.toml:8:1: unknown setting postgresql.prot") == 0);
  CHECK(config_error(good + "port = \"5432\"\n").find("/etc/node.toml:8:8: postgresql.port must be an integer") == 0);
  CHECK(config_error(good + "port = 0\n").find("/etc/node.toml:8:8: postgresql.port must be between 1 and 65535") == 0);
  CHECK(config_error(good + "auth = \"md5\"\n").find("must be one of trust, scram-sha-256") != std::string::npos);
  CHECK(config_error(good + "dbname = \"a\\nb\"\n").find("control characters") != std::string::npos);
  CHECK(config_error(good + "port = \n").find("/etc/node.toml:8") == 0);
  CHECK(config_error("[nodes]\n") == "/etc/node.toml:1:2: unknown section [nodes]");
  CHECK(config_error("[node]\nhostname = \"a b\"\n").find("must be a host name") != std::string::npos);
  CHECK(config_error("").find("pgdata is missing") != std::string::npos);
  CHECK(config_error(std::string("\xff\xfe\x00", 3)) != "accepted");
  config::Config config = config::parse(good, "/etc/node.toml");
  CHECK_THROWS_AS(config::set(config, "postgresql.nothing", "1"), UserError);
  CHECK_THROWS_AS(config::set(config, "postgresql.port", "1x"), UserError);
  CHECK_THROWS_AS(config::set(config, "replication.candidate_priority", "101"), UserError);
  CHECK(config.port == 5432);
}

TEST_CASE("configuration: host names that pg_hba.conf and getaddrinfo() take for nothing else") {
  for (const char* host :
       {"10.0.0.5", "2001:db8::1", "::1", "db-1", "db_1", "a.example.", "x1", "1x", "a.b.12c", "allan"}) {
    CAPTURE(host);
    CHECK(config::is_host(host));
  }
  for (const char* host :
       {"",         "10.0.5",  "167772165", "0x7f000001", "10.0.0.256", "fe80::1%eth0", ".example.com", "all",
        "samehost", "samenet", "a.b.12",    "a.0x1f",     ".",          "10.0.0.5/32",  "a b",          "a'b",
        "a\"b",     "a,b",     "a/b",       "a\nb",       "a\\b",       "a#b",          "a\x7f"}) {
    CAPTURE(host);
    CHECK_FALSE(config::is_host(host));
  }
  CHECK(config::is_host(std::string(255, 'a')));
  CHECK_FALSE(config::is_host(std::string(256, 'a')));
}

TEST_CASE("configuration: rates that pg_basebackup takes") {
  for (const char* rate : {"100M", "32k", "1024M", "0.5M", "100", "32", "1048576"}) {
    CAPTURE(rate);
    CHECK(config::is_backup_rate(rate));
  }
  for (const char* rate :
       {"100MB", "1G", "2000M", "31k", "31", "", "M", "-100M", " 100M", "100 M", "0.01M", "100.5k"}) {
    CAPTURE(rate);
    CHECK_FALSE(config::is_backup_rate(rate));
  }
}

TEST_CASE("configuration: what is refused when it is set is read from a file of before") {
  config::Config config = config::parse(good, "/etc/node.toml");
  CHECK_THROWS_AS(config::set(config, "node.hostname", "10.0.5"), UserError);
  CHECK_THROWS_AS(config::set(config, "replication.maximum_backup_rate", "100MB"), UserError);
  CHECK(config == config::parse(good, "/etc/node.toml"));
  const config::Config old = config::parse(good + "[replication]\nmaximum_backup_rate = \"100MB\"\n", "/etc/node.toml");
  CHECK(old.maximum_backup_rate == "100MB");
  CHECK(config::parse("[node]\nrole = \"keeper\"\nstate_directory = \"/s\"\nhostname = \"10.0.5\"\n" +
                          good.substr(good.find("[monitor]")),
                      "/etc/node.toml")
            .hostname == "10.0.5");
}

TEST_CASE("a data directory has one name") {
  CHECK(config::data_directory("/srv/pg/") == "/srv/pg");
  CHECK(config::data_directory("/srv/pg//") == "/srv/pg");
  CHECK(config::data_directory("/srv/./x/../pg") == "/srv/pg");
  CHECK(config::data_directory("pg/") == fs::current_path() / "pg");
  CHECK(config::data_directory("/") == "/");
}

TEST_CASE("atomic files and secrets") {
  Directory d;
  const fs::path file = d.path / "secret";
  os::write_file_atomic(file, "one\n", 0600);
  os::write_file_atomic(file, "two\n", 0600);
  CHECK(os::read_secret_file(file) == "two");
  CHECK(std::distance(fs::directory_iterator(d.path), {}) == 1);  // no temporary file is left
  ::chmod(file.c_str(), 0640);
  CHECK_THROWS_AS(os::read_secret_file(file), UserError);
  CHECK_THROWS_AS(os::read_secret_file(d.path / "missing"), UserError);
  CHECK_THROWS_AS(os::write_file_atomic(d.path / "no" / "such", "x"), Error);
  CHECK_FALSE(os::read_file(d.path / "missing").has_value());
  CHECK(os::random_secret().size() == 64);
  CHECK(os::random_secret() != os::random_secret());
}

TEST_CASE("what an initdb leaves that was killed is told from somebody's cluster") {
  for (const char* theirs : {"base/16384/1259", "base/5/16384", "base/5/16402_fsm", "base/5/20000.1", "postmaster.opts",
                             "backup_label", "pg_tblspc/16385", "notes"}) {
    Directory d;
    CHECK(postgres::not_of_initdb(d.path / "missing").empty());
    for (const char* made : {"base/1/1259", "base/1/16383_vm", "base/1/pg_internal.init", "global/pg_control",
                             "pg_wal/000000010000000000000001", "PG_VERSION", "postmaster.pid"}) {
      fs::create_directories((d.path / made).parent_path());
      std::ofstream(d.path / made) << "15\n";
    }
    fs::create_directory(d.path / "pg_tblspc");
    CHECK(postgres::not_of_initdb(d.path).empty());
    fs::create_directories((d.path / theirs).parent_path());
    std::ofstream(d.path / theirs) << "x";
    CHECK_MESSAGE(!postgres::not_of_initdb(d.path).empty(), theirs);
  }
}

TEST_CASE("one holder of a pid file") {
  Directory d;
  const fs::path file = d.path / "pid";
  CHECK_FALSE(os::PidFile::holder(file));
  {
    const auto held = os::PidFile::acquire(file);
    REQUIRE(held);
    CHECK(os::PidFile::holder(file) == ::getpid());
    CHECK_FALSE(os::PidFile::acquire(file));
  }
  CHECK_FALSE(os::PidFile::holder(file));
  CHECK(os::PidFile::acquire(file));
}

TEST_CASE("PostgreSQL settings") {
  Directory d;
  const fs::path conf = d.path / "postgresql.conf";
  os::write_file_atomic(conf, "port = 1\n# mine, without a last newline");
  const postgres::Settings settings{{"a", "it's"}, {"b", "back\\slash"}, {"c", ""}};
  CHECK(postgres::write_settings(d.path, conf, settings));
  CHECK_FALSE(postgres::write_settings(d.path, conf, settings));
  CHECK(postgres::read_settings(d.path) == settings);
  CHECK(content(conf).find("port = 1\n# mine, without a last newline\ninclude 'postgresql-pgvigil.conf'") == 0);
  // A user's later line must not win over ours.
  std::ofstream(conf, std::ios::app) << "synchronous_standby_names = ''\n";
  CHECK(postgres::write_settings(d.path, conf, settings));
  CHECK(content(conf).find("synchronous_standby_names = ''\ninclude") != std::string::npos);
  CHECK(content(conf).find("include") == content(conf).rfind("include"));
  CHECK_THROWS_AS(postgres::write_settings(d.path, conf, {{"a", "x'\nfsync = off"}}), Error);
  CHECK(postgres::set_standby_signal(d.path, true));
  CHECK_FALSE(postgres::set_standby_signal(d.path, true));
  CHECK(postgres::has_standby_signal(d.path));
  CHECK(postgres::set_standby_signal(d.path, false));
  CHECK_FALSE(postgres::has_standby_signal(d.path));
}

TEST_CASE("PostgreSQL settings outside the data directory, and behind a link") {
  Directory d;
  const fs::path pgdata = d.path / "it's data";
  const fs::path elsewhere = d.path / "etc";
  fs::create_directories(pgdata);
  fs::create_directories(elsewhere);
  const std::string users = "port = 1\n";
  os::write_file_atomic(elsewhere / "real.conf", users, 0640);
  const fs::path conf = elsewhere / "postgresql.conf";
  fs::create_symlink("real.conf", conf);
  const fs::path hba = elsewhere / "pg_hba.conf";
  os::write_file_atomic(hba, users);
  CHECK(postgres::write_settings(pgdata, conf, {{"a", "b"}}));
  CHECK_FALSE(postgres::write_settings(pgdata, conf, {{"a", "b"}}));
  CHECK(fs::is_symlink(conf));
  CHECK((fs::status(elsewhere / "real.conf").permissions() & fs::perms::mask) == fs::perms(0640));
  const std::string data = (d.path / "it''s data").string();
  CHECK(content(conf).find(users + "include '" + data + "/postgresql-pgvigil.conf'") == 0);
  postgres::write_hba(hba, {{"host", "all", "r", "10.0.0.1", "trust"}});
  postgres::remove_own_lines(pgdata, conf, hba, true);
  CHECK(content(conf) == users);
  CHECK(content(hba) == users);
  CHECK(postgres::read_settings(pgdata).empty());
}

TEST_CASE("postgresql.auto.conf does not win over ours") {
  Directory d;
  const fs::path file = d.path / "postgresql.auto.conf";
  CHECK(postgres::drop_overrides(d.path, {"port"}).empty());
  os::write_file_atomic(
      file, "# port = 1\nwork_mem = '1MB'\nport = '2'\n port=3\nport_of_another = '4'\nprimary_conninfo = ''");
  CHECK(postgres::drop_overrides(d.path, {"port", "primary_conninfo"}) ==
        std::vector<std::string>{"port", "port", "primary_conninfo"});
  CHECK(content(file) == "# port = 1\nwork_mem = '1MB'\nport_of_another = '4'\n");
  CHECK(postgres::drop_overrides(d.path, {"port", "primary_conninfo"}).empty());
  // As PostgreSQL reads it: in capitals too, and the value need not be set apart from the name.
  os::write_file_atomic(file, "Port = '2'\nPORT'3'\n\r port\t4\nport.of = '5'\nport\xc3\xa9 = '6'\n");
  CHECK(postgres::drop_overrides(d.path, {"port"}) == std::vector<std::string>{"port", "port", "port"});
  CHECK(content(file) == "port.of = '5'\nport\xc3\xa9 = '6'\n");
}

TEST_CASE("what somebody adds to a file while it is being changed is in it afterwards") {
  Directory d;
  const fs::path file = d.path / "shared";
  os::write_file_atomic(file, "one\n");
  int called = 0;
  CHECK(postgres::edit_users_file(file, [&](const std::string& content) {
    if (++called == 1) std::ofstream(file, std::ios::app) << "two\n";
    return "ours\n" + content;
  }));
  CHECK(called == 2);
  CHECK(content(file) == "ours\none\ntwo\n");
}

TEST_CASE("HBA: our block, and nobody else's line") {
  Directory d;
  const fs::path hba = d.path / "pg_hba.conf";
  const std::string users = "# mine\r\nhost all all ::1/128 reject\nlocal all all peer";  // CRLF, no last newline
  os::write_file_atomic(hba, users);
  const std::vector<postgres::HbaEntry> entries{{"host", "replication", "r", "10.0.0.1", "scram-sha-256"},
                                                {"host", "My Db", "r", "2001:db8::1", "trust"},
                                                {"host", "all", "r", "node.example", "trust"}};
  CHECK(postgres::write_hba(hba, entries));
  CHECK_FALSE(postgres::write_hba(hba, entries));
  const std::string text = content(hba);
  CHECK(text.find("host replication r 10.0.0.1/32 scram-sha-256\n") != std::string::npos);
  CHECK(text.find("host \"My Db\" r 2001:db8::1/128 trust\n") != std::string::npos);
  CHECK(text.substr(text.size() - users.size()) == users);
  CHECK(postgres::hba_line({"host", "db", "+members", "all", "reject"}) == "host db +members all reject");
  const fs::path other = d.path / "other";
  os::write_file_atomic(other, "# not for r_1\nhost all all all trust\n");
  postgres::write_hba(other, {{"host", "all", "r_1", "all", "reject"}});
  CHECK_FALSE(postgres::hba_names(other, "r_1"));
  os::write_file_atomic(other, content(other) + "host replication x,r_1 samenet trust\n");
  CHECK(postgres::hba_names(other, "r_1"));
  CHECK(postgres::write_hba(hba, {}));
  CHECK(content(hba) == users);
  postgres::write_hba(hba, entries);
  std::string damaged = content(hba);
  damaged.erase(damaged.find("# END pgvigil\n"), 14);
  os::write_file_atomic(hba, damaged);
  CHECK_THROWS_AS(postgres::write_hba(hba, entries), Error);
  CHECK(content(hba) == damaged);
  CHECK_THROWS_AS(postgres::hba_line({"host", "all", "r", "1.2.3.4 trust\nhost all all 0.0.0.0/0", "trust"}), Error);
  CHECK_THROWS_AS(postgres::hba_line({"host", "a\"b", "r", "1.2.3.4", "trust"}), Error);
}

TEST_CASE("connection strings") {
  const auto values = pg::parse_conninfo("postgres://u:p%20w@h1:1,h2:2/db?target_session_attrs=read-write");
  CHECK(values.at("host") == "h1,h2");
  CHECK(values.at("password") == "p w");
  CHECK(pg::without_password("postgres://u:secret@h:1/db").find("secret") == std::string::npos);
  CHECK(pg::without_password("host=h password='se cret' dbname=x").find("cret") == std::string::npos);
  CHECK(pg::parse_conninfo(pg::to_conninfo({{"password", "a'b\\c d"}})).at("password") == "a'b\\c d");
  CHECK(pg::application_uri({{"10.0.0.1", 5432}, {"2001:db8::1", 5433}}, "my db", "prefer", "", false) ==
        "postgres://10.0.0.1:5432,[2001:db8::1]:5433/my%20db?target_session_attrs=read-write&sslmode=prefer");
  const auto patient = pg::parse_conninfo(pg::application_uri({{"h", 1}}, "db", "prefer", "", true));
  CHECK(patient.at("connect_timeout") == "2");
  CHECK(patient.at("tcp_user_timeout") == "5000");
  CHECK(patient.at("keepalives_idle") == "2");
  CHECK(patient.at("target_session_attrs") == "read-write");
  CHECK(pg::parse_conninfo(pg::to_uri({{"host", "h"}, {"user", "a@b/c"}, {"dbname", "x?y"}})).at("user") == "a@b/c");
  const std::string several = "postgres://u@m1:5432,m2:5433,[2001:db8::1]:5434/db?sslmode=require";
  CHECK(pg::without_password(several) == several);
  CHECK(pg::to_uri(pg::parse_conninfo("host=m1,m2 port=5432 user=u")) == "postgres://u@m1:5432,m2:5432/");
  CHECK(pg::to_uri(pg::parse_conninfo("host=m1,m2 user=u")) == "postgres://u@m1,m2/");
  CHECK(pg::to_uri(pg::parse_conninfo("host=/run/a,m2 port=,5433")) == "postgres://%2Frun%2Fa,m2:5433/");
  CHECK_THROWS_AS(pg::to_uri({{"host", "m1"}, {"port", "1,2"}}), Error);
  CHECK_THROWS_AS(pg::parse_conninfo("no such = thing"), Error);
  CHECK_THROWS_AS(pg::parse_conninfo("postgres://[::1"), Error);
  for (const char* with_password :
       {"postgres://u:secret@[::1", "postgres://u:a%zzsecret@h/d", "postgres://u:secret@h:1x%"}) {
    std::string why;
    try {
      pg::parse_conninfo(with_password);
    } catch (const Error& error) {
      why = error.what();
    }
    CHECK(why.starts_with("not a connection string: "));
    CHECK(why.find("secret") == std::string::npos);
  }
  CHECK_THROWS_WITH(pg::parse_conninfo("postgres://h/d?nonsense=1"),
                    "not a connection string: invalid URI query parameter: \"nonsense\"");
  CHECK(pg::quote_literal("it's") == "'it''s'");
  CHECK(pg::quote_identifier("a\"b") == "\"a\"\"b\"");
}

TEST_CASE("goals from the monitor") {
  const std::string text =
      R"({"state": "primary", "term": 3, "seq": 9, "names": {"required": 1, "members": [3, 2, 3]}, "names_version": 4,
                               "peers_version": 5, "upstream": null, "lease_seconds": 10})";
  const Goal goal = monitor_api::parse_goal(text);
  CHECK(goal.state == NodeState::primary);
  CHECK(goal.term == Term{3});
  CHECK(goal.names.members == std::vector{NodeId{2}, NodeId{3}});
  CHECK_FALSE(goal.upstream);
  for (const char* bad : {"", "{}", "[]", "nonsense", R"({"state": "emperor"})"})
    CHECK_THROWS_AS(monitor_api::parse_goal(bad), Error);
  std::string broken = text;
  CHECK_THROWS_AS(monitor_api::parse_goal(broken.replace(broken.find("\"term\": 3"), 9, "\"term\":-3")), Error);
  for (std::size_t cut = 0; cut < text.size(); cut += 7)
    CHECK_THROWS_AS(monitor_api::parse_goal(text.substr(0, cut)), Error);
}

TEST_CASE("LSNs and arrays") {
  CHECK(to_string(Lsn{0x16B374D848}) == "16/B374D848");
  CHECK(parse_lsn("16/B374D848") == Lsn{0x16B374D848});
  CHECK(parse_lsn("0/0") == Lsn{0});
  for (const char* bad : {"", "/", "1", "1/", "/1", "1/2/3", "g/1", "1/123456789", "-1/0", " 1/0"})
    CHECK_FALSE(parse_lsn(bad));
  CHECK(parse_array_literal("{1,22}") == std::vector{NodeId{1}, NodeId{22}});
  CHECK(parse_array_literal("{}")->empty());
  for (const char* bad : {"", "{", "1", "{1,}", "{,1}", "{a}", "{1 }"}) CHECK_FALSE(parse_array_literal(bad));
  CHECK(to_array_literal({NodeId{1}, NodeId{2}}) == "{1,2}");
}

TEST_CASE("what is known of a new copy is on disk before it counts as whole") {
  const Directory directory;
  keeper::Node node;
  node.config.state_directory = directory.path;
  const auto begin = [&] { std::ofstream(node.file("copy-in-progress")) << "base backup\n"; };
  begin();
  CHECK_THROWS_AS(keeper::copy_ends(node, [] { throw Error("no room for the state file"); }), Error);
  CHECK(keeper::copy_unfinished(node));
  bool unfinished_then = false;
  keeper::copy_ends(node, [&] { unfinished_then = keeper::copy_unfinished(node); });
  CHECK(unfinished_then);
  CHECK_FALSE(keeper::copy_unfinished(node));
}

TEST_CASE("reasons: what is no text of the monitor's database") {
  using monitor_api::legible;
  CHECK(legible("").empty());
  CHECK(legible("two lines:\n\tone tab") == "two lines:\n\tone tab");
  CHECK(legible("f\xc3\xbcr \xe2\x82\xac \xf0\x9f\x90\x98") == "f\xc3\xbcr \xe2\x82\xac \xf0\x9f\x90\x98");
  CHECK(legible("f\xfcr") == "f?r");           // Latin 1
  CHECK(legible("cut \xe2\x82") == "cut ??");  // in the middle of a character
  CHECK(legible("cut \xe2\x82 on") == "cut ?? on");
  CHECK(legible("\x80 \xc0\xaf \xe0\x80\xaf \xff") == "? ?? ??? ?");  // too long a form of '/'
  CHECK(legible("\xed\xa0\x80") == "???");                            // half a surrogate pair
  CHECK(legible("\xed\x9f\xbf") == "\xed\x9f\xbf");                   // the last before them
  CHECK(legible("\xf4\x8f\xbf\xbf") == "\xf4\x8f\xbf\xbf");           // the last code point
  CHECK(legible("\xf4\x90\x80\x80") == "????");
  CHECK(legible("\xf0\x8f\xbf\xbf") == "????");
  CHECK(legible(std::string_view("a\0b\r\x1b[1m\x7f", 9)) == "a?b??[1m?");
  CHECK(legible("\xc3\xbc\xc3\xbc\xc3\xbc", 2) == "\xc3\xbc\xc3\xbc");  // characters, not bytes
  CHECK(legible(std::string(2000, 'x')).size() == monitor_api::longest_reason);
}
