"""The form: drop files, see what was understood, correct it, send it."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from qsm_ai.ui import session
from qsm_ai.ui.backend import Problem
from qsm_ai.ui.checks import (
    Objection,
    check_direction,
    check_echo_times,
    check_field_strength,
    check_files,
    count_echoes,
    format_times,
    parse_times,
)
from qsm_ai.ui.notices import escape, file_size, format_grid, show_problem
from qsm_ai.ui.submission import (
    BACKGROUNDS,
    METHODS,
    PHASE_SIGNS,
    REFERENCES,
    UNWRAPPINGS,
    Submission,
)
from qsm_ai.ui.uploads import (
    Acquisition,
    File,
    Role,
    in_role,
    read_acquisition,
    read_header,
    readable,
    sort_files,
)

_ROLE_NAMES = {
    Role.PHASE: "Phase",
    Role.MAGNITUDE: "Magnitude",
    Role.MASK: "Brain mask",
    Role.SIDECAR: "JSON sidecar",
    Role.TOTAL_FIELD: "Total field, ppm",
    Role.LOCAL_FIELD: "Local field, ppm",
    Role.UNUSED: "Not used",
}
_ICONS = {
    Role.PHASE: ":material/waves:",
    Role.MAGNITUDE: ":material/contrast:",
    Role.MASK: ":material/select_all:",
    Role.SIDECAR: ":material/data_object:",
    Role.TOTAL_FIELD: ":material/line_curve:",
    Role.LOCAL_FIELD: ":material/line_curve:",
    Role.UNUSED: ":material/block:",
}


def page() -> None:
    """Draw the form; on sending, open the job."""
    st.title("From phase to susceptibility", anchor=False)
    st.markdown(
        "Drop a multi-echo gradient-echo scan. You get a quantitative susceptibility map in ppm, "
        "and a check of that map against the field that was measured."
    )
    left, right = st.columns([11, 9], gap="large")
    with left:
        files = _choose_files()
        roles = _correct_roles(files)
    with right:
        submission, objections = _parameters(files, roles)
        _send(submission, objections, has_files=bool(files))


def _choose_files() -> list[File]:
    sample: list[File] = st.session_state.get("sample", [])
    st.subheader("Scan", anchor=False)
    if sample:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(":material/science: **Sample scan**, simulated by this project: no person's data.")
            st.button("Use my own files", type="tertiary", on_click=_drop_sample)
        return sample
    dropped = st.file_uploader(
        "Phase, magnitude, mask and JSON sidecars, in any order",
        type=["nii", "nii.gz", "gz", "json"],
        accept_multiple_files=True,
        key=f"files/{session.uploads()}",
        help="NIfTI, one file per echo or one 4D file. Phase is enough; magnitude makes the map better.",
    )
    folder = session.sample_folder()
    if not dropped and folder is not None:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption("No scan at hand?", width="content")
            st.button(
                "Try the sample scan",
                icon=":material/science:",
                on_click=lambda: st.session_state.update(sample=session.sample_files(folder)),
            )
    files = {upload.name: File(upload.name, upload.getvalue()) for upload in dropped}
    if len(files) < len(dropped):
        st.warning("Files of the same name were dropped; the last of each is used.", icon=":material/info:")
    return list(files.values())


def _drop_sample() -> None:
    st.session_state.pop("sample", None)


def _correct_roles(files: list[File]) -> dict[str, Role]:
    if not files:
        _explain()
        return {}
    guessed = sort_files(files)
    summary = st.container()
    roles: dict[str, Role] = {}
    unsure = any(role is Role.UNUSED for role in guessed.values())
    with st.expander("Correct the sorting", icon=":material/swap_vert:", expanded=unsure):
        for file in files:
            name, choice = st.columns([3, 2], vertical_alignment="center")
            name.markdown(f"{escape(file.name)}  \n:gray[:small[{file_size(file.size)}]]")
            guess = guessed[file.name]
            options: list[Role] = list(Role)
            roles[file.name] = choice.selectbox(
                f"Role of {file.name}",
                options,
                index=options.index(guess),
                format_func=_ROLE_NAMES.__getitem__,
                label_visibility="collapsed",
                # A new guess is a new widget: what was chosen against the old one no longer counts.
                key=f"role/{file.name}/{guess}",
            )
    with summary:
        for kind in Role:
            chosen = in_role(files, roles, kind)
            if chosen:
                _summarise(kind, chosen)
    return roles


def _summarise(role: Role, files: list[File]) -> None:
    names = escape(files[0].name) if len(files) == 1 else f"{escape(files[0].name)} and {len(files) - 1} more"
    details = [file_size(sum(f.size for f in files))]
    if role not in {Role.SIDECAR, Role.UNUSED} and (header := read_header(files[0].content)):
        details.insert(0, format_grid(header.shape, header.voxel_size))
        echoes = count_echoes([(f.name, read_header(f.content)) for f in files])
        if echoes and role is not Role.MASK:
            details.insert(0, "1 echo" if echoes == 1 else f"{echoes} echoes")
    st.markdown(f"{_ICONS[role]} **{_ROLE_NAMES[role]}**: {names}  \n:gray[:small[{' · '.join(details)}]]")


def _explain() -> None:
    st.space("small")
    for icon, text in (
        ("sort", "Files sort themselves by name: BIDS, dcm2niix, or plain *phase*, *mag*, *mask*"),
        ("schedule", "Echo times and field strength are filled in from the sidecars"),
        ("lock", "Headers lose their free text; deleting a job deletes all its files"),
    ):
        st.markdown(f":gray[:material/{icon}: {text}]")


def _parameters(files: list[File], roles: dict[str, Role]) -> tuple[Submission | None, list[Objection]]:
    chosen = {role: in_role(files, roles, role) for role in Role}
    headers = {role: [(f.name, read_header(f.content)) for f in chosen[role]] for role in Role}
    known = read_acquisition(chosen[Role.PHASE], chosen[Role.SIDECAR])

    st.subheader("Acquisition", anchor=False)
    typed, tesla = _acquisition_inputs(known)
    st.subheader("Reconstruction", anchor=False)
    method = st.segmented_control(
        "Method",
        list(METHODS),
        default="qsm-vit",
        required=True,
        format_func=lambda m: METHODS[m][0],
        key="method",
        width="stretch",
    )
    st.caption(METHODS[method][1])
    reference = st.segmented_control(
        "Zero of the map",
        list(REFERENCES),
        default="mean",
        required=True,
        format_func=REFERENCES.__getitem__,
        key="reference",
        help="Susceptibility is known up to a constant: say what zero means, and report it. "
        "None leaves the map as the inversion made it.",
    )
    with st.expander("Advanced", icon=":material/tune:"):
        background = _choice("Background field removal", BACKGROUNDS, key="background")
        unwrapping = _choice("Phase unwrapping", UNWRAPPINGS, key="unwrapping")
        sign = _choice(
            "Sign of the phase",
            PHASE_SIGNS,
            key="sign",
            help="Some scanners (GE, for one) store phase with the opposite sign: iron would come out dark.",
        )
        direction = _direction_input()

    fields = [*headers[Role.TOTAL_FIELD], *headers[Role.LOCAL_FIELD]]
    objections = check_files(headers[Role.PHASE], headers[Role.MAGNITUDE], headers[Role.MASK], fields)
    if chosen[Role.PHASE] or not fields:
        objections += check_echo_times(typed, count_echoes(headers[Role.PHASE]) or None)
        objections += check_field_strength(tesla)
    if direction is not None:
        objections += check_direction(direction)
    if objections:
        return None, objections
    # Said to be left aside above; the service would refuse the scan for them.
    chosen[Role.SIDECAR] = readable(chosen[Role.SIDECAR])
    submission = Submission(
        files={role: found for role, found in chosen.items() if role is not Role.UNUSED},
        echo_times_ms=parse_times(typed) if chosen[Role.PHASE] else (),
        field_strength=tesla,
        method=method,
        reference=reference,
        unwrapping=unwrapping,
        background=background,
        phase_sign=sign,
        b0_direction=direction,
    )
    return submission, []


def _choice(label: str, options: Mapping[str, str], *, key: str, help: str | None = None) -> str:  # noqa: A002
    return st.selectbox(label, list(options), format_func=options.__getitem__, key=key, help=help)


def _acquisition_inputs(known: Acquisition) -> tuple[str, float | None]:
    times, strength = st.columns([2, 1])
    default = format_times(known.echo_times_ms)
    _preset("times", default)
    _preset("tesla", known.field_strength)
    typed = times.text_input("Echo times (ms)", placeholder="e.g. 4, 12, 20, 28", key="times")
    tesla = strength.number_input(
        "Field strength (T)",
        value=None,
        min_value=0.0,
        step=0.5,
        format="%.4g",
        placeholder="e.g. 3",
        key="tesla",
    )
    if default or known.field_strength is not None:
        found = ["echo times"] * bool(default) + ["field strength"] * (known.field_strength is not None)
        st.caption(f":material/check: {' and '.join(found).capitalize()} read from the sidecars.")
    for note in known.notes:
        st.warning(escape(note), icon=":material/info:")
    return typed, tesla


def _preset(key: str, value: object) -> None:
    """Fill a field when the sidecars say something new; otherwise what was typed stays."""
    if key not in st.session_state or st.session_state.get(f"preset/{key}") != value:
        st.session_state[key] = value
        st.session_state[f"preset/{key}"] = value


def _direction_input() -> tuple[float, float, float] | None:
    by_hand = st.toggle(
        "Give the direction of B0",
        key="by_hand",
        help="Otherwise it is read from the image's orientation, which is right unless the header was lost.",
    )
    if not by_hand:
        return None
    columns = st.columns(3)
    x, y, z = (
        column.number_input(axis, value=value, step=0.01, format="%.4f", key=f"direction/{axis}")
        for column, axis, value in zip(columns, ("x", "y", "z"), (0.0, 0.0, 1.0), strict=True)
    )
    return x, y, z


def _send(submission: Submission | None, objections: list[Objection], *, has_files: bool) -> None:
    st.space("small")
    clicked = st.button(
        "Reconstruct",
        type="primary",
        icon=":material/play_arrow:",
        width="stretch",
        disabled=submission is None,
    )
    if has_files and objections:
        lines = [f"{escape(objection.sentence)} {escape(objection.mend)}" for objection in objections]
        st.warning("\n\n".join(lines), icon=":material/edit:")
    if clicked and submission is not None:
        entries, key = session.history(), session.request_key(submission)
        try:
            with st.spinner("Sending and checking the scan…"):
                job = session.backend().submit(submission, key)
                # Whatever was clicked meanwhile ends this run at the next touch of the page.
                session.remember(job, entries)
        except Problem as problem:
            show_problem(problem)
        else:
            session.show(job.id)
            session.clear_upload()
            st.rerun()
