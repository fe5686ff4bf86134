"""The page's metrics, on a port of their own (``QSM_UI_METRICS_PORT``) that no visitor reaches.

Names, labels and buckets are those of the backend's table of metrics, which a test holds against these.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from qsm_ai import __version__

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
CALL_SECONDS = (
    *(0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 7.5),
    *(10, 15, 20, 30, 60, 120, 300, 600),
)

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()

RUNS = Counter("qsm_page_runs_total", "Times that a page was drawn.", ["page"], registry=REGISTRY)
ERRORS = Counter("qsm_page_errors_total", "Times that drawing a page failed.", ["page"], registry=REGISTRY)
DURATION = Histogram(
    "qsm_page_duration_seconds",
    "Time to draw a page, calls to the backend included.",
    ["page"],
    buckets=SECONDS,
    registry=REGISTRY,
)
CALLS = Counter("qsm_page_calls_total", "Calls to the backend.", ["operation", "outcome"], registry=REGISTRY)
CALL_DURATION = Histogram(
    "qsm_page_call_duration_seconds",
    "Time until the backend answered the page; with the trace id as exemplar.",
    ["operation"],
    buckets=CALL_SECONDS,
    registry=REGISTRY,
)
_BUILD = Gauge("qsm_build_info", "Always 1; the version is its label.", ["version"], registry=REGISTRY)
_BUILD.labels(__version__).set(1)


class StreamlitCollector(Collector):
    """Streamlit's own numbers under names that say whose they are."""

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Visitors now, those who came and went, and how long they stayed."""
        from streamlit.runtime import Runtime

        if not Runtime.exists():
            return
        families = Runtime.instance().stats_mgr.get_stats(
            family_names=["active_sessions", "session_events", "session_duration_seconds"]
        )
        for name, stats in families.items():
            if not stats:
                continue
            first, named = stats[0], f"streamlit_{name}"
            labels = sorted(getattr(first, "labels", None) or {})
            made = (CounterMetricFamily if first.type == "counter" else GaugeMetricFamily)(
                named, first.help, labels=labels
            )
            for stat in stats:
                values = getattr(stat, "labels", None) or {}
                made.add_metric([values[label] for label in labels], getattr(stat, "value", 0))
            yield made

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: Streamlit may not run yet."""
        return iter(())


ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
REGISTRY.register(StreamlitCollector())


def serve(port: int, address: str) -> None:
    """Answer Prometheus on a port of its own, in threads of its own.

    Parameters
    ----------
    port : int
    address : str

    Raises
    ------
    OSError
        When the port is taken.
    """
    start_http_server(port, address, REGISTRY)
