"""The API from Python: send a scan, follow the job, fetch the map.

>>> from qsm_ai.client import Client
>>> with Client("http://127.0.0.1:8080") as client:  # doctest: +SKIP
...     job = client.submit(phase=["phase.nii.gz"], te_ms=[4, 12, 20, 28], b0=3.0)
...     for job in client.follow(job.id):
...         print(job.title, f"{job.fraction:.0%}")
...     client.fetch(job.id, "chi", "chi.nii.gz")

``AsyncClient`` has the same methods, to be awaited. What a method sends and what it makes of the answer
stands in ``operations``, once for both; ``blocking`` and ``asynchronous`` only carry it out.
"""

from qsm_ai.client.asynchronous import AsyncClient
from qsm_ai.client.blocking import Client
from qsm_ai.client.errors import ServiceError
from qsm_ai.client.records import Artefact, Job, State
from qsm_ai.client.retrying import Retrying

__all__ = ["Artefact", "AsyncClient", "Client", "Job", "Retrying", "ServiceError", "State"]
