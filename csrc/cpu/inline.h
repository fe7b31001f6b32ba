// Marks a function that is inlined into each caller and uses the caller's vector instructions.
#pragma once

#define WTAL_INLINE inline __attribute__((always_inline))
