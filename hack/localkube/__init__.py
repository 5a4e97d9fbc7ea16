"""A local Kubernetes control plane from real programs, as plain processes on loopback, and what is measured and broken on it.

The map, from the ground up (see the first line of each module):

``errors``      the one error, and how a command ends with it
``files``       files written in one step; folders in which one process works at a time
``run``         programs that are run to their end; ``progress`` what a person sees meanwhile
``figures``     how measured times are summed up, and the 35 s they are compared with
``provenance``  the commit, machine, load and command that figures come from
``blocks``      figures as Markdown, in the documents and when a program ends
``programs``    which programs at which version, and where they come from
``packages``    Python packages, installed by uv; ``wheels`` the images' dependencies
``kubeconfig``  how a program reaches an API server, and as whom
``hollow``      the hollow nodes
``plane``       the control plane and the operator as processes, and their certificates
``monitoring``  the alerts, their runbooks and the Grafana dashboard; a Prometheus that reads them
``charts``      the Helm charts: derived, linted, rendered
``reference``   the documents that are made from the code: reasons, diagrams, fields
``offline``     kind clusters and their images, also where no registry is reached
``release``     what a release holds: packages, bills of materials, notes
``scenarios``   what is shown, measured and broken: demo, bench, chaos, scale, e2e
``screenshot``  the picture of the live page
``site``        the documentation as a site
``pages``       the files of figures, and the text that is made of them
``tests``       the tests of all this

What each command in hack/ runs: the table in hack/entry.py. ``hollow`` is run by `python -m`.
"""

from typing import Any

from localkube.errors import LocalKubeError

__all__ = ["LocalKubeError", "Obj"]

Obj = dict[str, Any]
"""An object of JSON, such as one of the API server."""
