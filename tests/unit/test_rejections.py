"""What the API server rejected is remembered for each object until it is accepted; an answer that says nothing ends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from whatsapp_operator.core.actions import Action, Create, Replace
from whatsapp_operator.shell.kube.errors import AlreadyExists, KubeError, LeaseTooShort, Rejected, Unavailable
from whatsapp_operator.shell.loop.cluster import Memory
from whatsapp_operator.shell.loop.execute import Executor
from whatsapp_operator.shell.loop.observe import Observation
from whatsapp_operator.shell.whatsapp.access import Access, Credentials

from .core.situations import NOW, situation

QUOTA = Rejected("create StatefulSet default/a: 403 Forbidden: exceeded quota", code=403, reason="Forbidden")
TIMED_OUT = Unavailable("create StatefulSet default/a: the API server did not answer within 2 s.")
SERVER_ERROR = Unavailable("create StatefulSet default/a: 500", code=500)
BUSY = Unavailable("create StatefulSet default/a: 429 TooManyRequests", code=429)
ALREADY = AlreadyExists("create StatefulSet default/a: 409 AlreadyExists", code=409, reason="AlreadyExists")


def an_object(name: str) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name, "namespace": "default"}}


class Fakes:
    """Answers writes as set by the name of the object; every other one is accepted."""

    def __init__(self) -> None:
        self.answers: dict[str, KubeError] = {}

    def now(self) -> object:
        return NOW

    async def create(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        if (answer := self.answers.get(obj["metadata"]["name"])) is not None:
            raise answer
        return {**obj, "metadata": {**obj["metadata"], "resourceVersion": "8"}}

    replace = create


class Cluster:
    """One cluster's writes, round by round."""

    def __init__(self) -> None:
        self.fakes, self.memory = Fakes(), Memory()
        fake: Any = self.fakes
        self._executor = Executor(kube=fake, clients=fake, coreapps=fake, clock=fake, identity="me")
        one = situation()
        self._observation = Observation(
            one.desired, one.snapshot, Access(addresses=(), server_name=""), Credentials(country_code="1", phone_number="2")
        )

    async def round(self, *actions: Action, **answers: KubeError) -> dict[str, str]:
        """What is remembered of rejections, by the object's name, after a round in which objects were answered so."""
        self.fakes.answers = answers
        await self._executor.perform(self._observation, actions, self.memory)
        return {ref.name: one.text for ref, one in self.memory.rejected.items()}


A, B = Create(obj=an_object("a")), Create(obj=an_object("b"))
CHANGE = Replace(obj=an_object("a"), desired=an_object("a"), live=an_object("a"))


@pytest.mark.parametrize(
    "unknown", [TIMED_OUT, SERVER_ERROR, BUSY, ALREADY, LeaseTooShort("not sent")], ids=lambda error: type(error).__name__ + str(error.code)
)
@pytest.mark.parametrize("action", [A, CHANGE], ids=lambda action: type(action).__name__)
async def test_no_answer_between_two_rejections_ends_nothing(action: Action, unknown: KubeError) -> None:
    cluster = Cluster()

    said = [await cluster.round(action, a=answer) for answer in (QUOTA, unknown, QUOTA, unknown)]

    assert said == [{"a": str(QUOTA)}] * 4


async def test_what_is_accepted_ends_the_rejection() -> None:
    cluster = Cluster()

    assert await cluster.round(A, a=QUOTA) == {"a": str(QUOTA)}
    assert await cluster.round(A) == {}


async def test_another_object_that_is_accepted_does_not_end_it() -> None:
    cluster = Cluster()

    assert await cluster.round(A, B, a=QUOTA) == {"a": str(QUOTA)}
    assert await cluster.round(B) == {"a": str(QUOTA)}
    assert await cluster.round(A, B, a=TIMED_OUT) == {"a": str(QUOTA)}


async def test_a_round_without_such_a_write_does_not_end_it() -> None:
    cluster = Cluster()
    await cluster.round(A, a=QUOTA)

    assert await cluster.round() == {"a": str(QUOTA)}


async def test_each_rejection_is_remembered_and_none_of_them_counts_as_another_write() -> None:
    cluster = Cluster()
    other = Rejected("create StatefulSet default/b: 422 Invalid")

    assert await cluster.round(A, B, a=QUOTA, b=other) == {"a": str(QUOTA), "b": str(other)}
    assert cluster.memory.denial is None


def test_of_two_rejections_the_first_in_the_order_of_objects_is_said() -> None:
    """In each round the same one, whichever answer comes first: else the sentence would flap."""
    one = situation()
    first, second, *_ = one.facts().absent
    for both in ((first, second), (second, first)):
        rejected = one
        for obj in both:
            rejected = rejected.rejecting(obj["kind"], obj["metadata"]["name"], f"no {obj['metadata']['name']}")
        assert rejected.plan().decision.why.endswith(f"no {first['metadata']['name']}")
