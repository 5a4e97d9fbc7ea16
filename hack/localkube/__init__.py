"""A local Kubernetes control plane of real programs, as plain processes on loopback, and the measurements and faults that run on it.

The map, from the lowest layer up (see the first line of each module):

``errors``      the one error, and how it ends a command
``files``       files written in one step; folders in which one process works at a time
``run``         runs programs to their end; ``progress`` what a person sees meanwhile
``figures``     how measured times are summed up, and the 35 s they are compared with
``provenance``  the commit, machine, load and command that figures come from
``blocks``      figures as Markdown, in the documents and when a program ends
``programs``    which programs at which version, and where they come from
``packages``    Python packages, installed by uv; ``wheels`` the images' dependencies
``kubeconfig``  how a program reaches an API server, and as which user
``hollow``      the hollow nodes
``plane``       the control plane and the operator as processes, and their certificates
``monitoring``  the alerts, their runbooks and the Grafana dashboard; a Prometheus that reads them
``charts``      the Helm charts: derived, linted, rendered
``reference``   the documents that are generated from the code: reasons, diagrams, fields
``offline``     kind clusters and their images, even without access to a registry
``release``     what a release contains: packages, bills of materials, notes
``scenarios``   what is shown, measured and broken: demo, bench, chaos, scale, e2e
``screenshot``  the picture of the live page
``site``        the documentation as a site
``pages``       the files of figures, and the text that is generated from them
``tests``       the tests of all this

What each command in hack/ runs: the table in hack/entry.py. ``hollow`` is run by `python -m`.
"""

from typing import Any

from localkube.errors import LocalKubeError

__all__ = ["LocalKubeError", "Obj"]

Obj = dict[str, Any]
"""A JSON object, such as one of the API server."""
