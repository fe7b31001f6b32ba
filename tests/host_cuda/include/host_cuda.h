// A test-only stand-in for CUDA: g++ -include host_cuda.h compiles the templates that nvcc compiles, and each
// block runs on one thread of the host, its CUDA threads as fibers. See README.md beside this folder.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>

#define HOST_CUDA 1

#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#ifndef __restrict__
#define __restrict__ __restrict
#endif

#include "host_cuda/vectors.h"
// Order matters: each builds on the ones before.
#include "host_cuda/async_copy.h"
#include "host_cuda/atomics.h"
#include "host_cuda/block.h"
#include "host_cuda/fiber.h"
#include "host_cuda/half.h"
#include "host_cuda/intrinsics.h"
#include "host_cuda/launch.h"
#include "host_cuda/memory.h"
#include "host_cuda/tensor_core.h"
#include "host_cuda/warp.h"
