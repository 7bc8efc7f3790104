// Chooses the instruction set at run time (see isa.h).
#include "common/isa.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace synops {
namespace {

struct Entry {
  const char* name;
  Isa isa;
  bool available;
};

bool has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
#else
  return false;
#endif
}

bool has_avx512() {
#if defined(__x86_64__)
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
  return false;
#endif
}

const Entry* entries() {  // best first
  static const Entry list[] = {{"AVX512", Isa::kAvx512, has_avx512()},
                               {"AVX2", Isa::kAvx2, has_avx2()},
                               {"DEFAULT", Isa::kDefault, true}};
  return list;
}

const Entry* find(const char* name) {
  for (const Entry* e = entries(); e != entries() + 3; ++e)
    if (e->available && std::strcmp(e->name, name) == 0) return e;
  return nullptr;
}

const Entry* initial() {
  const char* asked = std::getenv("SYNOPS_CPU_CAPABILITY");
  if (asked != nullptr)
    if (const Entry* e = find(asked)) return e;
  for (const Entry* e = entries();; ++e)
    if (e->available) return e;
}

// Atomic: ops run without Python's lock while another thread may choose.
std::atomic<const Entry*>& current() {
  static std::atomic<const Entry*> entry = initial();
  return entry;
}

}  // namespace

Isa active_isa() { return current().load()->isa; }
const char* isa_name() { return current().load()->name; }

bool set_isa(const char* name) {
  const Entry* e = find(name);
  if (e != nullptr) current() = e;
  return e != nullptr;
}

}  // namespace synops
