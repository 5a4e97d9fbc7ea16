"""``kubectl whatsapp``: what state a WhatsApp cluster is in, why, and what to do, even in an outage.

A map of the modules, from the lowest layer up (a test checks it against the tree):

- ``rights``: the rights that each command may need: one table.
- ``plain``: requests with only the standard library.
- ``errors``: how access to the API server, or a request, can fail.
- ``client``: requests to the API server; the only module that uses pykube-ng.
- ``access``: access to the API server: kubectl's configuration, exec credentials.
- ``reading``: reads several things in parallel under one deadline; says what could not be read, and why.
- ``marks``: labels and annotations of the operator, and the Service of a shard. Pure.
- ``world``: what was read, by name. Pure.
- ``model``: what is shown of one cluster, as frozen values.
- ``verdict``: the verdict: one table. Pure.
- ``view``: what was read as one value: verdict, shards, standbys, operation, leader, next steps. Pure.
- ``why``: the operator's own rules, run on what was read. Pure.
- ``planning``: what a change of shards or spares would do. Pure.
- ``checks``: prerequisites and health: one table. Pure.
- ``redact``: removes secrets from a report. Pure.
- ``changes``: what the plugin writes, and what it waits for.
- ``shape``: values as JSON and YAML.
- ``render``: values as text for people.
- ``dashboard.lists``: the objects of one list, kept up to date by a watch.
- ``dashboard.board``: what the live page shows: clusters, their verdicts, and whether the API server answers.
- ``dashboard.server``: serves the page on loopback.
- ``cli``: what all commands share: options, output, errors.
- ``commands.observe``: status, why, check.
- ``commands.change``: plan, switchover, reshard-now, pause, resume.
- ``commands.collect``: report and logs.
- ``commands.drill``: game-day.
- ``commands.dashboard``: dashboard.
- ``complete``: completion of commands, clusters, shards and pods for kubectl.
- ``__main__``: the command line.
"""

import time

BEGUN = time.monotonic()
"""When the process began, as closely as it can tell: deadlines count from then."""

from typing import Any  # noqa: E402  # the time must be taken first

Obj = dict[str, Any]
"""A JSON object, as the API server sends it."""
