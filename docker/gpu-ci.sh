#!/usr/bin/env bash
# What GPU CI runs inside the container: is everything here, tests/gpu, the sample engines, their caches against our reference, three
# batch sizes, accuracy. Every step runs, whatever happened before it; all that they said and wrote is kept.
#
#   docker/gpu-ci.sh [--output FOLDER] [--dry-run[=VERSION]]
#
#   --output FOLDER      where everything goes; default build/gpu-ci/here
#   --dry-run[=VERSION]  the same steps over the rig's simulated TensorRT (make test-rig), without a GPU: shows that this script and
#                        its summary work, and nothing else
#
# FOLDER gets summary.md, steps.tsv and a folder per row of the summary. Exit code 0 if every step ended as expected and the summary
# finds nothing wrong, 1 if not, 2 for wrong usage, 3 where the rig is missing.
# PYTHON names the interpreter; TRTCALIB the command to test, split at blanks.
set -euo pipefail

# On a GPU the slowest step takes about a minute; a hang must not eat the job's time, nor hide the steps after it.
STEP_SECONDS=1200
SIMULATED_VERSION=10.16.1.11
CALIBRATORS=(entropy minmax percentile-99.99)
BATCH_SIZES=(1 8 32)
DATA=data/digits-calibration.yaml
MODEL=data/digits/model.onnx
VALIDATION=data/digits-validation.yaml

usage() { sed -n '2,/^set/{s/^# \{0,1\}//;/^set/d;p}' "$root/docker/gpu-ci.sh"; }

stop() { # CODE MESSAGE: nothing was run
  printf 'gpu-ci: %s\n' "$2" >&2
  exit "$1"
}

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
output="$root/build/gpu-ci/here"
simulated=
while [ $# -gt 0 ]; do
  case "$1" in
    --output)
      [ $# -ge 2 ] || stop 2 "--output needs a folder"
      output="$(realpath -m -- "$2")"
      shift
      ;;
    --dry-run) simulated="$SIMULATED_VERSION" ;;
    --dry-run=?*) simulated="${1#*=}" ;;
    -h | --help)
      usage
      exit 0
      ;;
    *) stop 2 "unknown argument '$1': see docker/gpu-ci.sh --help" ;;
  esac
  shift
done
cd -- "$root"

python="${PYTHON:-python3}"
trtcalib=("$python" -m trtcalib)
summary_options=()
if [ -n "$simulated" ]; then
  export TRTCALIB_RIG="$root/build/rig"
  # As TensorRT does: scales of all tensors, so that the crosscheck has something to check.
  export TRTCALIB_RIG_KNOBS='{"scales_of_all_tensors": true}'
  if [ -z "${PYTHON:-}" ]; then
    python="$TRTCALIB_RIG/venv/bin/python"
    if ! [ -x "$python" ] || ! [ -d "$TRTCALIB_RIG/tensorrt/$simulated" ]; then
      stop 3 "no simulated TensorRT $simulated in build/rig: run make test-rig first"
    fi
  fi
  trtcalib=("$python" -m tests.rig.simulated_cli "$simulated")
  summary_options=(--simulated)
fi
if [ -n "${TRTCALIB:-}" ]; then
  read -r -a trtcalib <<< "$TRTCALIB"
fi

# Only what an earlier run of this script wrote is removed, by name.
groups=(machine tests-gpu "${CALIBRATORS[@]}" "${BATCH_SIZES[@]/#/batch-}")
mkdir -p -- "$output"
if [ -e "$output/steps.tsv" ]; then
  rm -rf -- "${groups[@]/#/$output/}" "$output/summary.md" "$output/steps.tsv"
fi
[ -z "$(ls -A -- "$output")" ] || stop 2 "$output is not empty and not from an earlier run: remove it, or name another folder"
: > "$output/steps.tsv"

failed=
# A command that takes Ctrl-C itself ends with a code of its own, and bash would go on with the next step.
trap 'stop 130 "interrupted"' INT
trap 'stop 143 "ended from outside"' TERM

