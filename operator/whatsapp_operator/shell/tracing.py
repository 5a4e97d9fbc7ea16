"""A trace for each handover, sent to an OpenTelemetry collector in a separate thread. Off by default, and then nothing is imported.

Nothing here waits for the collector: what it does not take in time is dropped.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from whatsapp_operator import __version__
from whatsapp_operator.core.actions import Handover
from whatsapp_operator.core.names import Key

from .clock import Clock
from .metrics import Metrics, Phase

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

CLOSE_WITHIN: Final = 1.0
"""Seconds for sending the last traces when the process ends."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Tracing:
    """Sends spans to a collector by OTLP over HTTP, in a separate thread; a full queue drops spans."""

    def __init__(self, endpoint: str, *, identity: str) -> None:
        """``endpoint`` is the collector's base address; ``identity`` names this process. ImportError without the packages."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  only when it is on
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        except ImportError as error:
            msg = f"traces need the packages of the extra tracing: pip install 'whatsapp-operator[tracing]' ({error})."
            raise ImportError(msg) from None
        about = {"service.name": "whatsapp-operator", "service.version": __version__, "service.instance.id": identity}
        self._provider: TracerProvider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer: Tracer = self._provider.get_tracer("whatsapp_operator", __version__)

    def close(self) -> None:
        """Send what is left, for at most ``CLOSE_WITHIN`` seconds."""
        # The library itself would wait for up to half a minute.
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(CLOSE_WITHIN)


class _Phase(NamedTuple):
    phase: Phase
    start: datetime
    end: datetime


@dataclass(slots=True)
class Timeline:
    """The phases of one handover: each goes to the metrics at once, and all of them to a trace at the end."""

    key: Key
    handover: Handover
    metrics: Metrics
    clock: Clock
    tracing: Tracing | None = None
    _span: Span | None = None
    _phases: list[_Phase] = field(default_factory=list)
    _ahead: timedelta = field(init=False)
    """By how much the wall clock is ahead of ``clock.now``. Read once: the times of one trace must not move against each other."""

    def __post_init__(self) -> None:
        self._ahead = self.clock.wall() - self.clock.now()

    def observe(self, phase: Phase, start: datetime, end: datetime | None = None) -> None:
        """Note a phase, by times of ``clock.now``; without ``end`` it ends now."""
        end = end or self.clock.now()
        if self.tracing is not None:
            self._phases.append(_Phase(phase, start, max(start, end)))
            self._span = self._span or self.tracing.tracer.start_span("handover", start_time=self._nanoseconds(start))
        self.metrics.observe_phase(phase, self.handover.evidence, end - start, trace_id=self._trace_id())

    def finish(self) -> None:
        """End the trace, if there is one. Without a commit it is marked as failed."""
        if self._span is None or self.tracing is None:
            return
        from opentelemetry.trace import Status, StatusCode, set_span_in_context  # noqa: PLC0415  only when it is on

        one = self.handover
        attributes: dict[str, str | int] = {
            "cluster": self.key.name,
            "namespace": self.key.namespace,
            "shard": one.route.shard,
            "epoch": str(one.epoch),
            "evidence": str(one.evidence),
            "from": one.route.holder or "",
            "to": one.to.name,
        }
        self._span.set_attributes(attributes)
        if Phase.COMMIT not in {one.phase for one in self._phases}:
            self._span.set_status(Status(StatusCode.ERROR, "not committed"))
        context = set_span_in_context(self._span)
        for phase, start, end in self._phases:
            span = self.tracing.tracer.start_span(phase.value, context=context, start_time=self._nanoseconds(start))
            span.end(self._nanoseconds(end))
        self._span.end(self._nanoseconds(max(phase.end for phase in self._phases)))

    def _trace_id(self) -> str | None:
        if self._span is None or not self._span.is_recording():
            return None
        return f"{self._span.get_span_context().trace_id:032x}"

    def _nanoseconds(self, time: datetime) -> int:
        """Return a time of ``clock.now`` as wall time, which the spans of other processes have, in nanoseconds since 1970."""
        return (time + self._ahead - _EPOCH) // timedelta(microseconds=1) * 1000
