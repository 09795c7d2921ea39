#!/usr/bin/env bash
# Ten minutes of mutated imzML files: no crash, no hang, no memory without bound, no error but in
# words, no result that pyimzML contradicts. Cases that break a rule are kept in FOLDER.
#   benchmarks/fuzz.sh [SECONDS] [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python}" -m benchmarks.fuzz "${1:-600}" "${2:-fuzz-findings}"