step() { # GROUP NAME EXPECTED COMMAND...: run it, keep what it says, note how it ends; never ends the script
  local group="$1" name="$2" expected="$3" code=0 start="$SECONDS" said
  shift 3
  said="$output/$group/$name"
  mkdir -p -- "$output/$group"
  printf '== %s: %s\n' "$group" "$name"
  timeout --foreground --kill-after=30 "$STEP_SECONDS" "$@" > "$said.out" 2> "$said.err" < /dev/null || code=$?
  # @Q leaves no tab and no line end in the command.
  printf '%s\t%s\t%d\t%d\t%d\t%s\n' "$group" "$name" "$expected" "$code" "$((SECONDS - start))" "${*@Q}" >> "$output/steps.tsv"
  if [ "$code" -ne "$expected" ]; then
    failed=1
    printf 'ended with %d, expected %d\n' "$code" "$expected"
    if [ -s "$said.err" ]; then tail -n 20 -- "$said.err"; else tail -n 20 -- "$said.out"; fi # pytest's words go to stdout
  fi
}

run_tests() {
  # Torch is in none of the images, and a test that skips is a failure here.
  local tests=(-m pytest tests/gpu -q -p no:cacheprovider --deselect tests/gpu/test_buffers.py::test_works_beside_torch
    --junitxml "$output/tests-gpu/junit.xml")
  if [ -n "$simulated" ]; then
    step tests-gpu pytest 0 env -u TRTCALIB_REQUIRE_GPU "$python" "${tests[@]}"
  else
    step tests-gpu pytest 0 env TRTCALIB_REQUIRE_GPU=1 "$python" "${tests[@]}"
  fi
}

check_cache() { # GROUP CACHE BATCH_SIZE EXPECTED: TensorRT's scales against ours
  step "$1" crosscheck "$4" "${trtcalib[@]}" crosscheck "$2" --model "$MODEL" --data "$DATA" --batch-size "$3" --json
}

make_engine() { # CALIBRATOR: build, compare, run, look inside
  local spec="engines/digits-$1.yaml" engine="$output/$1/digits.engine" cache="$output/$1/digits.cache"
  if [ -z "$has_calibrators" ]; then
    step "$1" build 3 "${trtcalib[@]}" build "$spec" -o "$engine"
    return
  fi
  step "$1" build 0 "${trtcalib[@]}" build "$spec" -o "$engine"
  case "$1" in
    percentile-*)
      # Not TensorRT's scales but ours, under an entropy header. Alone, without its manifest, it must be told from an entropy cache: a
      # crosscheck that agrees with everything would show nothing above.
      step "$1" verify 0 "${trtcalib[@]}" cache verify "$cache"
      mkdir -p -- "$output/$1/alone"
      cp -- "$cache" "$output/$1/alone/" || true # where it is missing, the next step says so
      check_cache "$1" "$output/$1/alone/digits.cache" 32 1
      ;;
    *) check_cache "$1" "$cache" 32 0 ;;
  esac
  step "$1" infer 0 "${trtcalib[@]}" infer "$engine" --data "$VALIDATION" -o "$output/$1/outputs.npz" --json
  step "$1" inspect 0 "${trtcalib[@]}" engine inspect "$engine" --json
}

make_batch() { # BATCH_SIZE: the entropy engine once more, calibrated in batches of this size
  local group="batch-$1"
  step "$group" build 0 "${trtcalib[@]}" build engines/digits-entropy.yaml --batch-size "$1" -o "$output/$group/digits.engine"
  check_cache "$group" "$output/$group/digits.cache" "$1" 0
}

if [ -n "$simulated" ]; then
  step machine nvidia-smi 0 echo "simulated: no GPU was asked for"
  step machine tensorrt 0 echo "$simulated"
else
  step machine nvidia-smi 0 nvidia-smi
  step machine tensorrt 0 "$python" -c 'import tensorrt; print(tensorrt.__version__)'
fi
step machine packages 0 "$python" -m pip --disable-pip-version-check list
step machine doctor 0 "${trtcalib[@]}" doctor --json

version="$(tail -n 1 -- "$output/machine/tensorrt.out")"
has_calibrators=1
if [[ "$version" =~ ^([0-9]+)\. ]] && [ "${BASH_REMATCH[1]}" -ge 11 ]; then
  has_calibrators= # TensorRT 11 removed them: what must happen then is one clear error
fi

run_tests
for calibrator in "${CALIBRATORS[@]}"; do
  make_engine "$calibrator"
done
if [ -n "$has_calibrators" ]; then
  for size in "${BATCH_SIZES[@]}"; do
    make_batch "$size"
  done
fi

"$python" docker/summary.py "$output" --tensorrt "$version" "${summary_options[@]}" || failed=1
if [ -n "${GITHUB_STEP_SUMMARY:-}" ] && [ -f "$output/summary.md" ]; then
  cat -- "$output/summary.md" >> "$GITHUB_STEP_SUMMARY"
fi
[ -z "$failed" ]
