"""What the page tells NiiVue: colours as the slices have them, and air that hides no brain."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from qsm_ai.ui import volume
from qsm_ai.ui.paint import Palette, colours
from qsm_ai.ui.volume import ASSETS, colour_map, installed


@pytest.mark.parametrize("palette", ["grey", "blue-red"])
def test_colours_are_those_of_the_slices(palette: Palette) -> None:
    found = colour_map(palette)
    assert found["I"] == list(range(256))
    np.testing.assert_array_equal(np.stack([found[letter] for letter in "RGB"], axis=1), colours(palette))


@pytest.mark.parametrize("palette", ["grey", "blue-red"])
def test_what_lies_below_the_window_is_clear(palette: Palette) -> None:
    found = colour_map(palette)
    assert (found["I"][0], found["I"][-1]) == (0, 255)
    assert found["A"][0] == 0
    assert min(found["A"][1:]) > 0


def test_niivue_is_known_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume, "ASSETS", tmp_path)
    assert not installed()
    (tmp_path / "niivue.js").touch()
    assert installed()


def test_niivue_has_one_version_whose_bytes_are_known_wherever_they_come_from() -> None:
    wanted = json.loads((ASSETS / "package.json").read_text())["dependencies"]
    lock = json.loads((ASSETS / "package-lock.json").read_text())["packages"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", wanted["@niivue/niivue"])
    assert lock["node_modules/@niivue/niivue"]["version"] == wanted["@niivue/niivue"]
    fetched = [package for name, package in lock.items() if name]
    assert all(package["integrity"].startswith("sha512-") for package in fetched)
    assert not any("resolved" in package for package in fetched)


def test_the_page_of_the_volume_fetches_nothing_from_elsewhere() -> None:
    for file in ("index.html", "volume.js"):
        assert "//" not in re.sub(r"^\s*//.*|\s// .*", "", (ASSETS / file).read_text(), flags=re.MULTILINE)
