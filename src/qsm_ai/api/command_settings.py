"""Settings for commands on the machine of the service, and how these commands refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from qsm_ai.api.settings import Settings

REFUSED = 2
"""Exit status where settings, database or options are not such that a command may do its work."""


def settings_or_refuse(**given: Any) -> Settings:
    """The settings of the environment, but for those given.

    Parameters
    ----------
    **given
        Fields of :class:`settings.Settings`.

    Returns
    -------
    Settings

    Raises
    ------
    typer.Exit
        If they cannot be, after a sentence for each that is wrong.
    """
    from pydantic import ValidationError

    from qsm_ai.api.settings import Settings, say

    try:
        return Settings(**given)
    except ValidationError as error:
        refuse(say(error))


def refuse(sentence: str) -> NoReturn:
    """Say why not, and end.

    Parameters
    ----------
    sentence : str

    Raises
    ------
    typer.Exit
        Always.
    """
    typer.secho(sentence, err=True, fg=typer.colors.RED)
    raise typer.Exit(REFUSED)
