#include "keeper/fsm/fence.hpp"

#include <algorithm>

namespace pgvigil::keeper {

std::optional<std::string_view> must_fence(const Contact& contact) {
  if (!takes_writes(contact.state) || contact.state == NodeState::single) return std::nullopt;
  if (contact.monitor_age < contact.lease) return std::nullopt;
  if (contact.asynchronous)
    return "its lease is over: no answer from the monitor, and no standby has to confirm its commits";
  if (contact.standby_age < contact.lease) return std::nullopt;
  return "it is cut off from the monitor and from all of its standbys";
}

FencePace fence_pace(std::chrono::milliseconds lease) {
  return {std::min(std::chrono::milliseconds{200}, lease / 40), std::min(std::chrono::milliseconds{5000}, lease / 10)};
}

}  // namespace pgvigil::keeper
