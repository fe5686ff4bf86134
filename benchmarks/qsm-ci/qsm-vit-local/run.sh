#!/usr/bin/env bash
# dipole: reads the local field and mask from the first folder, writes chimap.nii.gz (ppm) into the second.
set -euo pipefail
exec "${PYTHON:-python3}" -m qsm_ai.benchmark.submission dipole "${1:-/input}" "${2:-/output}"
