"""Settings of the backend, from environment variables that begin with ``QSM_``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from qsm_ai.api.access_settings import AccessSettings

MIB = 1 << 20


class Settings(AccessSettings):
    """Everything an operator may set. Every field is the variable ``QSM_<FIELD>``."""

    model_config = SettingsConfigDict(env_prefix="QSM_", extra="ignore", hide_input_in_errors=True)

    port: int = Field(default=8000, ge=0, le=65535, description="Port on which the backend listens.")
    triton_url: str = Field(default="127.0.0.1:8001", description="host:port of the inference server's gRPC.")
    triton_patience_s: float | None = Field(
        default=None,
        ge=0,
        description="How long a queued job waits for an inference server that no worker reaches; "
        "until its deadline when left out.",
    )
    triton_timeout_s: float = Field(
        default=60.0, gt=0, description="How long the inference server may take for one patch."
    )
    triton_in_flight: int = Field(
        default=4,
        gt=0,
        description="Patches of one job at the inference server at once; so many for each job of a worker.",
    )
    data_dir: Path = Field(
        default=Path("var"), description="Folder of the database and of files on their way."
    )
    database_url: str | None = Field(
        default=None, description="SQLAlchemy URL; SQLite in the data folder by default."
    )
    migrate: bool = Field(
        default=True,
        description="Bring an older database up to date at the start; without it, `qsm-ai migrate` does.",
    )
    storage_url: str | None = Field(
        default=None,
        description="s3://bucket/prefix, gs://bucket/prefix, or a folder (default: in the data folder).",
    )
    cors_origins: Annotated[list[str], NoDecode] = Field(
        default_factory=list, description="Origins of browsers that may call, separated by commas."
    )
    max_upload_mb: int = Field(default=2048, gt=0, description="Largest upload (all files of a scan), MiB.")
    max_unpacked_mb: int = Field(
        default=4096, gt=0, description="Largest phase or magnitude when unpacked, MiB."
    )
    pending_hours: float = Field(
        default=24.0, gt=0, description="Uploads that became no job are deleted after so long."
    )
    max_pending_mb: int = Field(
        default=16384, gt=0, description="Uploads of one user that are no job yet, MiB together."
    )
    presigned_s: float = Field(
        default=3600.0,
        ge=0,
        le=604800,
        description="For how long an address at the object store is good; 0 gives none away.",
    )
    storage_public_endpoint: str | None = Field(
        default=None, description="Address of the object store as clients reach it, if it is another one."
    )
    shutdown_s: int = Field(
        default=3,
        ge=1,
        description="How long requests that are under way may go on when the backend is told to end. Give "
        "uploads the time that they take, and the process more than that before it is killed.",
    )
    upload_stall_s: float = Field(
        default=60.0, gt=0, description="An upload from which nothing comes for so long is dropped."
    )
    validate_timeout_s: float = Field(
        default=180.0, gt=0, description="Longest time that checking an upload may take."
    )
    max_wait_s: float = Field(
        default=300.0, ge=0, description="Longest time a request may wait for its result."
    )
    workers: int = Field(
        default=1, ge=0, description="Jobs computed at once by this process; 0 leaves them to others."
    )
    worker_memory_mb: int | None = Field(
        default=None,
        gt=0,
        description="MiB that the jobs of this process take together; three quarters of what the machine or "
        "the container has when left out.",
    )
    worker_host: str = Field(
        default="127.0.0.1", description="Address of a worker's health and metrics (`qsm-ai worker`)."
    )
    worker_port: int = Field(
        default=8010, ge=0, le=65535, description="Port of a worker's health and metrics; 0 opens none."
    )
    worker_grace_s: float = Field(
        default=25.0,
        ge=0,
        description="How long a worker that is told to end lets its jobs run before it hands them back.",
    )
    max_queued: int = Field(default=64, gt=0, description="Jobs that may wait; more are refused with 503.")
    job_timeout_s: float = Field(default=1800.0, gt=0, description="After so long a running job is stopped.")
    job_deadline_s: float = Field(
        default=86400.0,
        ge=0,
        description="A job that is not done so long after it was sent fails; 0 lets it wait for ever.",
    )
    retention_hours: float = Field(
        default=72.0,
        ge=0,
        description="Jobs with all files are deleted so long after their end; 0 keeps them.",
    )
    sweep_every_s: float = Field(default=300.0, gt=0, description="Pause between two sweeps of old files.")
    slice_cache_mb: int = Field(
        default=512, ge=0, description="Memory for volumes of which slices were asked, MiB."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level logged."
    )
    log_user_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Secret with which logs hash users; give all machines the same. In the data folder when "
        "left out.",
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return [origin.strip().rstrip("/") for origin in value.split(",") if origin.strip()]
        return value

    @field_validator("cors_origins")
    @classmethod
    def _no_wildcard(cls, value: list[str]) -> list[str]:
        for origin in value:
            if "*" in origin or not origin.startswith(("http://", "https://")):
                raise ValueError(
                    f"{origin!r} is no origin; list each as scheme://host[:port], wildcards are not allowed"
                )
        return value

    @property
    def max_upload_bytes(self) -> int:
        """Largest upload, bytes."""
        return self.max_upload_mb * MIB

    @property
    def database(self) -> str:
        """SQLAlchemy URL."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'jobs.db'}"

    @property
    def storage(self) -> str:
        """URL or folder of the object store."""
        return self.storage_url or str(self.data_dir.absolute() / "objects")


def say(error: ValidationError) -> str:
    """What is wrong with settings, a line for each, without their values: some are secrets.

    Parameters
    ----------
    error : ValidationError
        Of ``Settings``.

    Returns
    -------
    str
    """
    lines = []
    for found in error.errors(include_input=False, include_url=False):
        name = f"QSM_{'_'.join(str(part) for part in found['loc'][:1]).upper()}: " if found["loc"] else ""
        reason = str(found["msg"]).removeprefix("Value error, ")
        lines.append(f"{name}{reason[:1].upper()}{reason[1:]}.")
    return "\n".join(lines)
