"""The quality page says what the report says, shows the maps, and lets nothing from outside become markup."""

from __future__ import annotations

import re
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from qsm_ai.io import load_scan
from qsm_ai.io.outputs import write_outputs
from qsm_ai.io.quality_page import PICTURED, amount, quality_page
from qsm_ai.io.report import Report, make_report
from qsm_ai.reconstruction.options import Options
from qsm_ai.reconstruction.pipeline import Reconstruction, reconstruct

if TYPE_CHECKING:
    from tests.conftest import Files

    from qsm_ai.scan import Scan

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Tags, sources of pictures and text of a page; what is opened and not closed is an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.attributes: set[str] = set()
        self.said: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes |= {name for name, _ in attrs}
        self.sources += [str(value) for name, value in attrs if name in {"src", "href"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).split())


@pytest.fixture(scope="module")
def made(files: Files) -> tuple[Scan, Reconstruction]:
    scan = load_scan(files.echo_phase, files.echo_magnitude, files.mask)
    return scan, reconstruct(scan, Options(method="tkd"))


@pytest.fixture(scope="module")
def report(made: tuple[Scan, Reconstruction]) -> Report:
    return make_report(*made)


def page(report: Report, pictures: dict[str, bytes] | None = None) -> str:
    chi = np.linspace(-0.1, 0.3, 64, dtype=np.float32).reshape(4, 4, 4)
    return quality_page(report, pictures or {}, chi, np.ones((4, 4, 4), dtype=bool))


def test_it_lies_beside_the_map_and_needs_no_other_file(
    made: tuple[Scan, Reconstruction], tmp_path: Path
) -> None:
    written = write_outputs(*made, tmp_path)
    found = Reader(written["page"].read_text(encoding="utf-8"))
    assert written["page"].name == "sub-1_qsm.html"
    shown = [name for name in PICTURED if name in made[1].artefacts]
    assert len(found.sources) == len(shown) == 3
    for source in found.sources:
        kind, content = source.split(",", 1)
        assert kind == "data:image/png;base64"
        assert np.asarray(Image.open(BytesIO(b64decode(content)))).std() > 10
    assert b64decode(found.sources[0].split(",", 1)[1]) == written["picture"].read_bytes()


def test_it_says_all_that_the_report_says(report: Report) -> None:
    text = Reader(page(report)).text
    assert report.notice in text
    for score in report.scores.values():
        assert amount(score.value) in text
        assert score.meaning in text
    for value in (*report.options.values(), *(artefact.file for artefact in report.artefacts.values())):
        assert value in text
    assert "4, 8, 12 ms" in text
    assert " ".join(report.methods.split()) in text
    assert all(citation.doi in text for citation in report.citations)
    assert all(stage.title in text for stage in report.stages)


def test_it_tells_how_susceptibility_is_spread(report: Report) -> None:
    text = Reader(page(report)).text
    for said in ("Mean 0.1000 ppm", "Median 0.1000 ppm", "5th percentile -0.0800 ppm", "Voxels 64"):
        assert said in text


def test_a_mean_of_zero_has_no_sign(report: Report) -> None:
    values = np.array([-1e-6, 0.01, -0.01], dtype=np.float32).reshape(3, 1, 1)
    text = Reader(quality_page(report, {}, values, np.ones((3, 1, 1), dtype=bool))).text
    assert "Mean 0.0000 ppm" in text


def test_names_and_warnings_are_text_and_never_markup(report: Report) -> None:
    evil = '<script>alert(1)</script><img src=x onerror="alert(2)">'
    found = Reader(page(report.model_copy(update={"name": evil, "warnings": (evil,), "network": evil})))
    assert found.text.count("<script>alert(1)</script>") >= 3
    assert found.sources == []
    assert "onerror" not in found.attributes


def test_a_page_may_run_no_script_and_ask_nobody(report: Report) -> None:
    content = page(report)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', content)
    assert policy.startswith("default-src 'none'")
    assert "script" not in policy
    assert "<script" not in content


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.98341, "0.983"),
        (1.2464, "1.25"),
        (0.00058551, "0.000586"),
        (123.4, "123"),
        (0.0, "0"),
        (-0.02, "-0.0200"),
        (float("nan"), "unknown"),
        (float("inf"), "unknown"),
    ],
)
def test_numbers_have_three_digits_and_no_powers_of_ten(value: float, said: str) -> None:
    assert amount(value) == said


def test_a_mask_of_nothing_is_no_error(report: Report) -> None:
    nothing = np.zeros((2, 2, 2))
    assert "5th percentile" not in quality_page(report, {}, nothing.astype(np.float32), nothing > 0)
