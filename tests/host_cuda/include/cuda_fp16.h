// Stands in for the header of this name: host_cuda.h, which comes before everything, has it all.
#pragma once
