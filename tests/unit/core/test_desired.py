"""Which numbers of shards are set, and when what is derived from the spec is derived again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from whatsapp_operator.core import set_shards
from whatsapp_operator.core.desired import Desired

from .situations import Situation, situation


def ready_for(shards: int) -> Situation:
    """Another number is desired, and as many Coreapps are ready."""
    one = situation().settled(shards=1 if shards != 1 else 2).wanting(shards=shards)
    return one.with_pods(range(2, shards + 1)) if shards > 1 else one


@pytest.mark.parametrize("shards", [1, 2, 4, 8, 16, 32])
def test_every_number_that_the_client_takes_may_be_set(shards: int) -> None:
    assert set_shards.may_call(ready_for(shards).facts())


@pytest.mark.parametrize("shards", [3, 5, 6, 7, 9, 17, 31, 33, 64])
def test_no_other_number_is_set(shards: int) -> None:
    """The CRD rejects it; an older CRD may not."""
    assert not set_shards.may_call(ready_for(shards).facts())


def test_what_is_derived_is_derived_once_for_the_same_arguments_and_again_for_others() -> None:
    asked: list[int] = []

    def twice(_: Desired, number: int) -> list[int]:
        asked.append(number)
        return [2 * number]

    desired = replace(situation().desired)
    first, again, other, back = (desired.derive(twice, number) for number in (1, 1, 2, 1))

    assert again is first
    assert (first, other, back) == ([2], [4], [2])
    assert asked == [1, 2, 1], "only the last result is kept"
