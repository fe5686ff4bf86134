"""Compare what an engine answered with what ONNX Runtime answered; end with 1 when they differ too much.

``check_engine.py answer.json correction.bin BATCH RMS_LIMIT VOXEL_LIMIT``: the first is what trtexec exports,
the second the reference corrections, which the patches of the batch repeat in turn. Standard library only:
it runs in NVIDIA's image.
"""

import json
import math
import sys
from array import array
from pathlib import Path


def main(answer_file: Path, reference_file: Path, batch: int, rms_limit: float, voxel_limit: float) -> None:
    """Print the worst error of the batch; raise ``SystemExit`` when it is beyond a limit.

    Parameters
    ----------
    answer_file, reference_file : Path
    batch : int
        Patches in the answer.
    rms_limit, voxel_limit : float
        Parts of the root mean square of the reference.
    """
    outputs = {output["name"]: output["values"] for output in json.loads(answer_file.read_text())}
    if "correction" not in outputs:
        raise SystemExit(f"build-engine: the engine answers {sorted(outputs)} instead of a correction")
    answer = outputs["correction"]
    reference = array("f")
    reference.frombytes(reference_file.read_bytes())
    if len(answer) % batch:
        raise SystemExit(f"build-engine: {len(answer)} values are no batch of {batch}")
    patch = len(answer) // batch
    if not patch or len(reference) % patch:
        raise SystemExit(f"build-engine: patches of {patch} values, where {len(reference)} were expected")
    worst_rms = worst_voxel = 0.0
    for index in range(batch):
        start = index * patch % len(reference)
        expected = reference[start : start + patch]
        size = math.sqrt(sum(value * value for value in expected) / patch)
        errors = [
            abs(a - e) for a, e in zip(answer[index * patch : (index + 1) * patch], expected, strict=True)
        ]
        rms = math.sqrt(sum(error * error for error in errors) / patch) / size
        if not math.isfinite(rms):
            raise SystemExit("build-engine: the engine answers values that are not finite")
        worst_rms, worst_voxel = max(worst_rms, rms), max(worst_voxel, max(errors) / size)
    print(
        f"build-engine: batch {batch}: error {worst_rms:.1e} of the RMS (limit {rms_limit:g}), "
        f"one voxel {worst_voxel:.1e} (limit {voxel_limit:g})",
        file=sys.stderr,
    )
    if worst_rms > rms_limit or worst_voxel > voxel_limit:
        raise SystemExit(1)


if __name__ == "__main__":
    answer, reference, batch, rms, voxel = sys.argv[1:6]
    main(Path(answer), Path(reference), int(batch), float(rms), float(voxel))
