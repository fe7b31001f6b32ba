#!/usr/bin/env bash
# One build, several torch versions: builds one wheel against the torch of this environment, then runs the op tests
# with that same file beside each torch named.
#
#   tools/check_torch_versions.sh [TORCH ...]    default: current 'torch==2.11.*' torch==2.13.0
#
# "current" is the torch of this environment. Any other is installed into an empty environment, together with numpy,
# pytest, hypothesis and expecttest and nothing else: wtal.ops and its tests need no more. Whether torch==2.13.0 is a
# CPU or a CUDA build depends on the package index; the table says which it was.
# HYPOTHESIS_PROFILE=default draws as many examples as the full test run does. WTAL_CUDA=ON|OFF|AUTO is the build's.
set -euo pipefail
cd "$(dirname "$0")/.."
if (($# == 0)); then set -- current 'torch==2.11.*' torch==2.13.0; fi
export HYPOTHESIS_PROFILE=${HYPOTHESIS_PROFILE:-quick} PIP_DISABLE_PIP_VERSION_CHECK=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python -m pip wheel -q --no-deps -w "$work" .
wheel=$(echo "$work"/wtal-*.whl)
hash=$(sha256sum "$wheel" | cut -c1-64)
echo "$(basename "$wheel"), $(($(stat -c %s "$wheel") / 1024)) KiB, sha256 $hash"

# The kernels on the host shim are another build. Some of its tests have a marker, others only its name.
without=(-m "not cuda_on_host and not cuda_on_ptx" -k "not cuda-on-host and not cuda-on-ptx")

status=0
table=""
for torch in "$@"; do
  echo "-- $torch"
  : > "$work/log"  # not that of the torch before
  environment=$work/environment
  python -m venv --clear "$environment"
  if [ "$torch" = current ]; then
    # This environment's packages, but behind the wheel under test, which may be installed here as well.
    python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$(echo "$environment"/lib/python*/site-packages)/current.pth"
  else
    "$environment/bin/pip" install -q "$torch" numpy pytest hypothesis expecttest
  fi
  "$environment/bin/pip" install -q --no-deps --force-reinstall "$wheel"
  if facts=$("$environment/bin/python" -P tools/check_kernels.py) &&
    "$environment/bin/python" -P -m pytest -q -p no:cacheprovider --show-capture=no tests/ops "${without[@]}" > "$work/log" 2>&1; then
    verdict=passed
  else
    verdict=FAILED status=1
    cat "$work/log"
  fi
  table+="$facts  wheel ${hash:0:8}  op tests $verdict: $(tail -n 1 "$work/log")"$'\n'
done
printf '\n%s' "$table"
exit $status
