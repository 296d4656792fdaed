#!/usr/bin/env bash
# Lint calibration caches for GitHub Actions. From the environment: PATHS (one path or pattern a line), else BASE (a commit to
# compare with); MODEL; FAIL_ON. Exit codes: 0; 1 a finding; 2 usage or input. All names may be hostile.
set -euo pipefail

caches=()

given() {
  local line match found
  while IFS= read -r line; do
    line="${line%$'\r'}"
    [ -n "${line//[[:space:]]/}" ] || continue
    if [ -e "$line" ]; then
      caches+=("$line")
      continue
    fi
    found=
    while IFS= read -r match; do
      caches+=("$match")
      found=1
    done < <(compgen -G "$line" || true)
    if [ -z "$found" ]; then
      printf 'lint-cache: no file fits %q, which the input paths names\n' "$line" >&2
      exit 2
    fi
  done <<< "$PATHS"
}

changed() {
  local base fork file
  if [ -z "${BASE:-}" ]; then
    echo "lint-cache: there is no base to compare with, since this is no pull request: give the input paths or base" >&2
    exit 2
  fi
  if ! base="$(git rev-parse --verify --quiet --end-of-options "$BASE^{commit}")"; then
    printf 'lint-cache: the commit %q is not in this checkout: give actions/checkout fetch-depth: 0\n' "$BASE" >&2
    exit 2
  fi
  if ! fork="$(git merge-base "$base" HEAD)"; then
    printf 'lint-cache: %q and HEAD have no common commit in this checkout: give actions/checkout fetch-depth: 0\n' "$BASE" >&2
    exit 2
  fi
  while IFS= read -r -d '' file; do
    caches+=("$file")
  done < <(git diff --name-only -z --no-renames --diff-filter=d "$fork" HEAD -- ':(top,icase)*.cache')
  cd "$(git rev-parse --show-toplevel)"
}

if [ -n "${PATHS:-}" ]; then given; else changed; fi

worst=0
linted=0
for cache in "${caches[@]+"${caches[@]}"}"; do
  # A link in a pull request may lead to any file of the machine, whose lines would be quoted.
  if [ -L "$cache" ]; then
    printf 'lint-cache: passed over %q, which is a link\n' "$cache"
    continue
  fi
  linted=$((linted + 1))
  code=0
  python -I -m trtcalib cache lint --github "--fail-on=${FAIL_ON:-warning}" ${MODEL:+"--model=$MODEL"} -- "$cache" || code=$?
  if [ "$code" -gt "$worst" ]; then worst=$code; fi
done
echo "lint-cache: $linted calibration caches were linted"
exit "$worst"
