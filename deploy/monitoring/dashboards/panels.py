"""The few kinds of panel that the dashboards are made of, all on the one Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import common, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus as query
from grafana_foundation_sdk.models import common as shared
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.units import Percent, PercentUnit, Seconds

WIDTH = 24
"""Of a dashboard, in Grafana's units."""

SOURCE = models.DataSourceRef(type_val="prometheus", uid="prometheus")
"""As grafana/provisioning/datasources names it."""

COUNT, RATIO, SECONDS, BYTES = "short", PercentUnit, Seconds, "bytes"
PER_SECOND, WATT, PERCENT = "reqps", "watt", Percent

Target = tuple[str, str]
"""Query and legend."""


def _target(target: Target, number: int, *, instant: bool = False) -> query.Dataquery:
    expression, legend = target
    asked = query.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + number))
    return asked.instant() if instant else asked.range()


def _steps(limit: float, *, low_is_bad: bool) -> builders.ThresholdsConfig:
    good, bad = ("red", "green") if low_is_bad else ("green", "red")
    steps = [models.Threshold(color=good), models.Threshold(value=limit, color=bad)]
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def number(
    title: str,
    expression: str,
    unit: str,
    description: str,
    *,
    limit: float | None = None,
    low_is_bad: bool = False,
) -> stat.Panel:
    """One number, as it stands now.

    Parameters
    ----------
    title, expression, unit, description : str
    limit : float
        Where its colour changes.
    low_is_bad : bool
        Whether below the limit is bad rather than above.
    """
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(4)
        .height(4)
        .color_mode(shared.BigValueColorMode.VALUE)
        .graph_mode(shared.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_target((expression, ""), 0))
    )
    return panel if limit is None else panel.thresholds(_steps(limit, low_is_bad=low_is_bad))


def curves(
    title: str,
    targets: Sequence[Target],
    unit: str,
    description: str,
    *,
    width: int = 8,
    stacked: bool = False,
    most: float | None = None,
) -> timeseries.Panel:
    """Curves over time.

    Parameters
    ----------
    title, unit, description : str
    targets : sequence of (query, legend)
    width : of 24
    stacked : bool
    most : upper end of the axis
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(8)
        .min(0)
        .fill_opacity(20 if stacked else 5)
        .show_points(shared.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(shared.LegendDisplayMode.TABLE)
            .placement(shared.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(
            common.VizTooltipOptions().mode(shared.TooltipDisplayMode.MULTI).sort(shared.SortOrder.DESCENDING)
        )
    )
    for position, target in enumerate(targets):
        panel = panel.with_target(_target(target, position))
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(shared.StackingMode.NORMAL))
    return panel if most is None else panel.max(most)


def board(uid: str, title: str, description: str) -> builders.Dashboard:
    """An empty dashboard with links to its sisters.

    Parameters
    ----------
    uid : str
        Also the name of its file.
    title, description : str
    """
    sisters = (
        builders.DashboardLink("QSM-AI")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags(["qsm-ai"])
        .keep_time(True)
        .as_dropdown(False)
    )
    return (
        builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["qsm-ai"])
        .time("now-3h", "now")
        .refresh("30s")
        .timezone("browser")
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(sisters)
    )


def quantile(q: float, histogram: str, *by: str, matching: str = "") -> str:
    """A quantile of a histogram over Grafana's rate interval.

    Parameters
    ----------
    q : 0 to 1
    histogram : name without ``_bucket``
    by : labels kept
    matching : label matchers
    """
    kept = ", ".join(("le", *by))
    return (
        f"histogram_quantile({q:g}, sum by ({kept}) (rate({histogram}_bucket{matching}[$__rate_interval])))"
    )


def rate(counter: str, *by: str) -> str:
    """Events a second over Grafana's rate interval.

    Parameters
    ----------
    counter : selector
    by : labels kept
    """
    kept = f" by ({', '.join(by)})" if by else ""
    return f"sum{kept} (rate({counter}[$__rate_interval]))"
