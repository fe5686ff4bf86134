"""Everything that the doctor looks at, in the order in which one thing rests on another."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

from qsm_ai import __version__
from qsm_ai.doctor import reconstruction, surroundings
from qsm_ai.doctor.deployment import Away, Deployment, clock_ahead, refused
from qsm_ai.doctor.findings import Finding, ok, skipped, warning, wrong

CLOCK_WARNING, CLOCK_WRONG = 5.0, 60.0
"""Seconds. Tokens are good for a minute around their time, as a rule."""

CERTIFICATE_WARNING, CERTIFICATE_WRONG = 21.0, 3.0
"""Days; those of the alert QsmCertificateExpires."""

Show = Callable[[str], None]


def examine(
    deployment: Deployment,
    *,
    with_scan: bool = True,
    patience: float = 300.0,
    triton_metrics: str | None = None,
    alertmanager: str | None = None,
    show: Show = lambda _: None,
) -> Iterator[Finding]:
    """Look at a deployment.

    Parameters
    ----------
    deployment : Deployment
    with_scan : bool
        Whether a reference scan is reconstructed, which takes a place in the queue for a moment.
    patience : float
        Seconds that it may take.
    triton_metrics, alertmanager : str
        Addresses, where they can be reached from here.
    show : callable
        Told what is being done.

    Yields
    ------
    Finding
    """
    show("Reaching the service")
    reached = reachability(deployment)
    yield reached
    show("Reading the certificate")
    yield certificate(deployment)
    if reached.verdict == "ok":
        show("Asking what it says of itself")
        yield clock(deployment)
        same = version(deployment)
        yield same
        let_in = access(deployment)
        yield let_in
        ready = readiness(deployment)
        yield ready
        if with_scan and let_in.verdict in ("ok", "warning"):
            show("Reconstructing the reference scan")
            yield from reconstruction.examine(
                deployment,
                patience,
                with_network=ready.facts.get("triton", True) is True,
                same_version=same.verdict == "ok",
            )
        else:
            why = "It was not asked for." if not with_scan else "Without access no scan can be sent."
            yield skipped("network", why)
            yield skipped("storage", why)
    show("Looking around")
    yield surroundings.gpu(triton_metrics)
    yield from surroundings.alerts(alertmanager, show)


def reachability(deployment: Deployment) -> Finding:
    """Whether the name resolves and the service answers.

    Parameters
    ----------
    deployment : Deployment
    """
    name = "reachability"
    began = time.perf_counter()
    try:
        deployment.resolve()
        answer = deployment.ask("GET", "/healthz")
    except Away as away:
        return wrong(name, away.said, away.mend)
    milliseconds = round(1000 * (time.perf_counter() - began))
    if answer.status_code >= 500:
        return wrong(
            name,
            f"Something answers with status {answer.status_code}, not the backend.",
            "A proxy stands before a backend that does not answer: read the backend's log.",
            status=answer.status_code,
        )
    if not answer.is_success or "version" not in _object(answer.text):
        return wrong(
            name,
            f"What answers here is not QSM-AI (status {answer.status_code}).",
            "Give the address of the backend or of the proxy before it, without /api/v1.",
            status=answer.status_code,
        )
    return ok(name, f"The service answers in {milliseconds} ms.", milliseconds=milliseconds)


def certificate(deployment: Deployment) -> Finding:
    """For how long the certificate is still good.

    Parameters
    ----------
    deployment : Deployment
    """
    name = "certificate"
    if not deployment.encrypted:
        return skipped(name, "The address is http: there is none.", "Outside this machine, use https.")
    try:
        days = (deployment.certificate_ends() - time.time()) / 86400
    except Away as away:
        return wrong(name, away.said, away.mend)
    said = f"The certificate is trusted and ends in {days:.1f} days."
    mend = "Renew it, or find out why it is not renewed by itself (docs/runbooks/QsmCertificateExpires.md)."
    facts = {"days": round(days, 2)}
    if days < CERTIFICATE_WRONG:
        return Finding(name, "wrong", said, mend, facts)
    return (
        Finding(name, "warning", said, mend, facts) if days < CERTIFICATE_WARNING else ok(name, said, **facts)
    )


def clock(deployment: Deployment) -> Finding:
    """Whether the service's clock and this one agree.

    Parameters
    ----------
    deployment : Deployment
    """
    name = "clock"
    before = time.time()
    try:
        ahead = clock_ahead(deployment.ask("GET", "/healthz"), before)
    except Away as away:
        return wrong(name, away.said, away.mend)
    if ahead is None:
        return skipped(name, "The service does not tell the time.", "A proxy takes the Date header away.")
    if abs(ahead) < CLOCK_WARNING:
        return ok(name, "The clocks agree.", seconds_ahead=round(ahead, 1))
    said = (
        f"The service's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's."
    )
    mend = "Let both keep time by NTP (chrony); tokens and presigned addresses fail when clocks differ."
    how = wrong if abs(ahead) > CLOCK_WRONG else warning
    return how(name, said, mend, seconds_ahead=round(ahead, 1))


def version(deployment: Deployment) -> Finding:
    """Whether service and doctor are of one version.

    Parameters
    ----------
    deployment : Deployment
    """
    name = "version"
    try:
        theirs = str(_object(deployment.ask("GET", "/healthz").text).get("version", "unknown"))
    except Away as away:
        return wrong(name, away.said, away.mend)
    if theirs == __version__:
        return ok(name, f"Service and doctor are both {__version__}.", service=theirs, doctor=__version__)
    return warning(
        name,
        f"The service is {theirs}, this doctor is {__version__}.",
        "Use the doctor of the service's version; the reference values belong to one.",
        service=theirs,
        doctor=__version__,
    )


def access(deployment: Deployment) -> Finding:
    """Whether the service lets us in.

    Parameters
    ----------
    deployment : Deployment
    """
    name = "access"
    try:
        answer = deployment.ask("GET", "/api/v1/me")
        if answer.status_code == 404:  # a service from before there were accounts
            answer = deployment.ask("GET", "/api/v1/jobs", params={"limit": 1})
    except Away as away:
        return wrong(name, away.said, away.mend)
    if answer.is_success:
        way = _object(answer.text).get("way")
        if way != "none":
            return ok(name, "The service lets us in.", way=str(way))
        if deployment.is_local:
            return ok(name, "No sign-in is needed, on this machine.", way="none")
        return warning(
            name,
            "No sign-in is needed: whoever reaches the service may use it.",
            "Turn on access control (docs/security.md), unless something before the service asks for it.",
            way="none",
        )
    told = refused(answer)
    if answer.status_code in (401, 403):
        return wrong(
            name,
            f"The service does not let us in: {told.detail}",
            "Set QSM_API_KEY to a key that is good here (`qsm-ai keys` on the service makes one).",
            status=told.status,
            code=told.code,
        )
    return wrong(name, told.detail, told.mend, status=told.status, code=told.code)


def readiness(deployment: Deployment) -> Finding:
    """What the service says of Triton, storage, database and worker.

    Parameters
    ----------
    deployment : Deployment
    """
    name = "readiness"
    try:
        answer = deployment.ask("GET", "/readyz")
    except Away as away:
        return wrong(name, away.said, away.mend)
    checks = _object(answer.text).get("checks")
    if not isinstance(checks, dict):
        told = refused(answer)
        return wrong(name, told.detail, told.mend, status=told.status)
    troubles = {str(k): c for k, c in checks.items() if not (isinstance(c, dict) and c.get("ok"))}
    facts = {str(k): str(k) not in troubles for k in checks}
    if not troubles:
        return ok(name, f"Ready: {', '.join(sorted(facts))}.", **facts)
    reasons = [
        str((isinstance(c, dict) and c.get("reason")) or f"The {k} does not work.")
        for k, c in troubles.items()
    ]
    pages = {
        "triton": "QsmTritonDown", "storage": "QsmStorageErrors", "database": "QsmDatabaseErrors",
        "worker": "QsmWorkerLost",
    }  # fmt: skip
    named = [pages[k] for k in troubles if k in pages]
    mend = f"Read {', '.join(named)} in docs/runbook.md." if named else "Read docs/runbook.md."
    return wrong(name, " ".join(reasons), mend, **facts)


def _object(text: str) -> dict[str, object]:
    try:
        told = json.loads(text)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
