// Functions that have to be inlined where the compiler would rather not: vectors stay in registers.
// Not under AddressSanitizer, where one large body takes minutes to compile.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define SYNOPS_FLAT
#define SYNOPS_INLINE inline
#define SYNOPS_INLINE_LAMBDA
#else
#define SYNOPS_FLAT [[gnu::flatten]]
#define SYNOPS_INLINE [[gnu::always_inline]] inline
#define SYNOPS_INLINE_LAMBDA __attribute__((always_inline))
#endif
