"""A service that lets everybody in is for one machine: elsewhere it neither starts nor answers."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from pydantic import ValidationError

from qsm_ai.api.settings import Settings, say
from qsm_ai.inference.ports import any_free

if TYPE_CHECKING:
    from tests.access.conftest import Backend, StartBackend
    from tests.conftest import Files

EVERYWHERE = "0.0.0.0"  # noqa: S104 - what must be refused
ISSUER = {"oidc_issuer": "https://issuer.example", "oidc_audience": "qsm-ai"}


class TestSettings:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.3.2.1"])
    def test_on_this_machine_nothing_is_needed(self, host: str) -> None:
        assert Settings(host=host).access == []

    @pytest.mark.parametrize("host", [EVERYWHERE, "::", "192.0.2.7", "backend", "", "127.0.0.1.example"])
    def test_elsewhere_somebody_must_say_who_is_let_in(self, host: str) -> None:
        with pytest.raises(ValidationError, match="let everybody in"):
            Settings(host=host)
        assert Settings(host=host, access="keys").access == ["keys"]
        assert Settings(host=host, access="keys, oidc", **ISSUER).access == ["keys", "oidc"]
        assert Settings(host=host, access="open-behind-proxy").access == ["open-behind-proxy"]

    def test_what_a_proxy_publishes_on_this_machine_only_is_on_this_machine(self) -> None:
        assert Settings(host=EVERYWHERE, published_at="127.0.0.1").is_local
        for address in (EVERYWHERE, "192.0.2.7"):
            with pytest.raises(ValidationError, match="let everybody in"):
                Settings(host="127.0.0.1", published_at=address)

    @pytest.mark.parametrize(
        ("wrong", "sentence"),
        [
            ({"access": "key"}, "keys"),
            ({"access": "keys,open-behind-proxy"}, "do not combine"),
            ({"access": "oidc"}, "QSM_OIDC_ISSUER"),
            ({"access": "oidc", "oidc_issuer": "https://issuer.example"}, "QSM_OIDC_AUDIENCE"),
            ({"access": "oidc", **ISSUER, "oidc_issuer": "http://issuer.example"}, "https://"),
            (
                {"access": "oidc", **ISSUER, "oidc_issuer": "https://accounts.google.com"},
                "can have an account",
            ),
            (
                {"access": "oidc", **ISSUER, "oidc_issuer": "https://login.microsoftonline.com/common/v2.0"},
                "can have an account",
            ),
            ({"rate_limit": "many"}, "600/minute"),
            ({"rate_limit_storage": "memcached://h:11211"}, "redis://HOST:6379"),
        ],
        ids=str,
    )
    def test_what_would_let_in_too_many_or_nobody_is_refused(
        self, wrong: dict[str, str], sentence: str
    ) -> None:
        with pytest.raises(ValidationError) as caught:
            Settings(**wrong)  # type: ignore[arg-type]
        assert sentence in say(caught.value)

    def test_an_issuer_for_everybody_is_good_with_a_domain(self) -> None:
        settings = Settings(
            access="oidc", oidc_issuer="https://accounts.google.com", oidc_audience="x",
            oidc_email_domains="@Hospital.example, other.example",
        )  # fmt: skip
        assert settings.oidc is not None
        assert settings.oidc.email_domains == ("hospital.example", "other.example")

    def test_values_are_not_repeated_for_some_are_secrets(self) -> None:
        with pytest.raises(ValidationError) as caught:
            Settings(port="postgresql://qsm:hunter2@db/qsm")  # type: ignore[arg-type]
        assert "hunter2" not in say(caught.value)
        assert "hunter2" not in str(caught.value)
        assert "QSM_PORT" in say(caught.value)


def test_the_process_says_why_it_does_not_start(tmp_path: Path) -> None:
    port = any_free()
    ended = subprocess.run(
        [sys.executable, "-m", "qsm_ai.api"],
        env={
            "PATH": "/usr/bin:/bin", "QSM_HOST": EVERYWHERE, "QSM_PORT": str(port),
            "QSM_DATA_DIR": str(tmp_path / "d"),
        },
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "QSM_ACCESS=keys" in ended.stderr
    assert "qsm-ai keys create" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "d").exists()


def other_address() -> str | None:
    """An address of this machine that others may reach, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: this only asks which way it would go.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if address.startswith("127.") else address


