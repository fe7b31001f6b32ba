// Greedy matching of detections to ground truth, as the official ActivityNet evaluation does it. Of equal
// tIoU the ground truth of the highest index is tried first. NumPy in and out.
#pragma once
#include <pybind11/numpy.h>

#include <cstdint>

namespace wtal {

using Doubles = pybind11::array_t<double, pybind11::array::c_style>;
using Indices = pybind11::array_t<int64_t, pybind11::array::c_style>;

// segments [D, 2], scores, videos, classes [D]; truth_segments [G, 2], truth_videos, truth_classes [G]; tiou
// [K]
// -> [K, D]: the ground truth that each detection matches at each threshold, -1 for none
Indices match_detections(const Doubles& segments, const Doubles& scores, const Indices& videos,
                         const Indices& classes, const Doubles& truth_segments, const Indices& truth_videos,
                         const Indices& truth_classes, const Doubles& tiou);

}  // namespace wtal
