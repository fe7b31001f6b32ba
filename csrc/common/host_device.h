// Marks a function that CPU and CUDA kernels share.
#pragma once

#ifdef __CUDACC__
#define WTAL_HOST_DEVICE __host__ __device__
#else
#define WTAL_HOST_DEVICE
#endif
