"""Every value of both charts, taken away by null and given as text that looks like a number: never a template error, never another type."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from localkube.charts import CLUSTER, OPERATOR

from .render import ROOT, Charts, Rendered
from .test_cluster_chart import EVERYTHING
from .test_policies import FULL

Obj = dict[str, Any]
NUMBER = "1234567"
TEMPLATE_ERRORS = ("nil pointer", "error calling", "wrong type", "can't evaluate", "incompatible types")


def defaults(chart: str) -> Obj:
    found: Obj = yaml.safe_load((ROOT / "charts" / chart / "values.yaml").read_text(encoding="utf-8"))
    return found


def paths(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every section and every leaf of values, with its content."""
    for name, part in values.items():
        yield (*above, name), part
        if isinstance(part, Mapping):
            yield from paths(part, (*above, name))


def at(path: tuple[str, ...], value: Any) -> Obj:
    """Return values that give just this one."""
    for name in reversed(path):
        value = {name: value}
    return dict(value)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Obj:
    """Return values with others on top of them."""
    both = {name: merged(below[name], part) for name, part in above.items() if isinstance(part, Mapping) and name in below}
    return {**below, **above, **both}


def numbers(value: Any, where: str = "") -> Iterator[str]:
    """Yield where in rendered objects a text became a number."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from numbers(part, f"{where}.{name}")
    elif isinstance(value, list):
        for part in value:
            yield from numbers(part, f"{where}[]")
    elif value == int(NUMBER):
        yield where


def rendered(charts: Charts, chart: str, values: Obj) -> Rendered | str:
    """Return what Helm renders of these values, or what it says against them."""
    try:
        return (charts.operator if chart == OPERATOR else charts.cluster)(**values)
    except Exception as error:
        return str(error)


def rejection(charts: Charts, chart: str, values: Obj) -> str | None:
    """Return what Helm says against these values; None: it renders them."""
    found = rendered(charts, chart, values)
    return found if isinstance(found, str) else None


def test_a_default_that_the_chart_gives_is_that_of_the_resource() -> None:
    """A value that is empty is left out of the resource; any other one says what the CRD says."""
    crd = yaml.load((ROOT / "crds" / "whatsappclusters.yaml").read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    checked = set[str]()
    for path, value in paths(defaults(CLUSTER)):
        field: Obj = spec
        for name in ("client", *path) if path[0] == "simulator" else path:
            field = field.get("properties", {}).get(name, {})
        if field and not isinstance(value, Mapping) and value not in (None, "", []):
            assert value == field.get("default"), path
            checked.add(path[-1])
    assert {"restartSeconds", "mode", "unhealthyAfterSeconds", "periodSeconds", "verification", "drift"} <= checked


def test_no_field_of_the_resource_is_written_again_in_a_template() -> None:
    """But those for which the chart has values of its own: what the preset gives, and the client."""
    spec = set(re.findall(r"`spec\.([\w.\[\]]+)`", (ROOT / "docs" / "api.md").read_text(encoding="utf-8")))
    fields = {path.rpartition(".")[2] for path in spec} - {"spec", "name", "labels", "annotations", "pod", "image"}
    folder = ROOT / "charts" / CLUSTER / "templates"
    names = re.compile(r"""(?<=\.)\w+|(?<=")\w+(?=")|^ *\w+(?=:)""", re.MULTILINE)
    texts = (path.read_text(encoding="utf-8") for path in folder.glob("*cluster*"))
    written = {word.strip() for text in texts for word in names.findall(text)}
    assert len(fields) > 50
    assert fields & written <= {"shards", "spares", "client", "type", "simulator", "webapp", "replicas", "value", "values"}


@pytest.mark.parametrize("chart", [OPERATOR, CLUSTER])
def test_null_for_any_value_is_refused_in_words_or_means_that_it_is_not_given(charts: Charts, chart: str) -> None:
    unnamed: dict[str, str] = {}
    for path, _ in paths(defaults(chart)):
        said = rejection(charts, chart, at(path, None))
        if said is not None and (path[-1] not in said or any(word in said for word in TEMPLATE_ERRORS)):
            unnamed[".".join(path)] = said[-300:]
    assert unnamed == {}


@pytest.mark.parametrize(("chart", "every"), [(OPERATOR, FULL), (CLUSTER, EVERYTHING)], ids=[OPERATOR, CLUSTER])
def test_text_in_the_form_of_a_number_stays_text(charts: Charts, chart: str, every: Obj) -> None:
    texts = {path for values in (defaults(chart), every) for path, value in paths(values) if isinstance(value, str)}
    changed: dict[str, list[str]] = {}
    for path in sorted(texts):
        found = rendered(charts, chart, merged(every, at(path, NUMBER)))
        if isinstance(found, Rendered):
            wrong = [*numbers(found.objects)]
            changed |= {".".join(path): wrong} if wrong else {}
        elif path[-1] not in found:
            changed[".".join(path)] = [f"rejected without its name: {found[-200:]}"]
    assert changed == {}


def test_a_renew_deadline_that_outlasts_the_lease_is_refused_at_install(charts: Charts) -> None:
    for lease in ({"seconds": 4, "renewDeadlineSeconds": 4}, {"seconds": 3}, {"renewDeadlineSeconds": 1, "retrySeconds": 1}):
        said = rejection(charts, OPERATOR, {"lease": lease})
        assert said is not None, lease
        assert "lease.renewDeadlineSeconds" in said


@pytest.mark.parametrize("name", ["1operator", "1234567"])
def test_a_name_that_a_service_cannot_have_is_refused(charts: Charts, name: str) -> None:
    assert "fullnameOverride" in (rejection(charts, OPERATOR, {"fullnameOverride": name}) or "")


def test_helm_test_may_ask_for_metrics_no_matter_who_else_may(charts: Charts) -> None:
    shown = charts.operator(networkPolicy={"metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]})
    (ingress,) = shown.one("NetworkPolicy")["spec"]["ingress"]
    labels = shown.one("Pod")["metadata"]["labels"]
    selected = [one["podSelector"]["matchLabels"] for one in ingress["from"] if "podSelector" in one]
    assert any(wanted.items() <= labels.items() for wanted in selected), "the test pod"
    assert {"namespaceSelector": {"matchLabels": {"name": "monitoring"}}} in ingress["from"]


@pytest.mark.parametrize("chart", [OPERATOR, CLUSTER])
def test_no_readme_has_what_a_browser_takes_for_a_tag(chart: str) -> None:
    text = (ROOT / "charts" / chart / "README.md").read_text(encoding="utf-8")
    outside_of_code = "".join(text.split("`")[::2])
    assert "<name>" not in outside_of_code
    assert "<namespace>" not in outside_of_code
