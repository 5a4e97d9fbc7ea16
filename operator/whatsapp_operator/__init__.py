"""The operator for the WhatsApp Business API client in Multiconnect.

A map of the rooms (a test checks it against the tree):

- ``__main__``: parses the arguments, reads the settings, builds the shell, campaigns for leadership, runs Kopf.
- ``settings``: the only reader of the environment.
- ``core.reasons``: every reason that users see: what it means, what to do.
- ``core.places``: where a field stands in the CRD.
- ``core.names``: what names things: clusters, objects, epochs.
- ``core.desired``: what a user wants.
- ``core.snapshot``: what was read in one observation.
- ``core.actions``: what may be done, and what one observation leads to.
- ``core.record``: what is remembered in status, read from it and written into it.
- ``core.self_check``: whether a silence is more likely ours; the nodes' Leases as second witness.
- ``core.capacity``: the lowest of the layers that follow from one snapshot: plain numbers, routes and pods by name.
- ``core.restart``: what follows for Set Shards, and what a restart explains.
- ``core.health``: which Coreapps could serve, and what is held against the others.
- ``core.claims``: what the labels on a pod are worth.
- ``core.evidence``: the table of what proves that a holder failed.
- ``core.holders``: who serves which shard, and who could.
- ``core.facts``: the top of these layers: what is to exist. Decides nothing.
- ``core.objections``: the table of what speaks against sending the certificate.
- ``core.handovers``: which standby takes which shard.
- ``core.rollout``: a new pod template, one Coreapp at a time.
- ``core.set_shards``: one call of Set Shards, before it and after it.
- ``core.upkeep``: whether a live object is as it should be, and what is put in its place.
- ``core.certificate``: what a certificate says of itself.
- ``core.windows``: when Set Shards may begin.
- ``core.rules``: THE table: which row wins, what it does and why.
- ``core.always``: the table of what is done whichever rule wins.
- ``core.pace``: when to look again, and when to ask again.
- ``core.conditions``: what was seen, as conditions; a table for each.
- ``core.report``: what was seen and done, as status and Events.
- ``core.answers``: the table of what an answer of Set Shards means.
- ``core.checksums``: when pods are replaced because a Secret changed.
- ``core.manifests.common``: names, labels, ports, owners; how times are spelled.
- ``core.manifests.patches``: Services of shards and labels of holders: read, and changed in a handover.
- ``core.manifests.pods``: pod templates: what all have, and what the user adds.
- ``core.manifests.simulator``: the simulator's side of the WhatsApp servers.
- ``core.manifests.workloads``: Coreapps, Webapps, their Services, budgets and policies.
- ``core.missing``: pods that are missing: when it is asked why, and when a person is told.
- ``core.scaling``: whose number of Coreapps counts.
- ``shell.addresses``: addresses of pods as they stand in URLs.
- ``shell.clock``: time and chance, handed in.
- ``shell.coreapps.loop_lag``: how late this process itself is.
- ``shell.coreapps.probe``: the door to the Coreapps: all tethers, how many are silent, and what Coreapps are told.
- ``shell.coreapps.self_check``: what comes of a long doubt about ourselves.
- ``shell.coreapps.tether``: one Coreapp under watch: its connection, its probes, what is broken or silent.
- ``shell.coreapps.wire``: one connection to a healthcheck port, its questions and answers.
- ``shell.kube.client``: every call to the API server.
- ``shell.kube.errors``: how a call can fail.
- ``shell.kube.kinds``: the kinds of objects.
- ``shell.kube.lease``: the Lease.
- ``shell.kube.nodes``: what the API server knows of nodes.
- ``shell.kube.transport``: connections to the API server that are dialled anew after a failure.
- ``shell.loop.execute``: every write.
- ``shell.loop.observe``: every read.
- ``shell.loop.reconcile``: the loop: look, plan, note, act, report, rest.
- ``shell.loop.schedule``: how many look at a time, and who first.
- ``shell.metrics``: what Prometheus is told, and whether we live.
- ``shell.objects.assemble``: what was read, as one frozen value; damaged objects are left out.
- ``shell.objects.fields``: reads frozen values from objects, each field from its place.
- ``shell.objects.reading``: what was read, as our nouns.
- ``shell.objects.rejections``: why pods are missing, in the words of their controllers.
- ``shell.objects.secret_keys``: the table of the keys of Secrets: what each must look like.
- ``shell.objects.shapes``: what an object must look like to be read.
- ``shell.watch.handlers``: Kopf's door; events wake a loop, nothing else.
- ``shell.watch.health``: when each watch was last connected, and whether somebody tends it.
- ``shell.watch.index``: who stands where, by events; keeps probes warm while another process leads.
- ``shell.watch.supervise``: keeps Kopf watching, in a thread of its own.
- ``shell.whatsapp.session``: the door to the WhatsApp Business API.
"""

__version__ = "0.1.0"
"""Of the release; pyproject.toml takes it from here."""
