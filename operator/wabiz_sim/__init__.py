"""The simulator for the vendor's WhatsApp Business API client: the documented contract, no WhatsApp.

It sends nothing to anybody. Three components, each one process (or one object inside a hollow node):

    settings.py     what each component reads from its environment, once
    resolve.py      how a name of a Service becomes an address
    process.py      the life of a component: start, stop, kill, hang, resume
    listener.py     one port that can be slammed shut
    body.py         bodies of requests, which may be hostile
    bell.py         "something changed, look again"
    link.py         a component's registration at the upstream, kept up for ever
    epoch.py        the fencing token of a shard
    sharding.py     recipient -> shard
    certificate.py  the simulator's own certificates, with an expiry that it can read
    envelope.py     the documented error envelope and its codes
    version.py      its version, and the one that it claims to be

    coreapp.py      serves one shard or stands by
    role.py         what a Coreapp was told, durably
    gateway.py      a Coreapp's one connection to the WhatsApp servers
    disturbance.py  what is wrong with its probes and ports, on purpose
    webhook.py      inbound messages on their way to the customer

    webapp.py       the HTTPS REST API
    delivery.py     one message on its way to the Coreapp of its shard
    tls.py          its certificate
    session.py      which bearer tokens this Webapp has seen to be good

    upstream.py     the shared database and the WhatsApp servers
    store.py        what the database must do, and SQLite doing it
    postgres.py     the database on a PostgreSQL server
    dbsession.py    the one session there
    database.py     which server, as the client's variables name it
    exchange.py     the WhatsApp servers: gateways, fence, messages
    members.py      who is registered
    account.py      shards, certificate, ban
    users.py        login and tokens
    preferences.py  the application settings
    api.py          the routes behind the Webapp
    faults.py       what goes wrong on purpose
    gatewaylog.py   what happened at the gateways, and what may not be in that log
    control.py      the routes for tests

    __main__.py     one component as a process of its own
"""
