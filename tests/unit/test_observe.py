"""An observation waits for what a failover depends on, and for nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest

from whatsapp_operator.core.model import Key, Tuning
from whatsapp_operator.shell.kube import POD, SECRET, Kind, Obj, Unavailable
from whatsapp_operator.shell.observe import Look, Memory, Observer

from .test_snapshot import KEY, Clock, FakeKube, NothingHeard, world


class SlowKube(FakeKube):
    """Secrets are answered when ``answers`` is set; pods cannot be listed while ``pods_fail``."""

    def __init__(self, objects: Mapping[Kind, list[Obj]]) -> None:
        super().__init__(objects)
        self.answers = asyncio.Event()
        self.pods_fail = False
        self.listed = 0

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        if kind is SECRET:
            await self.answers.wait()
        return await super().get(kind, namespace, name)

    async def list(self, kind: Kind, *more: Any) -> list[Obj]:
        self.listed += kind is POD
        if kind is POD and self.pods_fail:
            raise Unavailable("500")
        return await super().list(kind, *more)


def observer(kube: FakeKube) -> Observer:
    doors: Any = NothingHeard()
    return Observer(kube=cast("Any", kube), clients=doors, coreapps=doors, clock=Clock(), image="sim:1", tuning=Tuning())


async def observe(eyes: Observer, memory: Memory, key: Key = KEY) -> Look:
    found = await eyes.look(key, memory, nonce="n0nce", leader_epoch=1)
    assert found is not None
    return found


async def test_what_is_still_being_read_is_not_known_and_not_waited_for() -> None:
    kube, memory = SlowKube(world()), Memory()
    eyes = observer(kube)

    first = await observe(eyes, memory)
    assert memory.reading is not None
    assert set(first.see.unread) == {"Secret", "Deployment", "PodDisruptionBudget", "NetworkPolicy", "PersistentVolumeClaim"}
    assert first.see.failed_reads == {}
    assert (len(first.see.routes), len(first.see.coreapps), first.see.missing, first.see.taken) == (2, 3, None, ())

    kube.answers.set()
    await asyncio.wait({memory.reading})
    assert (await observe(eyes, memory)).see.unread == {}
    assert memory.reading is None


async def test_a_reading_outlives_the_observation_that_began_it() -> None:
    kube, memory = SlowKube(world()), Memory()
    eyes = observer(kube)
    kube.pods_fail = True
    with pytest.raises(Unavailable):
        await eyes.look(KEY, memory, nonce="n0nce", leader_epoch=1)
    kube.pods_fail = False

    second = asyncio.create_task(observe(eyes, memory))
    while kube.listed < 2:
        await asyncio.sleep(0)
    kube.answers.set()

    assert (await second).see.failed_reads == {}
    assert (await observe(eyes, memory)).see.unread == {}


async def test_what_is_being_read_ends_with_its_loop() -> None:
    memory = Memory()
    await observe(observer(SlowKube(world())), memory)
    reading = memory.reading
    assert reading is not None

    memory.close()
    await asyncio.wait({reading})

    assert reading.cancelled()
