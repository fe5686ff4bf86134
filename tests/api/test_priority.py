"""Who is no administrator may let others pass, and not push in."""

from __future__ import annotations

from typing import Any

from qsm_ai.access.identity import Role
from qsm_ai.access.keys import KeyStore
from qsm_ai.jobs.store import JobStore

FORM = {"b0": "3", "method": "tkd"}


def test_only_administrators_may_ask_for_high_priority(start_backend: Any, files: Any) -> None:
    given = {"local_field": files.local_field, "mask": files.mask}
    with start_backend(QSM_ACCESS="keys", QSM_WORKERS="0") as backend, backend.client() as client:
        store = JobStore(f"sqlite:///{backend.folder / 'data/jobs.db'}")
        keys = KeyStore(store.database)
        user, admin = (
            {"Authorization": f"Bearer {keys.create(owner, role=role)[1]}"}
            for owner, role in (("ann", Role.USER), ("root", Role.ADMIN))
        )
        refused = client.submit(given, expect=403, headers=user, priority="high", **FORM)
        assert refused.json()["code"] == "not-an-administrator"
        assert backend.files == [], "a refused upload leaves nothing behind"
        normal = client.submit(given, headers=user, **FORM).json()["id"]
        low = client.submit(given, headers=user, priority="low", **FORM).json()["id"]
        high = client.submit(given, headers=admin, priority="high", **FORM).json()["id"]
        assert [each.id for each in store.waiting()] == [high, normal, low]
        store.close()
