// tests/simulation/run: many seeds on several processes, one seed with a readable trace, the smallest plan that still
// fails.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "tests/simulation/world.hpp"

using namespace pgvigil::simulation;

namespace {

struct Options {
  std::uint64_t first{1};
  std::uint64_t seeds{10000};
  int jobs{2};
  std::uint64_t replay{0};
  bool trace{true};
  std::set<int> without;
  std::uint64_t twice{200};  // every so-and-so-many seeds one is run again: the same history must come out
  int stop_after{5};
  bool shrink{true};
  std::vector<std::uint64_t> list;
};

struct Totals {
  std::int64_t seeds{0}, failed{0}, events{0}, acknowledged{0}, promotions{0}, decisions{0}, repeated{0};
  std::array<std::int64_t, 1000> rules{};
};

std::string without_text(const std::set<int>& without) {
  std::string text;
  for (const int fault : without) text += (text.empty() ? "" : ",") + std::to_string(fault);
  return text;
}

// Delta debugging on the plan: leave out as many faults as possible, and it still fails.
std::set<int> shrink(std::uint64_t seed) {
  std::set<int> without;
  const int count = static_cast<int>(World(seed, false).plan().faults.size());
  const auto fails = [&](const std::set<int>& candidate) {
    return !World(seed, false, candidate).run().violation.empty();
  };
  for (int chunk = std::max(1, count / 2);; chunk /= 2) {
    for (int begin = 0; begin < count; begin += chunk) {
      std::set<int> candidate = without;
      for (int i = begin; i < std::min(count, begin + chunk); ++i) candidate.insert(i);
      if (candidate.size() > without.size() && fails(candidate)) without = candidate;
    }
    if (chunk == 1) break;
  }
  return without;
}

int replay(const Options& options) {
  World world(options.replay, options.trace, options.without);
  const Plan& plan = world.plan();
  std::printf("seed %llu: %d nodes, number_sync_standbys %d, %zu faults%s\n",
              static_cast<unsigned long long>(options.replay), plan.nodes, plan.number_sync_standbys,
              plan.faults.size(), plan.quiet ? ", quiet" : "");
  for (std::size_t i = 0; i < plan.faults.size(); ++i) {
    std::printf("  %c%2zu  %7.3f  %s\n", options.without.contains(static_cast<int>(i)) ? '-' : ' ', i,
                static_cast<double>(plan.faults[i].at) / 1000.0, to_string(plan.faults[i]).c_str());
  }
  const Outcome outcome = world.run();
  std::printf("%s after %.3f s: %lld acknowledged, %lld promotions\n",
              outcome.violation.empty() ? "ok" : ("VIOLATION " + outcome.violation).c_str(),
              static_cast<double>(outcome.ended) / 1000.0, static_cast<long long>(outcome.acknowledged),
              static_cast<long long>(outcome.promotions));
  return outcome.violation.empty() ? 0 : 1;
}

void report_failure(std::uint64_t seed, const Outcome& outcome, bool shrinking) {
  const std::set<int> without = shrinking ? shrink(seed) : std::set<int>{};
  const std::string left_out = without.empty() ? "" : " --without " + without_text(without);
  std::printf("seed %llu: %s\n  tests/simulation/run --replay %llu%s\n", static_cast<unsigned long long>(seed),
              outcome.violation.c_str(), static_cast<unsigned long long>(seed), left_out.c_str());
  std::fflush(stdout);
}

// One process's share: seeds first + job, first + job + jobs, ...
Totals run_share(const Options& options, int job) {
  Totals totals;
  for (std::uint64_t i = static_cast<std::uint64_t>(job); i < options.seeds;
       i += static_cast<std::uint64_t>(options.jobs)) {
    const std::uint64_t seed = options.list.empty() ? options.first + i : options.list[i];
    const Outcome outcome = World(seed, false).run();
    ++totals.seeds;
    totals.events += outcome.events;
    totals.acknowledged += outcome.acknowledged;
    totals.promotions += outcome.promotions;
    totals.decisions += outcome.decisions;
    for (const int rule : outcome.rules) ++totals.rules[static_cast<std::size_t>(rule)];
    bool failed = !outcome.violation.empty();
    if (failed) report_failure(seed, outcome, options.shrink);
    if (options.twice > 0 && seed % options.twice == 0) {
      ++totals.repeated;
      if (World(seed, false).run().hash != outcome.hash) {
        std::printf("seed %llu: the same seed gave another history\n", static_cast<unsigned long long>(seed));
        failed = true;
      }
    }
    if (failed && ++totals.failed >= options.stop_after) break;
  }
  return totals;
}

bool read_all(int from, void* into, std::size_t size) {
  auto* next = static_cast<char*>(into);
  while (size > 0) {
    const ssize_t got = read(from, next, size);
    if (got <= 0) return false;
    next += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

int run_many(const Options& options) {
  const auto begun = std::chrono::steady_clock::now();
  std::vector<std::pair<pid_t, int>> children;
  for (int job = 0; job < options.jobs; ++job) {
    int ends[2];
    if (pipe(ends) != 0) return 2;
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
      close(ends[0]);
      const Totals totals = run_share(options, job);
      const bool written = write(ends[1], &totals, sizeof totals) == static_cast<ssize_t>(sizeof totals);
      std::fflush(stdout);
      _exit(written ? 0 : 1);
    }
    close(ends[1]);
    children.emplace_back(child, ends[0]);
  }
  Totals all;
  bool crashed = false;
  for (const auto& [child, end] : children) {
    Totals totals;
    const bool complete = read_all(end, &totals, sizeof totals);
    int status = 0;
    waitpid(child, &status, 0);
    crashed = crashed || !complete || status != 0;
    if (!complete) continue;
    all.seeds += totals.seeds;
    all.failed += totals.failed;
    all.events += totals.events;
    all.acknowledged += totals.acknowledged;
    all.promotions += totals.promotions;
    all.decisions += totals.decisions;
    all.repeated += totals.repeated;
    for (std::size_t i = 0; i < all.rules.size(); ++i) all.rules[i] += totals.rules[i];
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  std::string unused;
  for (const auto& rule : pgvigil::fsm::rules()) {
    if (all.rules[static_cast<std::size_t>(rule.number)] == 0) unused += " " + std::to_string(rule.number);
  }
  std::printf(
      "%lld seeds (%llu on) in %.1f s: %lld events, %lld commits acknowledged, %lld promotions, %lld decisions, "
      "%lld run twice; rules that never decided:%s\n",
      static_cast<long long>(all.seeds), static_cast<unsigned long long>(options.first), seconds,
      static_cast<long long>(all.events), static_cast<long long>(all.acknowledged),
      static_cast<long long>(all.promotions), static_cast<long long>(all.decisions),
      static_cast<long long>(all.repeated), unused.empty() ? " none" : unused.c_str());
  std::printf("%lld passed, %lld failed\n", static_cast<long long>(all.seeds - all.failed),
              static_cast<long long>(all.failed));
  if (crashed) std::printf("a process of the simulator has crashed\n");
  return all.failed > 0 || crashed ? 1 : 0;
}

[[noreturn]] void usage(int code) {
  std::printf(
      "usage: run [--seeds N] [--from SEED] [--jobs J] [--stop-after FAILURES] [--no-shrink] [--seeds-file FILE]\n"
      "       run --replay SEED [--without FAULT,FAULT...] [--quiet]\n");
  std::exit(code);
}

Options parse(int argc, char** argv) {
  Options options;
  const auto numbers = [](const std::string& text) {
    std::vector<std::uint64_t> values;
    std::size_t begin = 0;
    while (begin < text.size()) {
      std::size_t end = text.find(',', begin);
      if (end == std::string::npos) end = text.size();
      values.push_back(std::strtoull(text.substr(begin, end - begin).c_str(), nullptr, 10));
      begin = end + 1;
    }
    return values;
  };
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--help") usage(0);
    if (name == "--quiet") {
      options.trace = false;
      continue;
    }
    if (name == "--no-shrink") {
      options.shrink = false;
      continue;
    }
    if (i + 1 == argc) usage(1);
    const std::string value = argv[++i];
    const std::uint64_t number = std::strtoull(value.c_str(), nullptr, 10);
    if (name == "--seeds") {
      options.seeds = number;
    } else if (name == "--from") {
      options.first = number;
    } else if (name == "--jobs") {
      options.jobs = std::max(1, static_cast<int>(number));
    } else if (name == "--stop-after") {
      options.stop_after = static_cast<int>(number);
    } else if (name == "--replay") {
      options.replay = number;
    } else if (name == "--seeds-file") {
      std::ifstream file(value);
      for (std::string line; std::getline(file, line);) {
        if (!line.empty() && line[0] != '#') options.list.push_back(std::strtoull(line.c_str(), nullptr, 10));
      }
      options.seeds = options.list.size();
      if (options.list.empty()) usage(1);
    } else if (name == "--without") {
      for (const std::uint64_t fault : numbers(value)) options.without.insert(static_cast<int>(fault));
    } else {
      usage(1);
    }
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  return options.replay > 0 ? replay(options) : run_many(options);
}
