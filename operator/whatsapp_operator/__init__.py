"""The operator for the WhatsApp Business API client in Multiconnect.

A map of the modules (a test checks it against the tree):

- ``__main__``: parses the arguments, reads the settings, builds the shell, campaigns for leadership, runs Kopf.
- ``settings``: the only reader of the environment.
- ``core.reasons``: every reason that users see: its meaning, and what to do.
- ``core.places``: where a field is in the CRD.
- ``core.names``: keys of clusters, references to objects, epochs.
- ``core.desired``: the desired state.
- ``core.snapshot``: everything that one observation read.
- ``core.actions``: the actions, and the plan of one observation.
- ``core.record``: the remembered part of status: read and written.
- ``core.self_check``: whether this process, and not the Coreapps, is the likely cause of a silence.
- ``core.capacity``: the lowest layer of facts: numbers, routes and pods by name.
- ``core.restart``: facts about Set Shards and the restart after it.
- ``core.health``: which Coreapps could serve, and why the others cannot.
- ``core.claims``: whether the labels of a pod are valid.
- ``core.evidence``: the table of evidence that a holder failed.
- ``core.holders``: which Coreapp serves which shard, and which ones could.
- ``core.facts``: the top layer of facts: what should exist. Decides nothing.
- ``core.objections``: the table of reasons not to send the certificate.
- ``core.handovers``: which standby gets which shard.
- ``core.rollout``: a new pod template, one Coreapp at a time.
- ``core.set_shards``: one call of Set Shards, before and after it.
- ``core.upkeep``: whether an object is as desired, and what replaces it.
- ``core.certificate``: reads the fields of a certificate.
- ``core.windows``: when Set Shards may begin.
- ``core.rules``: the main table: which rule wins, what it does and why.
- ``core.always``: the table of what is done in addition to the winning rule.
- ``core.pace``: when to observe again, and when to retry.
- ``core.conditions``: the conditions, a table for each.
- ``core.report``: status and Events.
- ``core.answers``: the table of what an answer of Set Shards means.
- ``core.checksums``: when pods are replaced because a Secret changed.
- ``core.manifests.common``: names, labels, ports, owners, formats of times.
- ``core.manifests.patches``: Services of shards and labels of holders: read, and changed in a handover.
- ``core.manifests.pods``: pod templates: common parts, and additions of the user.
- ``core.manifests.simulator``: the simulator's side of the WhatsApp servers.
- ``core.manifests.workloads``: Coreapps, Webapps, their Services, budgets and policies.
- ``core.missing``: pods that are missing: when the cause is read, and when it is reported.
- ``core.scaling``: replicas that others wrote.
- ``shell.addresses``: addresses of pods in URLs.
- ``shell.clock``: time and random values.
- ``shell.cluster_series``: the metrics of clusters, computed at each scrape.
- ``shell.coreapps.loop_lag``: the lag of the event loop.
- ``shell.coreapps.probe``: client of the Coreapps: all tethers, their silence, role assignments.
- ``shell.coreapps.self_check``: gives up the leadership when the self-check keeps failing.
- ``shell.coreapps.tether``: watches one Coreapp: its connection and its probes.
- ``shell.coreapps.wire``: one connection to a healthcheck port, its requests and answers.
- ``shell.kube.client``: every call to the API server.
- ``shell.kube.errors``: how a call can fail.
- ``shell.kube.kinds``: the kinds of objects.
- ``shell.kube.lease``: leader election by a Lease.
- ``shell.kube.nodes``: what the API server knows of nodes.
- ``shell.kube.transport``: connections to the API server, replaced after a failure.
- ``shell.loop.events``: Events, and series of equal ones.
- ``shell.loop.execute``: every write.
- ``shell.loop.observe``: every read.
- ``shell.loop.reconcile``: the loop: observe, plan, note, act, report, rest.
- ``shell.loop.schedule``: limits concurrent observations, urgent ones first.
- ``shell.logs``: the log as text or JSON, with the cluster, the shard and the rule.
- ``shell.metrics``: metrics for Prometheus, and the liveness probe.
- ``shell.objects.assemble``: makes one frozen value of all objects that were read; damaged ones are left out.
- ``shell.objects.fields``: reads frozen values from objects, each field from its place.
- ``shell.objects.reading``: converts objects into values of the core.
- ``shell.objects.rejections``: why pods are missing, as reported by their controllers.
- ``shell.objects.secret_keys``: the table of the keys of Secrets, with their formats.
- ``shell.objects.shapes``: schemas of the objects that are read.
- ``shell.watch.handlers``: Kopf's handlers; events wake a loop, nothing else.
- ``shell.watch.health``: when each watch was last connected, and whether this process still tries.
- ``shell.watch.index``: index of pods by events; keeps probes running while another process leads.
- ``shell.watch.supervise``: keeps Kopf watching, in a separate thread.
- ``shell.whatsapp.session``: client of the WhatsApp Business API.
"""

__version__ = "0.1.0"
"""The version of the release; pyproject.toml reads it from here."""
