#!/usr/bin/env bash
# bfr+dipole: reads the total field and mask from the first folder, writes chimap.nii.gz (ppm) into the second.
set -euo pipefail
exec "${PYTHON:-python3}" -m qsm_ai.benchmark.submission bfr+dipole "${1:-/input}" "${2:-/output}"
