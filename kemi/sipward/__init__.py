"""Sipward: one front door for many PBXs. The rooms of the house, and who may call whom.

In Kamailio's workers (no I/O, no OpenSSL, nothing to install):

- `guard`        the callbacks app_python3 calls, and the net under them
- `flow`         a message's path, top to bottom
- `routing`      where a request goes, with `inward` (to an instance) and `outward` (to a phone or trunk): pure
- `decision`     what routing is asked, and what it may answer
- `numbers`      dialled numbers and the rules they are looked up by: pure
- `balance`      which instance of a tenant: pure
- `failover`     the next target, when one is silent or broken
- `limits`       how much of the node a tenant or trunk uses
- `anchor`       which SDP goes through rtpengine
- `screen`       which descriptions are refused: pure
- `media`, `sdp` what rtpengine is told, and descriptions as text: pure
- `routeset`     our Route and Record-Route
- `concealment`  topology hiding, with `headers`
- `tokens`, `seal`  what rides sealed in a message and comes back
- `passage`      what a transaction remembers
- `ports`        which registration at a carrier has which of our ports
- `registrations`  which flow each registered phone is at
- `abilities`    what phones have shown of their media
- `edge`         the node as its workers see it
- `live`         the entries of the live table, and how they are read
- `peers`        carriers over TLS: which connection is theirs, with `x509`
- `sips`         sips URIs, for who does not speak TLS: pure
- `uri`, `model` the words
- `kamailio`     the only module that speaks to Kamailio
- `icmp`         what a peer that was away has left in our sockets

In a Kamailio process of its own: `peer_keeper`, which opens those connections.

In Kamailio's sync process (Redis to live table):

- `sync`         the process, with `routes`: all kinds of values that run
- `keeper`       the values of one kind: whose claim it is, what is refused, what is withheld
- `entries`      what to write into the live table, in order
- `snapshot`     the last good table on disk
- `port_keeper`, `ability_keeper`  the same for what workers write, with `disk_copy`
- `tenants`, `number_rules`, `trunks`  what a value may be, with `records` and `rules`
- `resolver`, `lookup`  where the host names of trunks lead
- `store`        the only module that speaks to Redis
- `flow_keeper`  keeps phones reachable, by `keepalive` (pure), and their registrations on disk, by `journal`
- `prober`       asks instances whether they are there; what comes of it is `health`: pure

In a process of its own beside Kamailio (certificates; the only rooms with OpenSSL):

- `certificate_keeper`   watches, renews, and gives Kamailio what is new; `certificate_report` is what it says
- `certificate_sources`  brings a certificate from where it comes from: `own_ca`, files, or `acme_client`
- `certificate_check`    what may be used
- `certificate_names`    who has one, and from where
- `certificate_tries`    when to ask again
- `certificates`         the files; `tls` is what Kamailio is told of them

On the command line: `cli`, and `commands` with a file each group (`number_check`, `number_table`, `instance_words` and
`drain` are what they do, pure); `node` (starts and watches), `supervisor`, `render`, `rpc`, `settings`, `addresses`,
`interfaces`, `store` and what a value may be, with `hosts` and `problems` below them. `reload` asks a running node to
take its configuration again, `configuration` writes it; `backup` and `restore` carry a node to another machine.
`running` and `call_facts` (pure) say what calls run, asking rtpengine by `ng`.
`explain` says what the running node would do with a request, by its own routing.
`actions` is NethVoice's API: `action_inputs` what it takes, `action_routes` and `action_node` what it does.
"""
