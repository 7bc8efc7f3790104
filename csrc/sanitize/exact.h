// Buffers of exactly the right size for the checks of this folder: an access outside ends the
// program.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace synops::sanitize {

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "wrong: %s\n", what);
  std::_Exit(1);
}

// `bytes` between two guards that AddressSanitizer poisons. It does not see the masked loads and
// stores of AVX-512, so everything is set to ones first: a NaN of every type and an index of -1,
// which show where they are read, and a store to a guard is found in the end. The start has the
// alignment of an element and no more, as that of a slice.
class Guarded {
 public:
  explicit Guarded(size_t bytes = 0, size_t element = 64)
      : offset_(kGuard + (element < 64 ? next_offset(element) : 0)), bytes_(bytes) {
    all_ = static_cast<unsigned char*>(std::aligned_alloc(64, size()));
    if (all_ == nullptr) fail("out of memory");
    std::memset(all_, 0xff, size());
    poison(true);
  }
  ~Guarded() {
    if (all_ == nullptr) return;
    poison(false);
    for (size_t i = 0; i < size(); ++i)
      if ((i < offset_ || i >= offset_ + bytes_) && all_[i] != 0xff) fail("a store past the end");
    std::free(all_);
  }
  Guarded(Guarded&& other) noexcept
      : all_(std::exchange(other.all_, nullptr)), offset_(other.offset_), bytes_(other.bytes_) {}
  Guarded(const Guarded&) = delete;
  Guarded& operator=(Guarded other) noexcept {
    std::swap(all_, other.all_);
    std::swap(offset_, other.offset_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  void* data() const { return all_ + offset_; }

 private:
  static constexpr size_t kGuard = 2048;  // more than any kernel reads at once

  static size_t next_offset(size_t element) {
    static thread_local size_t count = 0;
    return ++count * element % 64;
  }
  size_t size() const { return (offset_ + bytes_ + kGuard + 63) / 64 * 64; }
  void poison(bool on) const {
#if defined(__SANITIZE_ADDRESS__)
    if (!on) return __asan_unpoison_memory_region(all_, size());
    __asan_poison_memory_region(all_, offset_);
    __asan_poison_memory_region(all_ + offset_ + bytes_, size() - offset_ - bytes_);
#else
    static_cast<void>(on);
#endif
  }

  unsigned char* all_;
  size_t offset_, bytes_;
};

// n elements; null when empty, as a tensor's.
template <class T>
class Exact {
 public:
  explicit Exact(int64_t n) : size_(n), memory_(n * sizeof(T), sizeof(T)) {}
  T& operator[](int64_t i) const { return static_cast<T*>(memory_.data())[i]; }
  T* get() const { return size_ == 0 ? nullptr : static_cast<T*>(memory_.data()); }
  int64_t size() const { return size_; }

 private:
  int64_t size_;
  Guarded memory_;
};

}  // namespace synops::sanitize
