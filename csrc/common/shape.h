// Prints the shape of a tensor, for the argument checks of all ops.
#pragma once
#include <torch/csrc/stable/tensor.h>

#include <string>

namespace wtal {

inline std::string shape_of(const torch::stable::Tensor& tensor) {
  std::string text = "[";
  for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
    if (dim > 0) text += ", ";
    text += std::to_string(tensor.size(dim));
  }
  return text + "]";
}

}  // namespace wtal
