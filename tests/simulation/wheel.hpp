// The events of a simulated world in the order of their time, and of their coming within a millisecond. A timing wheel:
// a heap took more than a third of the simulator's time.
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <queue>
#include <vector>

namespace pgvigil::simulation {

// Event: has `at` (milliseconds, from 0 on) and `order` (grows), and operator< that puts the earliest on top of a heap.
template <class Event>
class Wheel {
 public:
  // What should have happened already happens now.
  void push(const Event& event) {
    if (event.at >= base_ + slots) {
      far_.push(event);
    } else {
      append(std::max(event.at, base_), event);
    }
  }
  bool empty() const { return near_ == 0 && far_.empty(); }
  // Not when empty.
  Event pop() {
    if (near_ == 0) {
      base_ = far_.top().at;
      bring_near();
    } else if (const auto next = next_time(); next != base_) {
      base_ = next;
      bring_near();
    }
    Slot& slot = slots_[index(base_)];
    const int first = slot.first;
    Item& item = items_[static_cast<std::size_t>(first)];
    const Event event = item.event;
    slot.first = item.next;
    if (slot.first < 0) words_[index(base_) / 64] &= ~bit(base_);
    item.next = free_;
    free_ = first;
    --near_;
    return event;
  }

 private:
  using Time = decltype(Event::at);
  static constexpr Time slots = 4096;  // milliseconds; what is farther away waits in a heap
  struct Item {
    Event event;
    int next{-1};
  };
  struct Slot {
    int first{-1};
    int last{-1};
  };

  static std::size_t index(Time when) { return static_cast<std::size_t>(when % slots); }
  static std::uint64_t bit(Time when) { return std::uint64_t{1} << (index(when) % 64); }

  void append(Time when, const Event& event) {
    int place = free_;
    if (place >= 0) {
      free_ = items_[static_cast<std::size_t>(place)].next;
      items_[static_cast<std::size_t>(place)] = {event, -1};
    } else {
      place = static_cast<int>(items_.size());
      items_.push_back({event, -1});
    }
    Slot& slot = slots_[index(when)];
    if (slot.first < 0) {
      slot.first = place;
      words_[index(when) / 64] |= bit(when);
    } else {
      items_[static_cast<std::size_t>(slot.last)].next = place;
    }
    slot.last = place;
    ++near_;
  }
  void bring_near() {
    while (!far_.empty() && far_.top().at < base_ + slots) {
      append(far_.top().at, far_.top());
      far_.pop();
    }
  }
  // Of the events in the wheel; there is one.
  Time next_time() const {
    const std::size_t begin = index(base_);
    std::size_t word = begin / 64;
    std::uint64_t bits = words_[word] & (~std::uint64_t{0} << (begin % 64));
    while (bits == 0) {  // ends: at the latest it comes back to the first word, with the bits before `begin`
      word = (word + 1) % words_.size();
      bits = words_[word];
    }
    const std::size_t found = word * 64 + static_cast<std::size_t>(std::countr_zero(bits));
    return base_ + static_cast<Time>((found + slots - begin) % slots);
  }

  std::array<Slot, slots> slots_{};
  std::array<std::uint64_t, slots / 64> words_{};
  std::vector<Item> items_;
  int free_{-1};
  int near_{0};
  Time base_{0};
  std::priority_queue<Event> far_;
};

}  // namespace pgvigil::simulation
