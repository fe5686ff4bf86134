"""Three orthogonal planes through one point of a result, and a second map beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import streamlit as st
from PIL import Image
from streamlit.delta_generator import DeltaGenerator

from qsm_ai.ui import session, volume
from qsm_ai.ui.backend import Artefact, Axis, Job, Problem, Statistics
from qsm_ai.ui.notices import escape, quantity, show_problem
from qsm_ai.ui.paint import Palette, Plane, colour_bar, paint, png_bytes, stack

AXES: tuple[Axis, ...] = ("axial", "coronal", "sagittal")
_ALONG: Mapping[Axis, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
_DIRECTIONS: Mapping[Axis, str] = {
    "axial": "inferior to superior",
    "coronal": "posterior to anterior",
    "sagittal": "left to right",
}
SLICES, VOLUME = "Slices", "Volume"
_PALETTES: Mapping[Palette, str] = {"grey": "Grey", "blue-red": "Blue to red"}


@dataclass(frozen=True)
class View:
    """What of which volume is looked at, and how.

    Attributes
    ----------
    artefact : Artefact
    point : voxel indices along right, anterior, superior
    window : display range in the artefact's unit
    palette : Palette
    crosshair : bool
    masked : bool
        Whether what lies outside the brain is left black.
    """

    artefact: Artefact
    point: tuple[int, int, int]
    window: tuple[float, float]
    palette: Palette
    crosshair: bool
    masked: bool


def plane_through(artefact: Artefact, axis: Axis, point: tuple[int, int, int]) -> Plane:
    """Where a point lies in one of the API's slices.

    The slices are drawn as radiologists look at them: the patient's right at the left, the front of sagittal
    slices at the left, anterior and superior up.
    """
    x, y, z = (
        ((index + 0.5) / count, count * edge)
        for index, count, edge in zip(point, artefact.shape, artefact.voxel_size, strict=True)
    )
    if axis == "axial":
        return Plane((1 - x[0], 1 - y[0]), (x[1], y[1]), ("R", "L", "A", "P"))
    if axis == "coronal":
        return Plane((1 - x[0], 1 - z[0]), (x[1], z[1]), ("R", "L", "S", "I"))
    return Plane((1 - y[0], 1 - z[0]), (y[1], z[1]), ("A", "P", "S", "I"))


@st.fragment
def viewer(job: Job) -> None:
    """Draw the planes with their controls; only this part of the page runs again when one is moved."""
    volumes = [a for a in job.artefacts if a.unit]
    if not volumes:
        st.info("This job has no map to look at.")
        return
    masked = any(a.name == "mask" for a in job.artefacts)
    if volume.installed() and _choose_way(job.id) == VOLUME:
        _whole(job, volumes, masked=masked)
        return
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        shown = _choose("Map", volumes, default="chi", key=f"map/{job.id}")
        others = [a for a in volumes if a.name != shown.name]
        beside = _choose_beside(others, key=f"beside/{job.id}")
        crosshair = st.toggle("Crosshair", value=True, key=f"crosshair/{job.id}")
        picture = st.container(width="content")
    window, palette = _look(job.id, shown)
    columns = st.columns(len(AXES), gap="small")
    places = [column.container() for column in columns]
    point = _point(job.id, shown, columns)
    rows = _draw(job.id, View(shown, point, window, palette, crosshair, masked), places)
    if beside is not None:
        window, palette = _look(job.id, beside)
        places = st.columns(len(AXES), gap="small")
        rows += _draw(job.id, View(beside, point, window, palette, crosshair, masked), places)
    if rows:
        picture.download_button(
            "Picture",
            data=lambda: png_bytes(stack(rows)),
            file_name=f"{job.name}_{shown.name}_{'-'.join(map(str, point))}.png",
            mime="image/png",
            icon=":material/image:",
            help="These slices as one PNG.",
            on_click="ignore",
            key=f"picture/{job.id}",
        )
    _sphere(job.id, [shown] if beside is None else [shown, beside], point)


def _choose_way(job_id: str) -> str | None:
    return st.segmented_control(
        "View",
        [SLICES, VOLUME],
        default=SLICES,
        required=True,
        key=f"way/{job_id}",
        label_visibility="collapsed",
        help="Volume: planes that follow the mouse, and the brain as a whole. It is drawn by this browser.",
    )


def _whole(job: Job, volumes: list[Artefact], *, masked: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        shown = _choose("Map", volumes, default="chi", key=f"map/{job.id}")
        crosshair = st.toggle("Crosshair", value=True, key=f"crosshair/{job.id}")
    window, palette = _look(job.id, shown)
    try:
        volume.show_volume(job.id, shown, window, palette, crosshair=crosshair, masked=masked)
    except Problem as problem:
        show_problem(problem)


def _choose(label: str, volumes: list[Artefact], *, default: str, key: str) -> Artefact:
    names = [a.name for a in volumes]
    titles = {a.name: a.title for a in volumes}
    name = st.selectbox(
        label,
        names,
        index=names.index(default) if default in names else 0,
        format_func=titles.__getitem__,
        key=key,
        width=320,
    )
    return next(a for a in volumes if a.name == name)


def _choose_beside(volumes: list[Artefact], *, key: str) -> Artefact | None:
    names = ["", *(a.name for a in volumes)]
    titles = {"": "Nothing", **{a.name: a.title for a in volumes}}
    name = st.selectbox(
        "Compare with",
        names,
        index=names.index("residual") if "residual" in names else 0,
        format_func=titles.__getitem__,
        key=key,
        width=320,
    )
    return next((a for a in volumes if a.name == name), None)


def _look(job_id: str, artefact: Artefact) -> tuple[tuple[float, float], Palette]:
    low, high = artefact.window
    signed = low < 0
    reach = 3 * max(abs(low), abs(high))
    step = (high - low) / 100
    title, slider, bar, palettes = st.columns([4, 5, 4, 3], vertical_alignment="center", gap="medium")
    title.markdown(f"**{artefact.title}**")
    window = slider.slider(
        f"Window ({artefact.unit})",
        min_value=-reach if signed else 0.0,
        max_value=reach,
        value=(low, high),
        step=step,
        format=f"%.{decimals(step)}f {artefact.unit}",
        key=f"window/{job_id}/{artefact.name}",
        label_visibility="collapsed",
    )
    palette: Palette = "grey"
    if signed:
        palette = palettes.segmented_control(
            "Colours",
            list(_PALETTES),
            default="blue-red" if artefact.name == "residual" else "grey",
            required=True,
            format_func=_PALETTES.__getitem__,
            key=f"palette/{job_id}/{artefact.name}",
            label_visibility="collapsed",
        )
    if window[0] >= window[1]:
        window = (window[0], window[0] + step)
    with bar:
        st.image(colour_bar(palette), width="stretch", output_format="PNG", alt="Colour bar")
    return window, palette


def _point(job_id: str, artefact: Artefact, columns: Sequence[DeltaGenerator]) -> tuple[int, int, int]:
    # In the columns of the pictures: where a narrow window stacks them, each slider stays below its own.
    indices = {}
    for axis, place in zip(AXES, columns, strict=True):
        count = artefact.shape[_ALONG[axis]]
        indices[axis] = place.slider(
            f"{axis.capitalize()} slice, {_DIRECTIONS[axis]}",
            min_value=0,
            max_value=max(1, count - 1),
            value=count // 2,
            key=f"slice/{job_id}/{axis}",
            label_visibility="collapsed",
        )
    return indices["sagittal"], indices["coronal"], indices["axial"]


def _sphere(job_id: str, artefacts: list[Artefact], point: tuple[int, int, int]) -> None:
    choice, *places = st.columns([2, 3, 3], gap="medium")
    radius = choice.number_input(
        "Sphere at the crosshair, radius (mm)",
        min_value=0.5,
        max_value=50.0,
        value=3.0,
        step=0.5,
        format="%.1f",
        key=f"radius/{job_id}",
    )
    for artefact, place in zip(artefacts, places, strict=False):
        try:
            found = _in_sphere(job_id, artefact.name, point, radius)
        except Problem as problem:
            place.caption(f"{artefact.title}: {escape(problem.sentence)}")
            continue
        place.metric(
            artefact.title,
            spread(found, artefact.unit),
            help=f"Mean and standard deviation over {found.voxels} voxels of the brain.",
        )


def spread(found: Statistics, unit: str) -> str:
    """Mean and standard deviation with one unit."""
    mean = quantity(found.mean, unit).removesuffix(f" {unit}")
    return f"{mean} ± {quantity(found.standard_deviation, unit)}"


@st.cache_data(scope="session", max_entries=200, ttl=3600, show_spinner=False)
def _in_sphere(job_id: str, artefact: str, centre: tuple[int, int, int], radius: float) -> Statistics:
    return session.backend().statistics(job_id, artefact, centre=centre, radius=radius)


def _draw(job_id: str, view: View, places: Sequence[DeltaGenerator]) -> list[list[Image.Image]]:
    try:
        pictures = draw(job_id, view)
    except Problem as problem:
        show_problem(problem)
        return []
    for axis, place, picture in zip(AXES, places, pictures, strict=True):
        place.image(picture, width="stretch", alt=f"{view.artefact.title}, {axis} slice")
    return [pictures]


def draw(job_id: str, view: View) -> list[Image.Image]:
    """The three planes of a view, at one scale.

    Raises
    ------
    Problem
        The API did not give the slices.
    """
    planes = {axis: plane_through(view.artefact, axis, view.point) for axis in AXES}
    millimetres = max(max(plane.extent) for plane in planes.values())
    pictures = []
    for axis, plane in planes.items():
        index = view.point[_ALONG[axis]]
        pictures.append(
            paint(
                _slice(job_id, view.artefact.name, axis, index, view.window),
                plane,
                palette=view.palette,
                millimetres=millimetres,
                mask=_slice(job_id, "mask", axis, index, (0.0, 1.0)) if view.masked else None,
                crosshair=view.crosshair,
            )
        )
    return pictures


@st.cache_data(scope="session", max_entries=900, ttl=3600, show_spinner=False)
def _slice(job_id: str, artefact: str, axis: Axis, index: int, window: tuple[float, float]) -> bytes:
    return session.backend().slice(job_id, artefact, axis, index, window)


def decimals(step: float) -> int:
    """Digits behind the point that tell neighbouring steps apart."""
    digits = 0
    while digits < 6 and abs(step - round(step, digits)) > 1e-9:
        digits += 1
    return digits
