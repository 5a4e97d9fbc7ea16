"""A local Kubernetes control plane from real programs, as plain processes on loopback, and what is measured and broken on it.

The map, from the ground up (see the first line of each module; ``command`` and ``chaos`` stand on ``demo.cluster`` and ``demo.stage``):

``errors``      the one error, and how a command ends with it
``run``         programs that are run to their end; ``progress`` what a person sees meanwhile
``figures``     how measured times are summed up, and the 35 s they are compared with
``command``     what all commands that measure have in common
``provenance``  the commit, machine, load and command that figures come from
``programs``    which programs at which version, and where they come from
``charts``      the Helm charts: derived, linted, rendered
``wheels``      the images' dependencies
``plane``       the control plane and the operator as processes, their certificates and kubeconfigs
``offline``     kind clusters and their images, also where no registry is reached
``hollow``      plays the nodes
``demo``        a cluster that fails over and resizes before one's eyes; ``cluster`` and ``stage`` are what all that follows stands on
``bench``       measures that, with the runner of ``chaos``; ``bench.probes`` what it costs to watch many Coreapps
``chaos``       the runner of faults, and what breaks on hollow nodes
``scale``       measures one operator with very many clusters
``e2e``         the user's own path on real nodes of kind, and what breaks there
``pages``       the files of figures and the text that is made of them; ``blocks`` how each is shown in Markdown

What each command in hack/ runs: the table in hack/entry.py. ``hollow`` is run by `python -m`.
"""

from localkube.errors import LocalKubeError

__all__ = ["LocalKubeError"]
