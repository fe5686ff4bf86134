"""Make what a TensorRT engine is built from and checked on, from the ONNX file that is served otherwise.

Run while the image is built: ``reference_patches.py model.onnx mixed.onnx FOLDER`` writes

``patches.bin``     reference patches, float32 in C order
``shape``           of one of them, such as 6x96x96x96
``correction.bin``  what ONNX Runtime answers to them in float32
``mixed.onnx``      the half-precision network, which must have agreed
``parity.json``     by how much it did
``made-from``       the digest of model.onnx, so that an engine is never built for another network
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

LARGEST_RMS, LARGEST_VOXEL = 0.002, 0.1
"""How far the half-precision network may stray, as parts of the root mean square of the correction."""


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


def reference_patches(shape: tuple[int, ...], seed: int = 20260) -> NDArray[np.float32]:
    """A usual patch, and one with a microbleed and a calcification a hundred times the usual contrast.

    Parameters
    ----------
    shape : (C, P, P, P)
        The last two channels are the mask and the strength of edges, from zero to one.
    seed : int

    Returns
    -------
    (2, C, P, P, P) float32
    """
    patches = smooth_noise((2, *shape), seed)
    grid = np.indices(shape[1:])
    for centre, contrast in ((shape[1] // 3, 100.0), (2 * shape[1] // 3, -100.0)):
        lesion = ((grid - centre) ** 2).sum(axis=0) <= (shape[1] // 24) ** 2
        patches[1, :-2, lesion] += contrast
    # A head that fills the patch but for one corner.
    edge = shape[1] // 6
    mask = np.ones(shape[1:], np.float32)
    mask[:edge, :edge, :edge] = 0
    patches[:, -2] = 1
    patches[:, -1] = 1 - 1 / (1 + patches[:, -1] ** 2)
    return patches * mask


def disagreement(answer: NDArray[np.float32], expected: NDArray[np.float32]) -> dict[str, float]:
    """The error of answers, patch by patch, the worst kept.

    Parameters
    ----------
    answer, expected : (N, 1, P, P, P) float32

    Returns
    -------
    dict
        ``rms`` and ``voxel`` (the largest), as parts of the root mean square of what was expected.
    """
    axes = (1, 2, 3, 4)
    size = np.sqrt(np.mean(np.square(expected, dtype=np.float64), axis=axes))
    error = answer.astype(np.float64) - expected
    return {
        "rms": float(np.max(np.sqrt(np.mean(error**2, axis=axes)) / size)),
        "voxel": float(np.max(np.max(np.abs(error), axis=axes) / size)),
    }


def main(model: Path, mixed: Path, folder: Path) -> None:
    """Write the folder, or end with a sentence that says why not.

    Parameters
    ----------
    model, mixed : Path
        ONNX files.
    folder : Path
    """

    def answers(file: Path, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return np.concatenate([session.run(None, {"patches": patch[None]})[0] for patch in patches])

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    patches = reference_patches(tuple(session.get_inputs()[0].shape[1:]))
    correction = answers(model, patches)
    if not np.isfinite(correction).all() or not correction.any():
        raise SystemExit("The network answers nothing sensible to the reference patches.")
    strays = disagreement(answers(mixed, patches), correction)
    said = f"half precision strays by {strays['rms']:.1e} (one voxel by {strays['voxel']:.1e}) of the RMS"
    if not (strays["rms"] <= LARGEST_RMS and strays["voxel"] <= LARGEST_VOXEL):
        raise SystemExit(f"The network cannot be served so: {said}.")
    print(said)
    folder.mkdir(parents=True, exist_ok=True)
    patches.tofile(folder / "patches.bin")
    (folder / "shape").write_text("x".join(map(str, patches.shape[1:])) + "\n")
    correction.tofile(folder / "correction.bin")
    shutil.copyfile(mixed, folder / "mixed.onnx")
    (folder / "parity.json").write_text(json.dumps(strays) + "\n")
    (folder / "made-from").write_text(hashlib.sha256(model.read_bytes()).hexdigest() + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