def test_a_server_that_was_told_another_address_behind_our_back_answers_nobody(tmp_path: Path) -> None:
    address = other_address()
    if address is None:
        pytest.skip("this machine has no address but its loopback")
    port = any_free()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "uvicorn", "qsm_ai.api.app:app",
                "--host", EVERYWHERE, "--port", str(port), "--log-level", "warning",
            ],
            env={"PATH": "/usr/bin:/bin", "QSM_DATA_DIR": str(tmp_path / "data"), "QSM_WORKERS": "0"},
            stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "log").read_text()
            try:
                if httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2).is_success:
                    break
            except httpx.HTTPError:
                time.sleep(0.1)
        assert httpx.get(f"http://127.0.0.1:{port}/api/v1/jobs", timeout=30).status_code == 200
        refused = httpx.get(f"http://{address}:{port}/api/v1/jobs", timeout=30)
        assert (refused.status_code, refused.json()["code"]) == (403, "from-elsewhere")
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def backend(start_backend: StartBackend) -> Iterator[Backend]:
    """Without access control, as it comes."""
    with start_backend(
        QSM_RATE_LIMIT="3/hour",
        QSM_MAX_JOBS_PER_USER="1",
        QSM_CORS_ORIGINS="http://localhost:8501",
        QSM_WORKERS="0",
    ) as running:
        yield running


class TestSingleUser:
    def test_needs_no_key_and_has_no_limits(self, backend: Backend) -> None:
        with backend.client() as client:
            assert {client.get("/api/v1/jobs").status_code for _ in range(10)} == {200}
            account = client.get("/api/v1/me").json()
            assert (account["way"], account["max_jobs"], account["max_stored"]) == ("none", None, None)
            assert client.get("/api/v1/admin/queue").status_code == 200

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example",
            "evil.example:8000",
            "127.0.0.1.evil.example",
            "192.0.2.7",
            "[2001:db8::1]",
            "[2001",
        ],
    )
    def test_does_not_answer_to_a_name_that_others_can_give_it(self, backend: Backend, host: str) -> None:
        """A page of evil.example, whose name suddenly means 127.0.0.1, would otherwise be at home here."""
        with backend.client() as client:
            answer = client.get("/api/v1/jobs", headers={"Host": host})
            assert (answer.status_code, answer.json()["code"]) == (403, "from-elsewhere")

    @pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:80", "fastapi-be:8000"])
    def test_answers_to_its_own_names(self, backend: Backend, host: str) -> None:
        with backend.client() as client:
            assert client.get("/api/v1/jobs", headers={"Host": host}).status_code == 200

    def test_takes_nothing_from_pages_of_others(self, backend: Backend, files: Files) -> None:
        """A form needs no leave of ours to be sent from anywhere, and a browser would send it."""
        parts = [
            ("local_field", ("f.nii.gz", files.local_field.read_bytes())),
            ("mask", ("m.nii.gz", files.mask.read_bytes())),
        ]
        with backend.client() as client:

            def send(origin: str) -> httpx.Response:
                return client.post(
                    "/api/v1/reconstruct", files=parts, data={"method": "tkd"}, headers={"Origin": origin}
                )

            for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
                assert send(origin).status_code == 403
            assert client.get("/api/v1/jobs").json()["jobs"] == []
            assert send("http://localhost:8501").status_code == 202
            assert send(backend.url).status_code == 202


def test_behind_a_proxy_that_lets_in_there_is_one_user(start_backend: StartBackend) -> None:
    with (
        start_backend(QSM_ACCESS="open-behind-proxy", QSM_WORKERS="0") as backend,
        backend.client() as client,
    ):
        named = {"Host": "qsm.hospital.example"}
        # The proxy knows its people by cookies, and a browser sends those along with anybody's form.
        forged = client.post("/api/v1/reconstruct", headers={**named, "Origin": "https://evil.example"})
        assert (forged.status_code, forged.json()["code"]) == (403, "from-elsewhere")
        own = client.post("/api/v1/reconstruct", headers={**named, "Origin": "https://qsm.hospital.example"})
        assert own.status_code == 415
        answer = client.get("/api/v1/me", headers=named)
        assert (answer.status_code, answer.json()["way"]) == (200, "none")
