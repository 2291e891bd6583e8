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

// Event: has `at`, in milliseconds, from 0 on.
template <class Event>
class Wheel {
 public:
  using Time = decltype(Event::at);
  // To be filled in by the caller, but for `at`, before anything else is asked. (An event that is handed over as a
  // whole costs a stall of the processor, which copies what it has just written in parts.) What should have happened
  // already happens now.
  Event& push(Time when) {
    const int place = take();
    if (when >= base_ + static_cast<Time>(slots)) {
      far_.push({when, ++pushed_, place});
    } else {
      append(std::max(when, base_), place);
    }
    Event& event = items_[static_cast<std::size_t>(place)].event;
    event.at = when;
    return event;
  }
  bool empty() const { return near_ == 0 && far_.empty(); }
  // Not when empty.
  Event pop() {
    if (near_ == 0) {
      base_ = far_.top().when;
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
  static constexpr std::size_t slots = 2048;  // milliseconds; what is farther away waits in a heap
  struct Item {
    Event event;
    int next{-1};
  };
  struct Far {
    Time when{0};
    std::uint64_t order{0};
    int place{-1};
    // The earliest on top of the heap.
    bool operator<(const Far& right) const { return when != right.when ? when > right.when : order > right.order; }
  };
  struct Slot {
    int first{-1};
    int last{-1};
  };

  static std::size_t index(Time when) { return static_cast<std::size_t>(when) % slots; }
  static std::uint64_t bit(Time when) { return std::uint64_t{1} << (index(when) % 64); }

  int take() {
    if (free_ < 0) {
      items_.emplace_back();
      return static_cast<int>(items_.size()) - 1;
    }
    const int place = free_;
    free_ = items_[static_cast<std::size_t>(place)].next;
    return place;
  }
  void append(Time when, int place) {
    items_[static_cast<std::size_t>(place)].next = -1;
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
    while (!far_.empty() && far_.top().when < base_ + static_cast<Time>(slots)) {
      append(far_.top().when, far_.top().place);
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
  std::priority_queue<Far> far_;
  std::uint64_t pushed_{0};
};

}  // namespace pgvigil::simulation
