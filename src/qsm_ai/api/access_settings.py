"""Settings of who may come in and how much one user may do."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from limits import parse_many
from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

from qsm_ai.access.limits import IN_MEMORY, Quotas
from qsm_ai.access.oidc import OidcSettings, is_loopback, may_be_asked
from qsm_ai.access.shared_windows import PATIENCE, SharedWindows

AccessWay = Literal["keys", "oidc", "open-behind-proxy"]
Words = Annotated[list[str], NoDecode]

ANYBODY = ("accounts.google.com", "login.microsoftonline.com/common", "login.microsoftonline.com/consumers")
"""Issuers at which everybody has an account, or may make one."""


class AccessSettings(BaseSettings):
    """The part of the settings that lets in or keeps out."""

    host: str = Field(default="127.0.0.1", description="Address on which the backend listens.")
    published_at: str | None = Field(
        default=None,
        description="Address at which a proxy in front makes the backend reachable, if nothing else does.",
    )
    access: Annotated[list[AccessWay], NoDecode] = Field(
        default_factory=list,
        description="Who is let in: keys, oidc, or both; open-behind-proxy: everybody whom a proxy lets "
        "through, as one user. Empty: everybody on this machine, as one user.",
    )
    oidc_issuer: str | None = Field(
        default=None, description="URL of the OpenID Connect issuer, exactly as in its tokens."
    )
    oidc_audience: Words = Field(
        default_factory=list, description="Ids of this service and its page at the issuer, by commas."
    )
    oidc_roles_claim: str = Field(
        default="roles", description="Where a token names roles or groups, such as realm_access.roles."
    )
    oidc_user_role: str | None = Field(
        default=None, description="Only who has this role is let in; left out, everybody with a valid token."
    )
    oidc_admin_role: str = Field(
        default="qsm-ai-admin", min_length=1, description="Who has this role may see everybody's queue."
    )
    oidc_email_domains: Words = Field(
        default_factory=list, description="Only verified addresses of these domains are let in, by commas."
    )
    oidc_leeway_s: float = Field(default=60.0, ge=0, le=600, description="By how much clocks may differ.")
    rate_limit: str = Field(
        default="1200/minute", description="Requests of one user, such as 50/second;1200/minute; empty: any."
    )
    rate_limit_storage: str = Field(
        default=IN_MEMORY,
        description="Where requests are counted: memory:// (each process for itself), or redis://host:6379 "
        "(all together; rediss:// with TLS).",
    )
    rate_limit_patience: float = Field(
        default=PATIENCE, gt=0, description="Seconds for which a request waits to be counted in Redis."
    )
    max_jobs_per_user: int = Field(
        default=32, ge=0, description="Jobs of one user on their way at once; 0: any."
    )
    max_stored_mb_per_user: int = Field(
        default=51200, ge=0, description="Uploads and results of one user, MiB together; 0: any."
    )

    @field_validator("access", "oidc_audience", "oidc_email_domains", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        if isinstance(value, str):
            return [word.strip() for word in value.split(",") if word.strip()]
        return value

    @field_validator("published_at", "oidc_issuer", "oidc_user_role", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("rate_limit")
    @classmethod
    def _known_rule(cls, value: str) -> str:
        try:
            parse_many(value) if value else []
        except ValueError:
            raise ValueError("write a rate limit as 600/minute, several separated by ;") from None
        return value

    @field_validator("rate_limit_storage")
    @classmethod
    def _known_place(cls, value: str) -> str:
        if value != IN_MEMORY:
            SharedWindows(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if "open-behind-proxy" in self.access and len(self.access) > 1:
            raise ValueError("QSM_ACCESS=open-behind-proxy lets everybody in; do not combine it")
        if "oidc" in self.access:
            self._require_issuer()
        if not self.access and not self.is_local:
            raise ValueError(
                "it would listen where other machines reach it, and let everybody in. "
                "Set QSM_ACCESS=keys (and make keys with `qsm-ai keys create`), QSM_ACCESS=oidc with "
                "QSM_OIDC_ISSUER and QSM_OIDC_AUDIENCE, or QSM_ACCESS=open-behind-proxy if a proxy in front "
                "of it checks who comes; or listen on this machine only (QSM_HOST=127.0.0.1)"
            )
        return self

    def _require_issuer(self) -> None:
        if not self.oidc_issuer or not self.oidc_audience:
            raise ValueError("QSM_ACCESS=oidc needs QSM_OIDC_ISSUER and QSM_OIDC_AUDIENCE")
        if not may_be_asked(self.oidc_issuer):
            raise ValueError("QSM_OIDC_ISSUER must begin with https://")
        parts = urlsplit(self.oidc_issuer)
        place = f"{parts.hostname}{parts.path}"
        everybody = any(place == known or place.startswith(f"{known}/") for known in ANYBODY)
        if everybody and not (self.oidc_user_role or self.oidc_email_domains):
            raise ValueError(
                "anybody can have an account at this QSM_OIDC_ISSUER; say who is let in with "
                "QSM_OIDC_EMAIL_DOMAINS or QSM_OIDC_USER_ROLE"
            )

    @property
    def is_local(self) -> bool:
        """Whether nobody reaches it but from this machine."""
        return is_loopback(self.published_at or self.host)

    @property
    def quotas(self) -> Quotas:
        """What one of several users may take up."""
        return Quotas(self.max_jobs_per_user, self.max_stored_mb_per_user << 20)

    @property
    def oidc(self) -> OidcSettings | None:
        """Whose tokens let in."""
        if "oidc" not in self.access or self.oidc_issuer is None:
            return None
        return OidcSettings(
            issuer=self.oidc_issuer,
            audiences=tuple(self.oidc_audience),
            roles_claim=self.oidc_roles_claim,
            user_role=self.oidc_user_role,
            admin_role=self.oidc_admin_role,
            email_domains=tuple(domain.lower().removeprefix("@") for domain in self.oidc_email_domains),
            leeway=self.oidc_leeway_s,
        )
