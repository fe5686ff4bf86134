"""The command line that does what a job did."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

_FILE_OPTIONS = {
    "phase": "",
    "magnitude": "--magnitude",
    "total_field": "--total-field",
    "local_field": "--local-field",
    "mask": "--mask",
}
_OPTIONS = {
    "te_ms": "--te-ms",
    "b0": "--b0",
    "b0_direction": "--b0-direction",
    "phase_sign": "--phase-sign",
    "method": "--method",
    "reference": "--reference",
    "unwrapping": "--unwrapping",
    "background": "--background",
}
_DEFAULTS = {"phase_sign": "auto", "unwrapping": "path", "background": "pdf"}


def command_line(files: Sequence[tuple[str, str]], parameters: Mapping[str, Any]) -> str:
    """The equivalent ``qsm-ai reconstruct``, one group of options a line.

    Parameters
    ----------
    files : (role, file name)
        Sidecars are left out: the command line finds those beside the images, and the options override them.
    parameters : as the API names them
    """
    groups = [["qsm-ai reconstruct"]]
    for role, option in _FILE_OPTIONS.items():
        names = [shlex.quote(name) for given, name in files if given == role]
        if names:
            groups.append([option, *names] if option else names)
    options = []
    for key, option in _OPTIONS.items():
        value = parameters.get(key)
        if value is not None and value != [] and value != _DEFAULTS.get(key):
            options.append(f"{option} {_words(value)}")
    groups += [options, ["--output qsm"]]
    return " \\\n    ".join(" ".join(group) for group in groups if group)


def _words(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(_words(v) for v in value)
    return f"{value:.10g}" if isinstance(value, float) else shlex.quote(str(value))
