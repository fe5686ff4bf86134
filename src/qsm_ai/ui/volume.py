"""A whole volume in the page, drawn by NiiVue in the reader's browser, where its assets are installed."""

from __future__ import annotations

from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.components.v1 import declare_component

from qsm_ai.ui import session
from qsm_ai.ui.backend import Artefact
from qsm_ai.ui.paint import Palette, colours

ASSETS = Path(__file__).with_name("volume_view")
"""The component; NiiVue itself is put there by ``make niivue``."""

LARGEST = 20_000_000
"""Voxels that are sent to a browser: a head at 0.7 mm. The page holds them while its reader looks on."""


def installed() -> bool:
    """Whether NiiVue is there."""
    return (ASSETS / "niivue.js").is_file()


def colour_map(palette: Palette) -> dict[str, list[int]]:
    """A palette as NiiVue has them: what lies below the window is clear, so that the air hides no brain.

    Parameters
    ----------
    palette : Palette

    Returns
    -------
    dict
        Places ``I`` from 0 to 255 with red, green, blue and opacity.
    """
    chosen = colours(palette)
    channels = {letter: [int(v) for v in chosen[:, k]] for k, letter in enumerate("RGB")}
    places = range(len(chosen))
    return {**channels, "A": [0 if place == 0 else 128 for place in places], "I": list(places)}


def show_volume(
    job_id: str,
    artefact: Artefact,
    window: tuple[float, float],
    palette: Palette,
    *,
    crosshair: bool,
    masked: bool,
) -> None:
    """Draw three planes that follow the mouse, and the brain as a whole.

    Parameters
    ----------
    job_id : str
    artefact : Artefact
        One of its volumes.
    window : display range in the artefact's unit
    palette : Palette
    crosshair : bool
    masked : bool
        Whether what lies outside the brain is left black.

    Raises
    ------
    Problem
        The API did not give the volume.
    """
    if prod(artefact.shape) > LARGEST:
        st.info(
            "This volume is too large for a browser. The slices show it, and the files open in any viewer."
        )
        return
    _component()(
        identity=f"{job_id}/{artefact.name}",
        name=artefact.file,
        volume=_file(job_id, artefact.name),
        mask=_file(job_id, "mask") if masked else None,
        low=window[0],
        high=window[1],
        unit=artefact.unit,
        colours=colour_map(palette),
        crosshair=crosshair,
        key=f"volume/{job_id}",
    )


@cache
def _component() -> Any:
    return declare_component("volume", path=str(ASSETS))


@st.cache_data(scope="session", max_entries=3, ttl=3600, show_spinner="Fetching the volume…")
def _file(job_id: str, artefact: str) -> bytes:
    return session.backend().artefact(job_id, artefact)
