// The Python module wtal._native. Importing it registers the ops of library.cpp. It includes no torch header:
// torch's own pybind11 headers do not compile beside the stable ABI.
#include <pybind11/pybind11.h>

#include "matching.h"

namespace py = pybind11;

namespace {

py::dict build_facts() {
  py::dict facts;
  facts["torch"] = WTAL_TORCH_VERSION;
  facts["compiler"] = WTAL_COMPILER;
#ifdef WTAL_CUDA_VERSION
  facts["cuda"] = WTAL_CUDA_VERSION;
  facts["cuda_architectures"] = WTAL_CUDA_ARCHITECTURES;
#else
  facts["cuda"] = py::none();
  facts["cuda_architectures"] = py::none();
#endif
  return facts;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Native kernels of wtal; importing this module registers torch.ops.wtal.*";
  m.def("build_facts", &build_facts,
        "What this build was made with: torch, compiler, cuda (None without CUDA kernels), "
        "cuda_architectures.");
  using py::literals::operator""_a;
  m.def("match_detections", &wtal::match_detections, "segments"_a, "scores"_a, "videos"_a, "classes"_a,
        "truth_segments"_a, "truth_videos"_a, "truth_classes"_a, "tiou"_a,
        "Greedy matching of the official ActivityNet evaluation; see wtal.ops.matching.");
}
