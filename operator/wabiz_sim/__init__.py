"""Simulator of the vendor's WhatsApp Business API client: the documented contract, without WhatsApp.

It sends nothing to WhatsApp. Three components, each one process (or one object inside a hollow node):

    settings.py     what each component reads from its environment, once
    resolve.py      how a name of a Service becomes an address
    process.py      the life of a component: start, stop, kill, hang, resume
    listener.py     one port that can be closed at once
    body.py         bodies of requests, which may be hostile
    notifier.py     a notification that something changed
    link.py         a component's registration at the upstream, renewed after each loss
    epoch.py        the fencing token of a shard
    sharding.py     recipient -> shard
    certificate.py  the simulator's own certificates, with an expiry that it can read
    envelope.py     the documented error envelope and its codes
    version.py      its own version, and the client version that it reports

    coreapp.py      serves one shard or is a standby
    role.py         the last role assignment of a Coreapp, stored durably
    gateway.py      a Coreapp's one connection to the WhatsApp servers
    disturbance.py  injected faults of its probes and ports
    webhook.py      delivery of inbound messages to the webhook

    webapp.py       the HTTPS REST API
    delivery.py     delivery of one message to the Coreapp of its shard
    tls.py          its certificate
    session.py      cache of valid bearer tokens

    upstream.py     the shared database and the WhatsApp servers
    store.py        the database: its interface, and the one in an SQLite file
    postgres.py     the database on a PostgreSQL server
    dbsession.py    the one session on it
    database.py     its address, from the client's variables
    exchange.py     the WhatsApp servers: gateways, fence, messages
    members.py      who is registered
    account.py      shards, certificate, ban
    users.py        login and tokens
    preferences.py  the application settings
    api.py          the routes behind the Webapp
    faults.py       injected faults of calls
    gatewaylog.py   the log of the gateways, and its audit
    control.py      the routes for tests

    __main__.py     one component as a separate process
"""
