// Working memory that outlives a call: fresh megabytes cost a page fault every 4 KB (0.1-0.25 us
// each), more than the arithmetic of a small product, so each thread keeps its buffer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace synops {

class Scratch {
 public:
  // Room for `bytes`, aligned to 64; contents undefined.
  // A second Scratch alive in the same thread simply gets memory of its own.
  explicit Scratch(size_t bytes) {
    Cache& cache = cached();
    if (cache.size < bytes) {
      data_ = allocate(bytes);
      size_ = bytes;
    } else {
      data_ = cache.data;
      size_ = cache.size;
      cache.data = nullptr;
      cache.size = 0;
    }
    next_ = static_cast<char*>(data_);
  }

  ~Scratch() {
    Cache& cache = cached();
    if (size_ > cache.size && size_ <= kKeep) {
      std::free(cache.data);
      cache.data = data_;
      cache.size = size_;
    } else {
      std::free(data_);
    }
  }

  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // The next `bytes` of the room.
  void* take(size_t bytes) {
    void* p = next_;
    next_ += round_up(bytes);
    return p;
  }

  static size_t round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

 private:
  static constexpr size_t kKeep = size_t{64} << 20;  // bytes a thread holds on to

  struct Cache {
    void* data = nullptr;
    size_t size = 0;
    ~Cache() { std::free(data); }
  };

  static Cache& cached() {
    thread_local Cache cache;
    return cache;
  }

  static void* allocate(size_t bytes) {
    void* p = std::aligned_alloc(64, round_up(bytes + 1));
    if (p == nullptr) throw std::bad_alloc();
    return p;
  }

  void* data_;
  size_t size_;
  char* next_;
};

}  // namespace synops
