"""What app_python3 loads. Builds everything once, before Kamailio forks, and hands over the callbacks."""

import gc
import os
from pathlib import Path

from sipward import edge, kamailio
from sipward.flow import Flow
from sipward.guard import Callbacks
from sipward.live import Live
from sipward.peer_keeper import Keeper
from sipward.seal import Sealer


def mod_init() -> Callbacks:
    """Called by Kamailio at start; raising here stops it."""
    run = Path(os.environ["SIPWARD_RUN"])
    node = edge.load(run / "edge.json", run.parent / "keys")

    def follow_redis() -> None:
        # pydantic, redis-py and dnspython stay out of the workers.
        from sipward import (  # noqa: PLC0415
            ability_keeper,
            flow_keeper,
            lookup,
            port_keeper,
            prober,
            render,
            rules,
            sync,
        )

        settings, addresses = render.read(run)
        table = kamailio.Table()
        asking = prober.Prober(table, kamailio.log, addresses.service, settings.health)
        look_up = lookup.Dns(settings.dns.servers, addresses.own)
        own_ports = settings.trunks.own_ports
        giving = port_keeper.PortKeeper(table, own_ports, settings.ports_file) if own_ports else None
        keeping = flow_keeper.FlowKeeper(
            table, kamailio.log, node.phone_sockets, settings.sip.keepalive, settings.flows_file
        )
        keeping.start()
        phones = ability_keeper.AbilityKeeper(table, settings.phones_file)
        sync.run(table, settings, rules.Rules.of(settings, addresses), look_up, asking, ports=giving, phones=phones)

    # What is loaded by now stays: the collector of garbage need not walk through it in every worker.
    gc.collect()
    gc.freeze()
    keeper = Keeper(kamailio, node, Sealer(node.keys), Live(kamailio.look_up))
    return Callbacks(kamailio, Flow(kamailio, node), follow_redis, keeper.look)
