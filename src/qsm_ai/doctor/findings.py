"""What the doctor found: one sentence for each thing looked at, and the mend where something is wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["ok", "warning", "wrong", "skipped"]
Fact = str | int | float | bool | None

_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"]+", re.IGNORECASE)
_HOST = re.compile(r"\b(?:[\w-]+\.)*[\w-]+:\d{2,5}\b")
_PATH = re.compile(r"(?<![\w/])/(?:[\w.@+-]+/)+[\w.@+-]*")
_FILE = re.compile(r"\b[\w.+-]+\.(?:nii(?:\.gz)?|dcm|zip|json|db|pem|key|crt)\b", re.IGNORECASE)
_MAIL = re.compile(r"\b[\w.+-]+@[\w.-]+\.\w+\b")
_KEY = re.compile(r"\b(?:Bearer\s+)[\w.~+/=-]+|\bey[\w-]+\.[\w-]+\.[\w-]+", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    name : what was looked at, one word
    verdict : "ok", "warning", "wrong" or "skipped"
    said : one sentence
    mend : what to do; empty where nothing is to be done
    facts : numbers behind the sentence, for programs
    """

    name: str
    verdict: Verdict
    said: str
    mend: str = ""
    facts: Mapping[str, Fact] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The finding for ``--json``."""
        return asdict(self) | {"facts": dict(self.facts)}


def ok(name: str, said: str, **facts: Fact) -> Finding:
    """Nothing to be done."""
    return Finding(name, "ok", said, facts=facts)


def warning(name: str, said: str, mend: str, **facts: Fact) -> Finding:
    """Works, and will not for ever."""
    return Finding(name, "warning", said, mend, facts)


def wrong(name: str, said: str, mend: str, **facts: Fact) -> Finding:
    """Does not work."""
    return Finding(name, "wrong", said, mend, facts)


def skipped(name: str, said: str, mend: str = "", **facts: Fact) -> Finding:
    """Was not looked at, and why."""
    return Finding(name, "skipped", said, mend, facts)


class Discretion:
    """Takes out of a text what is nobody's business: keys, addresses, paths, names of files and people.

    Parameters
    ----------
    secrets : sequence of str
        Taken out literally, whatever they look like.
    """

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        self._secrets = sorted({s for s in secrets if len(s) > 3}, key=len, reverse=True)

    def apply(self, text: str) -> str:
        """The text without them.

        Parameters
        ----------
        text : str

        Returns
        -------
        str
        """
        for secret in self._secrets:
            text = text.replace(secret, "(withheld)")
        for pattern in (_KEY, _ADDRESS, _MAIL, _FILE, _HOST, _PATH):
            text = pattern.sub("(withheld)", text)
        return text

    def finding(self, found: Finding) -> Finding:
        """The same finding, fit to be pasted into an issue.

        Parameters
        ----------
        found : Finding

        Returns
        -------
        Finding
        """
        facts = {k: self.apply(v) if isinstance(v, str) else v for k, v in found.facts.items()}
        return Finding(found.name, found.verdict, self.apply(found.said), self.apply(found.mend), facts)


def secrets_of(url: str, key: str) -> list[str]:
    """What must not be told of an address and a key.

    Parameters
    ----------
    url, key : str
    """
    host = re.sub(r"^\w+://(?:[^@/]*@)?", "", url).split("/")[0]
    name = host.rsplit(":", 1)[0]
    loopback = name in {"127.0.0.1", "localhost", "[::1]"}
    return [key, os.environ.get("QSM_API_KEY", ""), *([] if loopback else [url, host, name])]
