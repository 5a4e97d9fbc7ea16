"""A local Kubernetes control plane from real programs, as plain processes on loopback.

The map (see each module's first line): ``versions`` which programs at which version; ``binaries`` where they come from, in order;
``cache`` the folder they are kept in; ``releases`` official archives; ``gobuild`` building them; ``progress`` what is shown meanwhile;
``certificates`` keys and certificates; ``kubeconfig`` files that open an API server; ``processes`` child processes; ``controlplane``
the whole; ``cluster`` the command line; ``errors`` the one error; ``hollow`` and its parts play the nodes;
``demo`` and its parts show a cluster that fails over and resizes, ``bench`` measures it; ``bench_probes`` what it costs to watch
many Coreapps; ``chaos`` and its parts break everything there; ``e2e`` and its parts do so on real nodes of kind. ``kind_cli`` is the
command line of kind clusters: ``kind_check`` what they need of a machine, ``kind_cluster`` one of them, ``kind_network`` its pods'
network, ``kind_images`` what it is made from (``kind_debian`` root file systems, ``kind_archive`` archives), ``kind_project`` this
project's images and Helm release, ``kind_docker`` the door to Docker, ``kind_dockerd`` and ``kind_runtime`` a Docker where there is none.
"""

from localkube.errors import LocalKubeError

__all__ = ["LocalKubeError"]
