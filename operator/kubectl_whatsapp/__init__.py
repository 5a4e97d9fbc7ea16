"""``kubectl whatsapp``: what state a WhatsApp cluster is in, why, and what to do; also in an outage.

A map of the modules, from the ground up (a test checks it against the tree):

- ``rights``: what each command may need to do: one table.
- ``plain``: GET requests with the standard library alone.
- ``errors``: how a way to the API server, or a request, can fail.
- ``client``: requests to the API server; alone knows pykube-ng.
- ``access``: the way to the API server: kubectl's configuration, exec credentials.
- ``reading``: reads several things at once under one deadline; what could not be read is kept with the reason.
- ``marks``: labels and annotations of the operator, and the Service of a shard. Pure.
- ``world``: what was read, by name. Pure.
- ``model``: what is shown of one cluster, as frozen values.
- ``verdict``: the verdict: one table. Pure.
- ``view``: what was read as one value: verdict, shards, standbys, operation, leader, next steps. Pure.
- ``why``: the operator's own rules, run on what was read. Pure.
- ``planning``: what a change of shards or spares would do. Pure.
- ``checks``: prerequisites and health: one table. Pure.
- ``redact``: takes out of a report what is secret. Pure.
- ``changes``: what is written, and what is waited for.
- ``shape``: values as JSON and YAML.
- ``render``: values as text for people.
- ``dashboard.lists``: the objects of one list, kept current by a watch.
- ``dashboard.board``: what the live page shows: clusters, judged, and whether the API server answers.
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
"""When the process began, as nearly as it knows: deadlines count from then."""

from typing import Any  # noqa: E402  # the time comes first

Obj = dict[str, Any]
"""An object of JSON, as the API server sends it."""
