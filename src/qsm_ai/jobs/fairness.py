"""Whose job is next."""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from itertools import groupby

from qsm_ai.jobs.records import Waiting


def fair_order(queued: Iterable[Waiting], served: Mapping[str, float]) -> list[Waiting]:
    """In which order queued jobs are taken: by priority, then owners in turn, each owner's oldest first.

    Parameters
    ----------
    queued : Waiting
    served : owner: when a job of this owner was last taken

    Returns
    -------
    list of Waiting
    """
    last = dict(served)
    turn = max(last.values(), default=0.0)
    order: list[Waiting] = []
    waiting = sorted(queued, key=lambda job: (-job.priority, job.queued_at, job.id))
    for _, level in groupby(waiting, key=lambda job: job.priority):
        piles: defaultdict[str, deque[Waiting]] = defaultdict(deque)
        for job in level:
            piles[job.owner].append(job)
        heads = [_rank(pile[0], last) for pile in piles.values()]
        heapq.heapify(heads)
        while heads:
            owner = heads[0][3]
            order.append(piles[owner].popleft())
            turn += 1.0
            last[owner] = turn
            if piles[owner]:
                heapq.heapreplace(heads, _rank(piles[owner][0], last))
            else:
                heapq.heappop(heads)
    return order


def _rank(job: Waiting, last: Mapping[str, float]) -> tuple[float, float, str, str]:
    return (last.get(job.owner, 0.0), job.queued_at, job.id, job.owner)
