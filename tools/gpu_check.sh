#!/usr/bin/env bash
# Everything that only a GPU can prove, and a short report: tools/gpu_check.sh [REPORT.md]
#
# Needs a Python environment whose torch has CUDA, nvcc 12 or 13 (compute-sanitizer comes with it), a C++20 compiler and
# what is on disk: nothing is downloaded, so pip's build requirements (scikit-build-core, pybind11, cmake, ninja) and the
# test requirements must be installed already. --dry-run does what needs no GPU: looks for the tools, and prints the
# commands.
#
# For the GPU's own machine code and then for a build with compute_86 PTX alone, which the driver compiles for whatever
# GPU is there and which so runs the code of the Ampere cards: install, and run the tests marked gpu. Then the ops' tests
# under each tool of compute-sanitizer.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

dry=false
if [ "${1:-}" = --dry-run ]; then dry=true && shift; fi
report=${1:-gpu_check.md}
python=${PYTHON:-python}
failures=0
rows=()

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# step NAME COMMAND...: runs it, keeps its output, notes how it ended.
step() {
  local name=$1 since=$SECONDS log="$work/${#rows[@]}.log" result
  shift
  echo
  echo "== $name: $*"
  if $dry; then return; fi
  "$@" 2>&1 | tee "$log"
  if ((PIPESTATUS[0] == 0)); then
    result=passed
  else
    result=FAILED
    failures=$((failures + 1))
  fi
  rows+=("| $name | $result | $((SECONDS - since)) s | $(tail -n 1 "$log" | tr '|' '/') |")
}

# A test that finds no GPU is skipped, and a run that skips all is no proof.
gpu_tests() {
  local log="$work/tests.log"
  "$python" -P -m pytest -m gpu -q -rs "$@" | tee "$log"
  ((PIPESTATUS[0] == 0)) && grep -q ' passed' "$log" && ! grep -q 'no CUDA device' "$log"
}

# sanitized TOOL: a few examples of each property; the tool slows a kernel down a hundredfold. torch.compile's own
# kernels are not what is looked at.
sanitized() {
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 HYPOTHESIS_PROFILE=sanitized \
    compute-sanitizer --tool "$1" --error-exitcode 9 --target-processes all \
    "$python" -P -m pytest -m gpu -q tests/ops -k 'not compile'
}

# In a build folder of its own, since CMake remembers architectures.
install_for() {
  WTAL_CUDA=ON SKBUILD_BUILD_DIR=build/gpu_check SKBUILD_CMAKE_DEFINE="CMAKE_CUDA_ARCHITECTURES=$1" \
    "$python" -m pip install --no-build-isolation --no-deps --force-reinstall .
}

missing=0
need() {
  if ! eval "$2" > /dev/null 2>&1; then
    echo "missing: $1" >&2
    missing=$((missing + 1))
  fi
}
need "nvcc 12 or 13 on PATH" "command -v nvcc"
need "compute-sanitizer on PATH (part of the CUDA toolkit)" "command -v compute-sanitizer"
need "a C++ compiler (c++ or \$CXX)" "command -v ${CXX:-c++}"
for module in torch scikit_build_core pybind11 pytest hypothesis expecttest; do
  need "$module in the environment of $python" "$python -c 'import $module'"
done
if ! $dry; then
  need "a torch with CUDA that finds a GPU" "$python -c 'import torch; assert torch.cuda.is_available()'"
  if ((missing)); then exit 2; fi
fi

capability=86
if ! $dry; then
  capability=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')
fi

step "build for sm_$capability" install_for "$capability-real"
step "versions" wtal-train --version
step "tests on the GPU, its own code" gpu_tests
for tool in memcheck racecheck initcheck synccheck; do
  step "compute-sanitizer $tool" sanitized "$tool"
done
step "build of compute_86 PTX alone" install_for 86-virtual
step "tests on the GPU, the Ampere code" gpu_tests tests/ops
step "build as shipped" "$python" -m pip install --no-build-isolation --no-deps --force-reinstall .

if $dry; then
  echo
  echo "dry run: nothing was run; $missing of what it needs is missing here"
  exit 0
fi

{
  echo "# GPU check"
  echo
  "$python" - << 'PYTHON'
import platform, subprocess, torch

device = torch.cuda.get_device_properties(0)
driver = subprocess.run(
    ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True
).stdout.split("\n")[0]
nvcc = subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout.split("release ")[-1].split(",")[0]
print(f"* GPU: {torch.cuda.device_count()} x {device.name}, sm_{device.major}{device.minor},", end=" ")
print(f"{device.total_memory / 2**30:.0f} GiB, {device.multi_processor_count} multiprocessors; driver {driver}")
print(f"* torch {torch.__version__}, its CUDA {torch.version.cuda}; nvcc {nvcc}; Python {platform.python_version()}")
PYTHON
  echo "* wtal $(git describe --always --dirty 2> /dev/null || echo 'outside of git'), $(date -u +%Y-%m-%d)"
  echo
  echo "| step | result | time | last line |"
  echo "| --- | --- | --- | --- |"
  printf '%s\n' "${rows[@]}"
} | tee "$report"
echo
echo "written to $report; $failures steps failed"
exit $((failures > 0))
