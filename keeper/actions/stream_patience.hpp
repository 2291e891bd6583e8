// How long a standby may stand still before it is helped.
#pragma once
#include <chrono>
#include <optional>
#include <utility>

#include "common/model/types.hpp"

namespace pgvigil::keeper {

// Of one that fits its upstream and receives nothing from it.
class StreamPatience {
 public:
  static constexpr std::chrono::seconds limit{10};
  // `end`: where the WAL that is here ends, while the upstream has more. True, once: it has ended there for longer than
  // the limit. When nobody has asked for that long nobody was waiting.
  bool ends(Lsn end, std::chrono::milliseconds now) {
    if (end_ != end || now - asked_ > limit) {
      end_ = end;
      since_ = now;
      ended_ = false;
    }
    asked_ = now;
    return now - since_ >= limit && !std::exchange(ended_, true);
  }

 private:
  std::optional<Lsn> end_;
  std::chrono::milliseconds since_{0};
  std::chrono::milliseconds asked_{0};
  bool ended_{false};
};

}  // namespace pgvigil::keeper
