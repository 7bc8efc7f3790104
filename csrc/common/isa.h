// Which set of kernels runs: one table of raw-pointer functions per op and instruction set.
//
// Every csrc/<family>/<op>.inc is compiled once per instruction set inside the namespace
// CPU_CAPABILITY (DEFAULT, AVX2 or AVX512) and ends by defining its table; SYNOPS_KERNELS declares
// those tables and the accessor that picks the active one at run time.
#pragma once

namespace synops {

enum class Isa : int { kDefault = 0, kAvx2 = 1, kAvx512 = 2 };

// The set in use: the best one this processor has, or SYNOPS_CPU_CAPABILITY, or set_isa().
Isa active_isa();
// False (and no change) when the processor or the build lacks the set.
bool set_isa(const char* name);
const char* isa_name();

}  // namespace synops

#if defined(__x86_64__) || defined(_M_X64)
#define SYNOPS_KERNELS(Table, name)                            \
  namespace DEFAULT {                                          \
  extern const Table name##_table;                             \
  }                                                            \
  namespace AVX2 {                                             \
  extern const Table name##_table;                             \
  }                                                            \
  namespace AVX512 {                                           \
  extern const Table name##_table;                             \
  }                                                            \
  inline const Table& name##_kernels(Isa isa = active_isa()) { \
    switch (isa) {                                             \
      case Isa::kAvx512:                                       \
        return AVX512::name##_table;                           \
      case Isa::kAvx2:                                         \
        return AVX2::name##_table;                             \
      default:                                                 \
        return DEFAULT::name##_table;                          \
    }                                                          \
  }
#else
#define SYNOPS_KERNELS(Table, name) \
  namespace DEFAULT {               \
  extern const Table name##_table;  \
  }                                 \
  inline const Table& name##_kernels(Isa = Isa::kDefault) { return DEFAULT::name##_table; }
#endif
