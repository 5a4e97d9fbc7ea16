"""Maintenance windows in the cases of Set Shards: what they hold and what they do not."""

from __future__ import annotations

from .set_shards_actions import Action
from .set_shards_environment import SHUT, Trial

NOW = "multiconnect.dev/reshard-now"
OPEN = {"name": "always", "schedule": "* * * * *", "durationMinutes": 5}


async def shut(s: Trial) -> None:
    """The call waits; pods and failovers do not; an annotation for another count means nothing, the one for this count lets it go."""
    await s.patch(reshard={"windows": [SHUT]})
    await s.resize(2)
    message = await s.word("Reconciling", "WindowClosed")
    assert "2028-02-29T00:00:00Z" in message
    assert s.status()["nextWindowAt"] == "2028-02-29T00:00:00Z"
    await s.until(lambda _: len(s.ready("coreapp")) == 3, "the pods for two shards")
    await s.annotate(NOW, "4")
    before = len(s.seen.commits)
    await s.delete_pod(s.holder(0))
    await s.commit(0, before)
    await s.until(lambda _: len(s.ready("coreapp")) == 3, "the pods for two shards")
    assert await s.made() == []
    await s.annotate(NOW, "2")
    await s.rest()
    assert "nextWindowAt" not in s.status()
    await s.kubectl("annotate", "whatsappcluster", "acme", f"{NOW}-")


async def shut_taken_back(s: Trial) -> None:
    """The request is gone before its window comes."""
    await s.patch(reshard={"windows": [SHUT]})
    await s.resize(2)
    await s.word("Reconciling", "WindowClosed")
    await s.until(lambda _: len(s.ready("coreapp")) == 3, "the pods for two shards")
    await s.resize(1)


async def opens(s: Trial) -> None:
    """A window that is open is added to the one that is shut."""
    await s.patch(reshard={"windows": [SHUT]})
    await s.resize()
    await s.word("Reconciling", "WindowClosed")
    assert await s.made() == []
    await s.patch(reshard={"windows": [SHUT, OPEN]})


async def open_(s: Trial) -> None:
    """A window is open."""
    first = len(s.recorder.words)
    await s.patch(reshard={"windows": [SHUT, OPEN]})
    await s.resize()
    await s.rest()
    assert "Reconciling/WindowClosed" not in s.recorder.words[first:]


def invalid(says: str, **wrong: str) -> Action:
    """A window that means nothing."""

    async def action(s: Trial) -> None:
        await s.patch(reshard={"windows": [{**OPEN, **wrong}]})
        await s.resize()
        assert says in await s.word("Stalled", "WindowInvalid")
        assert await s.made() == []
        await s.patch(reshard={"windows": [OPEN]})

    return action
