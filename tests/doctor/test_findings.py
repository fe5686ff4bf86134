"""What people paste into an issue tells nobody's secrets."""

import pytest

from qsm_ai.doctor.findings import Discretion, ok, secrets_of


@pytest.mark.parametrize(
    "private",
    [
        "https://qsm.hospital.example/readyz",
        "Doe_Jane_phase.nii.gz",
        "/data/patients/doe/scan",
        "triton.internal.example:8001",
        "doe@hospital.example",
        "Bearer abc.def-ghi",
        "eyJhbGciOi.eyJzdWIi.c2lnbmF0dXJl",
    ],
)
def test_what_looks_private_is_withheld(private: str) -> None:
    assert private not in Discretion().apply(f"It said: {private} and more.")
    assert Discretion().apply(f"It said: {private} and more.").endswith("and more.")


def test_the_service_and_the_key_are_withheld_wherever_they_stand() -> None:
    discretion = Discretion(secrets_of("https://qsm.hospital.example:8443", "qsm_secret"))
    found = discretion.finding(ok("x", "qsm.hospital.example says qsm_secret", host="qsm.hospital.example"))
    assert "hospital" not in found.said + str(found.facts)
    assert "qsm_secret" not in found.said


@pytest.mark.parametrize(
    "plain",
    [
        "The certificate is trusted and ends in 12.5 days.",
        "Read QsmTritonDown in docs/runbook.md.",
        "docs/runbooks/QsmQueueOld.md",
        "Set QSM_API_KEY; its port is 9093.",
    ],
)
def test_plain_sentences_stay(plain: str) -> None:
    assert Discretion().apply(plain) == plain
