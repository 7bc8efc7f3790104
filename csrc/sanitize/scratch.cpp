// The real working memory, under another name: Scratch has a stand-in in this folder.
#include <utility>

#include "sanitize/checks.h"
#include "sanitize/exact.h"

#define Scratch KeptScratch
#include "../common/scratch.h"

namespace synops::sanitize {
namespace {

void use(char* p, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(p) % 64 != 0) fail("Scratch: not aligned");
  if (bytes > 0) p[0] = p[bytes / 2] = p[bytes - 1] = 1;
}

}  // namespace

void check_scratch() {
  // More at once than a thread keeps, and again, so that kept ones are used for less.
  for (int repeat = 0; repeat < 2; ++repeat)
    for (const size_t bytes : {size_t{0}, size_t{1}, size_t{64}, size_t{1000}, size_t{33} << 20}) {
      KeptScratch a(bytes), b(bytes / 2), c(2 * bytes), d(bytes), e(bytes);
      const std::pair<KeptScratch*, size_t> all[] = {
          {&a, bytes}, {&b, bytes / 2}, {&c, 2 * bytes}, {&d, bytes}, {&e, bytes}};
      for (const auto& [scratch, size] : all) use(static_cast<char*>(scratch->data()), size);
      for (const auto& [scratch, size] : all) {
        const size_t half = size / 128 * 64;
        char* first = static_cast<char*>(scratch->take(half));
        char* second = static_cast<char*>(scratch->take(size - half));
        if (second < first + half) fail("Scratch: pieces overlap");
        use(first, half);
        use(second, size - half);
      }
    }
}

}  // namespace synops::sanitize
