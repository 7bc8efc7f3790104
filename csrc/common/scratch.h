// Working memory that outlives a call: fresh megabytes cost a page fault every 4 KB, which a
// small product feels, so each thread keeps a few buffers (see kSlots and kMost below).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

namespace synops {

class Scratch {
 public:
  // Room for `bytes`, aligned to 64; contents undefined. Several may be alive in a thread.
  explicit Scratch(size_t bytes) : buffer_(kept().take(bytes)) {
    next_ = static_cast<char*>(buffer_.data);
  }
  ~Scratch() { kept().give(buffer_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  void* data() const { return buffer_.data; }
  // The next `bytes` of the room.
  void* take(size_t bytes) {
    void* p = next_;
    next_ += round_up(bytes);
    return p;
  }

  static size_t round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

 private:
  struct Buffer {
    void* data = nullptr;
    size_t size = 0;
  };

  // The buffers of a thread that are not in use: at most kSlots, each of at most kMost bytes.
  class Kept {
   public:
    ~Kept() {
      for (Buffer& b : slots_) std::free(b.data);
    }
    Buffer take(size_t bytes) {
      Buffer* best = nullptr;
      for (Buffer& b : slots_)
        if (b.size >= bytes && b.data != nullptr && (best == nullptr || b.size < best->size))
          best = &b;
      if (best != nullptr) return std::exchange(*best, Buffer{});
      // One byte more, since a size of 0 must give a pointer, too.
      const size_t size = round_up(bytes + 1);
      void* data = std::aligned_alloc(64, size);
      if (data == nullptr) throw std::bad_alloc();
      return {data, size};
    }
    // Keeps the buffer in place of the smallest one.
    void give(Buffer buffer) {
      if (buffer.size <= kMost) {
        Buffer* smallest = slots_;
        for (Buffer& b : slots_)
          if (b.size < smallest->size) smallest = &b;
        if (smallest->size < buffer.size) std::swap(*smallest, buffer);
      }
      std::free(buffer.data);
    }

   private:
    static constexpr int kSlots = 4;
    static constexpr size_t kMost = size_t{64} << 20;
    Buffer slots_[kSlots];
  };

  static Kept& kept() {
    thread_local Kept kept;
    return kept;
  }

  Buffer buffer_;
  char* next_;
};

}  // namespace synops
