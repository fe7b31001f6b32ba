#!/usr/bin/env bash
# Everything that only a GPU can prove or measure, in ten minutes and without a network, most important first:
#
#   tools/gpu_check.sh                  into $OUT, or the folder gpu_check_results
#   tools/gpu_check.sh --dry-run        the same on the CPU, with small sizes: the script itself is checked
#   tools/gpu_check.sh --report         only writes the report again, from what an interrupted run left
#
# docs/gpu.md says what it needs and what it writes; --help lists the options.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$root/tools${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" -P -m gpu_check "$@"
