"""Settings come from the environment, and dangerous ones are refused at the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from qsm_ai.api.settings import Settings


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QSM_CORS_ORIGINS", "https://a.example, http://b.example:8501/")
    monkeypatch.setenv("QSM_DATA_DIR", str(tmp_path))
    settings = Settings()
    assert settings.cors_origins == ["https://a.example", "http://b.example:8501"]
    assert settings.database == f"sqlite:///{tmp_path}/jobs.db"
    assert settings.storage == str(tmp_path / "objects")


@pytest.mark.parametrize("origins", ["*", "https://*.example", "example.org", "https://a.example,*"])
def test_wildcard_origins_are_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, origins: str) -> None:
    monkeypatch.setenv("QSM_CORS_ORIGINS", origins)
    with pytest.raises(ValueError, match="origin"):
        Settings()
