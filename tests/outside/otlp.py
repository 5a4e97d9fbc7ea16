"""An OpenTelemetry collector that keeps the spans it is sent: OTLP over HTTP, as protobuf."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """What has arrived; ``url`` is the base address of the collector."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    services: set[str] = field(default_factory=set)
    """The values of ``service.name`` of those who sent spans."""
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def traces(self) -> dict[str, list[Span]]:
        """The spans by the hexadecimal id of their trace, in the order of their ends."""
        found: dict[str, list[Span]] = {}
        for span in sorted(self.spans, key=lambda one: one.end_time_unix_nano):
            found.setdefault(span.trace_id.hex(), []).append(span)
        return found

    async def until(self, predicate: Callable[[], object], seconds: float) -> None:
        """Wait for spans until this is true; TimeoutError after so many seconds."""
        async with asyncio.timeout(seconds):
            while not predicate():
                self._arrived.clear()
                await self._arrived.wait()

    async def take(self, request: web.Request) -> web.Response:
        """Keep what one request carries."""
        message = ExportTraceServiceRequest.FromString(await request.read())
        for resource in message.resource_spans:
            self.services |= {one.value.string_value for one in resource.resource.attributes if one.key == "service.name"}
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self._arrived.set()
        return web.Response(body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf")


def attributes(span: Span) -> dict[str, str | int]:
    """The attributes of a span that are texts or whole numbers."""
    return {one.key: one.value.string_value if one.value.HasField("string_value") else one.value.int_value for one in span.attributes}


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector on a free port of this machine, until the block ends."""
    collector, app = Collector(), web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        collector.url = f"http://{host}:{port}"
        yield collector
    finally:
        await runner.cleanup()
