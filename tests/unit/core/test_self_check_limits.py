"""When a silence is this process's own: how old a Lease may be, and how many Coreapps that never answered are too many."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from whatsapp_operator.core.self_check import is_lease_stale, newest_renewal, self_check
from whatsapp_operator.core.snapshot import Node, Silence

from .situations import NOW, seconds


def node(name: str, *, renewed: float | None = 1) -> Node:
    """A node whose Lease was renewed so many seconds ago; None: it has none."""
    return Node(name=name, ready=True, renewed_at=None if renewed is None else NOW - seconds(renewed))


# --- Leases


@pytest.mark.parametrize(
    ("behind", "stale"), [(0, False), (14.999, False), (15, True), (600, True)], ids=["none", "a little less", "exactly", "long ago"]
)
def test_a_Lease_is_stale_once_it_is_fifteen_seconds_behind_the_newest(behind: float, stale: bool) -> None:  # noqa: N802
    assert is_lease_stale(node("a", renewed=behind), NOW, NOW) is stale


@pytest.mark.parametrize(("ago", "stale"), [(0, True), (14.999, True), (15, False), (600, False)])
def test_no_Lease_is_stale_once_none_was_renewed_for_fifteen_seconds(ago: float, stale: bool) -> None:  # noqa: N802
    """Then this process does not see the renewals."""
    assert is_lease_stale(node("a", renewed=ago + 60), NOW - seconds(ago), NOW) is stale


def test_a_Lease_that_does_not_exist_or_cannot_be_compared_is_not_stale() -> None:  # noqa: N802
    assert not is_lease_stale(node("a", renewed=None), NOW, NOW)
    assert not is_lease_stale(node("a", renewed=60), None, NOW)


def test_the_newest_renewal_is_that_of_any_node() -> None:
    assert newest_renewal({"a": node("a", renewed=9), "b": node("b", renewed=2), "c": node("c", renewed=None)}) == NOW - seconds(2)
    assert newest_renewal({"a": node("a", renewed=None)}) is None
    assert newest_renewal({}) is None
    assert newest_renewal(None) is None


# --- silence on several nodes


@pytest.mark.parametrize(
    ("third", "fails"),
    [({"c": node("c")}, True), ({}, False), ({"c": node("c", renewed=None)}, False), ({"c": node("c", renewed=60)}, False)],
    ids=["alive", "not known", "without a Lease", "stale"],
)
def test_only_nodes_that_renew_their_Leases_count_against_this_process(third: dict[str, Node], fails: bool) -> None:  # noqa: N802
    nodes = {"a": node("a"), "b": node("b"), **third}
    silence = Silence(targets=3, unresponsive=3, nodes=frozenset("abc"))

    assert (self_check(silence, nodes, NOW) is not None) is fails


# --- Coreapps that never answered


@pytest.mark.parametrize(
    ("never", "unresponsive", "fails"), [(0, 0, False), (1, 1, True), (1, 2, False), (2, 3, True), (2, 4, False), (3, 4, True)]
)
def test_it_fails_if_most_of_the_silent_ones_never_answered(never: int, unresponsive: int, fails: bool) -> None:
    found = self_check(Silence(targets=20, unresponsive=unresponsive, never_responded=("a",) * never), {}, NOW)

    said = f"{never} of {unresponsive} unresponsive Coreapps never answered this operator, but their kubelets report them ready"
    assert found == (said if fails else None)


@pytest.mark.parametrize(
    ("own", "fails"),
    [
        ({}, True),
        ({"ready": False}, True),
        ({"ready": None}, False),
        ({"renewed_at": NOW - seconds(60)}, False),
        ({"gone": True}, False),
        ({"out_of_service": True}, False),
    ],
    ids=["lives", "its kubelet calls it not ready", "Unknown", "stale", "gone", "out of service"],
)
def test_those_on_lost_nodes_are_not_among_them(own: dict[str, Any], fails: bool) -> None:
    """What a kubelet said before it was out of reach is no news."""
    nodes = {"a": replace(node("a"), **own), "b": node("b")}
    silence = Silence(targets=20, unresponsive=1, never_responded=("a",))

    assert (self_check(silence, nodes, NOW) is not None) is fails


def test_those_on_lost_nodes_and_others_are_counted_one_by_one() -> None:
    nodes = {"a": node("a", renewed=60), "b": node("b")}

    def found(*names: str | None) -> str | None:
        return self_check(Silence(targets=20, unresponsive=3, never_responded=names), nodes, NOW)

    assert found("a", "a", "b") is None
    assert found("a", "b", "b") == "2 of 3 unresponsive Coreapps never answered this operator, but their kubelets report them ready"
    assert found("b", None, "a") == "2 of 3 unresponsive Coreapps never answered this operator, but their kubelets report them ready"


def test_a_Coreapp_that_never_answered_is_not_counted_where_another_one_on_its_node_answers() -> None:  # noqa: N802
    """What is in its way is its own cluster's, such as a service mesh: this process reaches the node, and other clusters need a leader."""
    nodes = {name: node(name) for name in "abc"}

    def found(*names: str | None, answering: str = "", unresponsive: int = 4) -> str | None:
        silence = Silence(targets=40, unresponsive=unresponsive, never_responded=names, answering=frozenset(answering))
        return self_check(silence, nodes, NOW)

    assert found("a", "b", "c") is not None
    assert found("a", "b", "c", answering="abc") is None
    assert found("a", "b", "c", answering="a") is None
    assert found("a", "b", "c", "c", answering="a") is not None
    assert found("a", answering="a", unresponsive=1) is None
    assert found("a", answering="b", unresponsive=1) is not None
    assert found(None, answering="a", unresponsive=1) is not None


def test_where_nodes_are_not_known_those_that_never_answered_are_counted() -> None:
    silence = Silence(targets=20, unresponsive=3, never_responded=("a", None))

    found = self_check(silence, None, NOW)
    assert found == "2 of 3 unresponsive Coreapps never answered this operator, but their kubelets report them ready"
