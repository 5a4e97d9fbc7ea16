"""The operator for the WhatsApp Business API client in Multiconnect.

A map of the rooms (a test checks it against the tree):

- ``__main__``: parses the arguments, reads the settings, builds the shell, campaigns for leadership, runs Kopf.
- ``settings``: the only reader of the environment.
- ``core.model``: the nouns: what is desired, what is observed, what is to be done.
- ``core.record``: what is remembered in status, read from it and written into it.
- ``core.self_check``: whether a silence is more likely ours; the nodes' Leases as second witness.
- ``core.counts``: the lowest of the layers that follow from one snapshot: plain numbers, routes and pods by name.
- ``core.restart``: what follows for Set Shards, and what a restart explains.
- ``core.health``: which Coreapps could serve, and what is held against the others.
- ``core.claims``: what the labels on a pod are worth.
- ``core.holders``: who serves which shard, and who could.
- ``core.facts``: the top of these layers: what is to exist. Decides nothing.
- ``core.certificate``: what a certificate says of itself.
- ``core.windows``: when Set Shards may begin.
- ``core.rules``: THE table: which row wins, what it does and why.
- ``core.evidence``: the table of what proves that a holder failed.
- ``core.answers``: the table of what an answer of Set Shards means.
- ``core.objections``: the table of what speaks against sending the certificate.
- ``core.handovers``: which standby takes which shard.
- ``core.operation``: one call of Set Shards, before it and after it.
- ``core.rollout``: a new pod template, one Coreapp at a time.
- ``core.missing``: pods that are missing: when it is asked why, and when a person is told.
- ``core.scaling``: whose number of Coreapps counts.
- ``core.duties``: what is done beside the winning row: tell, mend, tidy.
- ``core.pace``: when to look again, and when to ask again.
- ``core.manifests``: desired state as Kubernetes objects; all names, labels and ports.
- ``core.pods``: pod templates: what all have, and what the user adds.
- ``core.upkeep``: whether a live object is as it should be, and what is put in its place.
- ``core.checksums``: when pods are replaced because a Secret changed.
- ``core.status``: what was seen, as status and conditions.
- ``shell.handlers``: Kopf's door; events wake a loop, nothing else.
- ``shell.supervise``: keeps Kopf watching, in a thread of its own.
- ``shell.watch_health``: when each watch was last connected, and whether somebody tends it.
- ``shell.reconcile``: the loop: look, plan, note, act, report, rest.
- ``shell.turns``: how many look at a time, and who first.
- ``shell.observe``: every read.
- ``shell.snapshot``: what was read, as one frozen value; damaged objects are left out.
- ``shell.shapes``: what an object must look like to be read.
- ``shell.addresses``: addresses of pods as they stand in URLs.
- ``shell.rejections``: why pods are missing, in the words of their controllers.
- ``shell.reading``: what was read, as our nouns.
- ``shell.secret_keys``: the table of the keys of Secrets: what each must look like.
- ``shell.act``: every write.
- ``shell.kube``: the door to Kubernetes.
- ``shell.nodes``: what the API server knows of nodes.
- ``shell.roster``: who stands where, by events; keeps probes warm while another process leads.
- ``shell.metrics``: what Prometheus is told, and whether we live.
- ``shell.wabiz``: the door to the WhatsApp Business API.
- ``shell.probe``: the door to the Coreapps: all tethers, how many are silent, and what Coreapps are told.
- ``shell.tether``: one Coreapp under watch: its connection, its probes, what is broken or silent.
- ``shell.wire``: one connection to a healthcheck port, its questions and answers.
- ``shell.pulse``: how late this process itself is.
- ``shell.doubt``: what comes of a long doubt about ourselves.
- ``shell.leader``: the Lease.
- ``shell.lines``: connections to the API server that are dialled anew after a failure.
- ``shell.clock``: time and chance, handed in.
"""

__version__ = "0.1.0"
"""Of the release; pyproject.toml takes it from here."""
