// Marks a function that is compiled into each of its callers, for the vectors that the caller was compiled
// for.
#pragma once

#define WTAL_INLINE inline __attribute__((always_inline))
