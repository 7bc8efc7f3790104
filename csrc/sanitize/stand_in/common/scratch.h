// Stands in for common/scratch.h under the sanitizers: every piece is a buffer of its own and of
// exactly its size, of which nothing is kept, so that no access outside one goes unseen. The pieces
// must fit into the room that was asked for.
#pragma once

#include <cstddef>
#include <list>

#include "sanitize/exact.h"

namespace synops {

class Scratch {
 public:
  explicit Scratch(size_t bytes) : room_(bytes), whole_(bytes) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  void* data() const { return whole_.data(); }
  void* take(size_t bytes) {
    // What is past the end of a room is at most its last piece's rounding.
    if (taken_ + bytes > room_) sanitize::fail("more scratch taken than asked for");
    taken_ += round_up(bytes);
    return pieces_.emplace_back(bytes).data();
  }

  static size_t round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

 private:
  size_t room_, taken_ = 0;
  sanitize::Guarded whole_;
  std::list<sanitize::Guarded> pieces_;
};

}  // namespace synops
