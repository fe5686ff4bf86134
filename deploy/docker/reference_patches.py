"""Make the patches that a TensorRT engine is checked on, and what ONNX Runtime answers to them.

Run while the image is built: ``reference_patches.py model.onnx FOLDER`` writes ``patches.bin`` and
``correction.bin``, float32 in C order.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray


def smooth_noise(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Noise with the spectrum of anatomy, about 1/k, so that the network is asked something like a scan.

    Parameters
    ----------
    shape : (N, C, P, P, P)
    seed : int

    Returns
    -------
    (N, C, P, P, P) float32
        Unit variance in each channel.
    """
    noise = np.random.default_rng(seed).standard_normal(shape)
    axes = (-3, -2, -1)
    k = np.sqrt(sum(f**2 for f in np.meshgrid(*(np.fft.fftfreq(n) for n in shape[-3:]), indexing="ij")))
    k[0, 0, 0] = np.inf
    volumes = np.fft.ifftn(np.fft.fftn(noise, axes=axes) / k, axes=axes).real
    volumes /= volumes.std(axis=axes, keepdims=True)
    return volumes.astype(np.float32)


if __name__ == "__main__":
    model, folder = sys.argv[1], Path(sys.argv[2])
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    expected = session.get_inputs()[0]
    patches = smooth_noise((1, *(int(n) for n in expected.shape[1:])), seed=20260)
    # The last channel is the mask: a head that fills the patch but for one corner.
    patches[:, -1] = 1
    patches[:, -1, :16, :16, :16] = 0
    patches *= patches[:, -1:]
    (correction,) = session.run(["correction"], {"patches": patches})
    if not np.isfinite(correction).all() or not correction.any():
        raise SystemExit("the network answers nothing sensible to the reference patches")
    folder.mkdir(parents=True, exist_ok=True)
    patches.tofile(folder / "patches.bin")
    correction.astype(np.float32).tofile(folder / "correction.bin")
