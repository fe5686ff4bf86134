"""The page where the service lets in by key: it asks for one, passes it on, and forgets it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from streamlit.testing.v1 import AppTest

if TYPE_CHECKING:
    from tests.conftest import Files

Open = Callable[..., AppTest]
MakeKey = Callable[[str], str]


@pytest.fixture(scope="module")
def house(
    start_api: Callable[..., object], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, MakeKey]]:
    """Address of a backend that wants keys, and a maker of keys."""
    from qsm_ai.access.keys import KeyStore
    from qsm_ai.jobs.database import Database

    folder = tmp_path_factory.mktemp("closed")

    def make(owner: str) -> str:
        database = Database(f"sqlite:///{folder / 'data' / 'jobs.db'}")
        try:
            return KeyStore(database).create(owner)[1]
        finally:
            database.close()

    with start_api(folder, QSM_ACCESS="keys", QSM_WORKERS="0") as url:  # type: ignore[attr-defined]
        yield url, make


def words(page: AppTest) -> str:
    kinds = (page.markdown, page.caption, page.warning, page.error, page.info, page.title)
    return "\n".join(element.value for kind in kinds for element in kind)


def button(page: AppTest, label: str) -> AppTest:
    return next(b for b in page.button if b.label == label)  # type: ignore[return-value]


def enter(page: AppTest, key: str) -> AppTest:
    page.text_input[0].set_value(key)
    button(page, "Continue").click()
    return page.run()


def send(page: AppTest, files: Files) -> AppTest:
    for path in files.echo_phase:
        for file in (path, path.with_name(path.name.replace(".nii.gz", ".json"))):
            page.file_uploader[0].upload(file.name, file.read_bytes())
    page.run()
    page.segmented_control(key="method").set_value("tkd")
    page.run()
    button(page, "Reconstruct").click()
    return page.run()


def test_without_a_key_there_is_nothing_but_the_question(open_page: Open, house: tuple[str, MakeKey]) -> None:
    page = open_page(house[0])
    assert page.title[0].value == "Sign in"
    assert not page.file_uploader
    assert not page.error
    assert page.text_input[0].proto.type == page.text_input[0].proto.PASSWORD


@pytest.mark.parametrize("key", ["qsm_aaaaaaaaaa_" + "A" * 43, "hunter2", "a\r\nX-Evil: 1", "é", " "])
def test_a_wrong_key_opens_nothing(open_page: Open, house: tuple[str, MakeKey], key: str) -> None:
    page = enter(open_page(house[0]), key)
    assert not page.exception
    assert page.title[0].value == "Sign in"
    assert not page.file_uploader
    if key.strip():
        assert "not valid (any more)" in page.error[0].value
        assert key not in page.error[0].value


def test_a_key_opens_the_page_for_its_owner_until_they_sign_out(
    open_page: Open, house: tuple[str, MakeKey], files: Files
) -> None:
    url, make = house
    page = enter(open_page(url), make("alice"))
    assert "From phase to susceptibility" in words(page)
    assert "Signed in with an API key" in words(page)
    page = send(page, files)
    assert "Waiting for a free place" in words(page)
    job = "".join(page.query_params["job"])

    # The same address opened by somebody else shows no more than an address that never was.
    other = enter(open_page(url, job=job), make("bob"))
    assert "This reconstruction cannot be shown" in words(other)
    assert "There is nothing here." in words(other)
    nobody = open_page(url, job=job)
    assert nobody.title[0].value == "Sign in"

    again = enter(open_page(url, job=job), make("alice"))
    assert "Waiting for a free place" in words(again)
    button(again, "Sign out").click()
    again.run()
    assert again.title[0].value == "Sign in"
    assert "job" not in again.query_params
    assert not any(str(b.key).startswith("open/") for b in again.button)


def test_a_revoked_key_closes_the_page(open_page: Open, house: tuple[str, MakeKey], tmp_path: Path) -> None:
    from qsm_ai.ui import sign_in

    url, make = house
    key = make("carl")
    page = enter(open_page(url), key)
    assert page.file_uploader
    page.session_state["api_key"] = key[:-1] + ("A" if key[-1] != "A" else "B")
    page.run()
    assert page.title[0].value == "Sign in"
    assert sign_in.ASK_AGAIN_AFTER <= 60


def test_where_nothing_is_asked_nobody_signs_in(open_page: Open, api: str) -> None:
    page = open_page(api)
    assert "Sign" not in words(page)
    assert not any(b.label.startswith("Sign") for b in page.button)
