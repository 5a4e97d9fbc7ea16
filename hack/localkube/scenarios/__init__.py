"""Scenarios: faults as tables, played by one runner on hollow nodes or on kind, and reported. Each layer stands on those before it.

``cluster``      the API client, and who holds a shard
``harness``      a control plane, hollow nodes and operators as processes
``traffic``      messages to a cluster, and what became of them
``command``      what all commands that measure have in common
``environment``  the base of all environments: clusters, observer, messages
``hollow``       environments of hollow nodes: many clusters or one (``environment``), the sender of one (``probe``), fake servers
``kind``         the environment of real nodes, and the installation on it
``runner``       plays a fault (``player``) on a case of an environment, judges it and makes the report
``faults``       THE tables of faults, ``hollow`` and ``kind``, and the actions of which they consist
``cost``         processor time, memory and writes of an operator
``demo``, ``bench``, ``scale``, ``chaos``, ``e2e``  the commands
"""
