#include "common/os/core_limit.hpp"

#include <sys/resource.h>

namespace pgvigil::os {

namespace {

rlimit given{};
bool changed = false;

}  // namespace

void forbid_core_dumps() {
  if (changed || ::getrlimit(RLIMIT_CORE, &given) != 0) return;
  rlimit none = given;
  none.rlim_cur = 0;
  changed = ::setrlimit(RLIMIT_CORE, &none) == 0;
}

void give_back_core_limit() {
  if (changed) ::setrlimit(RLIMIT_CORE, &given);
}

}  // namespace pgvigil::os
