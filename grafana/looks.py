"""How does a panel become Grafana's JSON?"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.panels import LOWEST, NEUTRAL, Panel

DATASOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")

# Columns of every table: names are shown, ids only keep rows of one name apart.
_HIDDEN: Final = ("Time", "project_id")
_LAST: Final = {"calcs": ["lastNotNull"], "fields": "", "values": False}
# As Grafana's own panel editor writes them.
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "stat": {
        "colorMode": "background",
        "graphMode": "none",
        "justifyMode": "center",
        "orientation": "auto",
        "reduceOptions": _LAST,
        "textMode": "value",
    },
    "timeseries": {
        "legend": {
            "calcs": ["lastNotNull", "max"],
            "displayMode": "table",
            "placement": "bottom",
            "showLegend": True,
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "bargauge": {
        "displayMode": "basic",
        "minVizHeight": 16,
        "minVizWidth": 8,
        "orientation": "horizontal",
        "reduceOptions": _LAST,
        "showUnfilled": True,
        "valueMode": "color",
    },
    "state-timeline": {
        "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "mergeValues": True,
        "rowHeight": 0.8,
        "showValue": "never",
        "tooltip": {"mode": "single", "sort": "none"},
    },
    "table": {"cellHeight": "sm", "showHeader": True},
}


def build_panel(panel: Panel) -> build.Panel:
    """Return Grafana's panel, without an id and a place."""
    built = (
        build.Panel()
        .type(panel.kind)
        .title(panel.title)
        .description(panel.description)
        .datasource(DATASOURCE)
        .span(panel.width)
        .height(panel.height)
        .unit(panel.unit)
        .no_value(panel.no_value)
        .thresholds(_thresholds(panel))
        .color_scheme(_scheme(panel))
        .options(_options(panel))
    )
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        built = built.with_target(_target(panel, letter, query.expr, query.legend))
    for wanted, apply in _optional(panel, built):
        if wanted:
            apply()
    return built


def _optional(panel: Panel, built: build.Panel) -> Sequence[tuple[Any, Callable[[], object]]]:
    return (
        (panel.kind == "timeseries", lambda: built.custom(_lines(panel)).min(0)),
        (panel.kind == "table", lambda: _columns(panel, built)),
        (panel.words, lambda: built.mappings([_words(panel)])),
        (panel.decimals is not None, lambda: built.decimals(float(panel.decimals or 0))),
        (panel.most is not None, lambda: built.min(0).max(panel.most or 0)),
        (panel.time_from, lambda: built.time_from(panel.time_from)),
        (panel.step, lambda: built.interval(panel.step)),
        (panel.colours, lambda: _colour(panel, built)),
    )


def _target(panel: Panel, letter: str, expr: str, legend: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().ref_id(letter).expr(expr).legend_format(legend or "__auto")
    if panel.kind in {"timeseries", "state-timeline"}:
        return target.range()
    if panel.kind == "table":
        return target.instant().format(PromQueryFormat.TABLE)
    if panel.buckets:
        # Grafana then takes each bucket from the next, and puts them in order.
        return target.instant().format(PromQueryFormat.HEATMAP)
    return target.instant()


def _thresholds(panel: Panel) -> build.ThresholdsConfig:
    steps = [
        model.Threshold(value=value, color=colour)
        for value, colour in panel.thresholds
        # Across a graph a line is drawn for each.
        if value != LOWEST or panel.kind != "timeseries"
    ]
    return build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def _scheme(panel: Panel) -> build.FieldColor:
    palette = panel.kind == "timeseries" or panel.colours
    mode = model.FieldColorModeId.PALETTE_CLASSIC if palette else model.FieldColorModeId.THRESHOLDS
    return build.FieldColor().mode(mode)


def _options(panel: Panel) -> dict[str, Any]:
    options = dict(_OPTIONS[panel.kind])
    if panel.sort_by:
        options["sortBy"] = [{"displayName": panel.sort_by, "desc": True}]
    return options


def _lines(panel: Panel) -> dict[str, Any]:
    """Thresholds are drawn across a graph that has them."""
    return {
        "drawStyle": "bars" if panel.bars else "line",
        "fillOpacity": 40 if panel.stacked else 8,
        "lineWidth": 1,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if panel.stacked else "none"},
        "thresholdsStyle": {"mode": "off" if panel.thresholds == NEUTRAL else "dashed"},
    }


def _words(panel: Panel) -> model.ValueMap:
    found = enumerate(panel.words)
    return model.ValueMap(
        options={
            value: model.ValueMappingResult(text=text, color=colour, index=index)
            for index, (value, text, colour) in found
        }
    )


def _colour(panel: Panel, built: build.Panel) -> None:
    for words, colour in panel.colours:
        fixed = {"color": {"mode": "fixed", "fixedColor": colour}}
        built.override_by_regexp(f"/^({words})$/", _properties(fixed))


def _columns(panel: Panel, built: build.Panel) -> None:
    """Join the queries' rows by their labels, and name and order the columns."""
    fields = {_field(panel, name): heading for name, heading in panel.columns}
    order = {field: index for index, field in enumerate(fields)}
    hidden = dict.fromkeys((*_HIDDEN, *panel.hidden), True)
    organize = {"excludeByName": hidden, "indexByName": order, "renameByName": fields}
    built.with_transformation(model.DataTransformerConfig("merge", options={}))
    built.with_transformation(model.DataTransformerConfig("organize", options=organize))
    for heading, unit, decimals in panel.units:
        properties = {"unit": unit, "decimals": decimals}
        built.override_by_name(heading, _properties(properties))
    if panel.coloured:
        cells = {"custom.cellOptions": {"type": "color-background"}}
        built.override_by_name(panel.coloured, _properties(cells))


def _properties(values: Mapping[str, object]) -> list[model.DynamicConfigValue]:
    return [model.DynamicConfigValue(name, value) for name, value in values.items()]


def _field(panel: Panel, name: str) -> str:
    """A query's values are called Value where it is the only one."""
    if len(name) > 1:
        return name
    return f"Value #{name}" if len(panel.queries) > 1 else "Value"
