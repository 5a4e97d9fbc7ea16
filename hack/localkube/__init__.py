"""A local Kubernetes control plane from real programs, as plain processes on loopback.

The map (see each module's first line): ``versions`` which programs at which version; ``binaries`` where they come from, in order;
``cache`` the folder they are kept in; ``releases`` official archives; ``gobuild`` building them; ``progress`` what is shown meanwhile;
``certificates`` keys and certificates; ``kubeconfig`` files that open an API server; ``processes`` child processes; ``controlplane``
the whole; ``cluster`` the command line; ``errors`` the one error; ``hollow`` and its parts play the nodes;
``demo`` and its parts show a cluster that fails over and resizes, ``bench`` measures it; ``bench_probes`` what it costs to watch
many Coreapps; ``chaos`` and its parts break everything there; ``e2e`` and its parts do so on real nodes of kind.
"""

from localkube.errors import LocalKubeError

__all__ = ["LocalKubeError"]
