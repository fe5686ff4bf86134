#!/usr/bin/env bash
# end-to-end: reads phase, magnitude and mask from the first folder, writes chimap.nii.gz (ppm) into the second.
set -euo pipefail
exec "${PYTHON:-python3}" -m qsm_ai.benchmark.submission end-to-end "${1:-/input}" "${2:-/output}"
