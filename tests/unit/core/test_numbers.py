"""Which of several clusters with one phone number keeps it."""

from __future__ import annotations

from itertools import permutations

from whatsapp_operator.core.names import Key
from whatsapp_operator.core.numbers import Claim, before


def claim(name: str, *, is_new: bool = False, created: str = "2030-01-01T00:00:00Z", number: str = "16315550000") -> Claim:
    return Claim(is_new=is_new, created=created, key=Key("default", name), number=number)


def keepers(*claims: Claim) -> set[str | None]:
    """Who keeps the number, in the eyes of each of them and in any order."""
    found = {before(one, order) for order in permutations(claims) for one in claims}
    return {key.name if key else None for key in found}


def test_the_older_cluster_keeps_the_number() -> None:
    older, newer = claim("b"), claim("a", created="2030-01-01T00:00:01Z")

    assert before(older, [older, newer]) is None
    assert before(newer, [older, newer]) == Key("default", "b")


def test_one_that_reached_its_shards_keeps_it_before_an_older_one_that_never_did() -> None:
    assert keepers(claim("idle", is_new=True), claim("runs", created="2031-01-01T00:00:00Z")) == {None, "runs"}


def test_of_two_of_one_second_one_keeps_it_and_both_know_which() -> None:
    assert keepers(claim("a"), claim("b"), claim("c")) == {None, "a"}


def test_other_numbers_and_older_claims_of_the_same_cluster_do_not_count() -> None:
    mine = claim("a", is_new=True)

    assert before(mine, []) is None
    assert before(mine, [claim("b", number="16315550001"), claim("a", created="2029-01-01T00:00:00Z")]) is None
