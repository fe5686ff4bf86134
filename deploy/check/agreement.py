"""Compare a map with the truth it was simulated from: ``agreement.py chi.nii.gz truth.nii.gz``."""

import sys

import nibabel
import numpy as np

LEAST = 0.7

chi, truth = (np.asarray(nibabel.load(name).dataobj) for name in sys.argv[1:3])
if chi.shape != truth.shape or not np.isfinite(chi).all():
    raise SystemExit("That is no map of the sample.")
inside = (chi != 0) & (truth != 0)
correlation = np.corrcoef(chi[inside], truth[inside])[0, 1]
print(f"A map of {inside.sum()} voxels; correlation with the truth {correlation:.3f} (at least {LEAST})")
sys.exit(0 if correlation >= LEAST else 1)
