"""A finished job as the service tells it, for the OpenAPI document; a test holds it against the schema."""

from __future__ import annotations

from typing import Any

_ID = "5f1d3c0a9b7e4f62a8c4d1e0b3f2a697"
_BASE = f"/api/v1/jobs/{_ID}"

JOB: dict[str, Any] = {
    "id": _ID,
    "state": "done",
    "stage": None,
    "title": None,
    "note": None,
    "fraction": 1.0,
    "queue_position": None,
    "seconds_left": None,
    "attempt": 1,
    "parameters": {"method": "qsm-vit", "reference": "mean", "te_ms": [4.0, 12.0, 20.0, 28.0], "b0": 3.0},
    "scan": {"shape": [160, 160, 160], "voxel_size_mm": [1.0, 1.0, 1.0], "echoes": 4},
    "created_at": "2026-11-23T08:15:00Z",
    "started_at": "2026-11-23T08:15:01Z",
    "finished_at": "2026-11-23T08:15:19Z",
    "problem": None,
    "warnings": [],
    "scores": {"physics_check": 0.97},
    "timings": {"field_mapping": 3.1, "background": 4.4, "network": 6.0},
    "files": [
        {"role": "phase", "name": "sub-01_part-phase_MEGRE.nii.gz", "size": 41943040, "sha256": "9f" * 32}
    ],
    "artefacts": [
        {
            "name": "chi",
            "title": "Susceptibility",
            "unit": "ppm",
            "window": [-0.1, 0.2],
            "file": "sub-01_Chimap.nii.gz",
            "size": 14680064,
            "shape": [160, 160, 160],
            "voxel_size": [1.0, 1.0, 1.0],
            "href": f"{_BASE}/artefacts/chi",
            "slices": f"{_BASE}/slices/chi.png",
        }
    ],
    "links": {
        "self": _BASE,
        "events": f"{_BASE}/events",
        "result": f"{_BASE}/result",
        "report": f"{_BASE}/artefacts/report",
        "page": f"{_BASE}/artefacts/page",
        "cancel": f"{_BASE}/cancel",
        "retry": f"{_BASE}/retry",
    },
}
