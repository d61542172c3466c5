"""One name asked of the DNS as RFC 3263 says: NAPTR, SRV, A and AAAA. The only module that speaks DNS."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from dns import rdatatype
from dns.exception import DNSException, Timeout
from dns.name import Name as DnsName
from dns.name import from_text, root
from dns.resolver import NXDOMAIN, NoAnswer, Resolver

from sipward.hosts import Address
from sipward.model import Endpoint
from sipward.resolver import Answer, LookUpError, Name

_PORT = {"udp": 5060, "tcp": 5060, "tls": 5061}
_PATIENCE = 4.0
"""Seconds for one question, all name servers together."""
_PARTIAL = 30.0
"""Seconds that an answer holds of which a part could not be had."""
_ENDS_MAX = 32
_NAPTR = {"udp": "SIP+D2U", "tcp": "SIP+D2T", "tls": "SIPS+D2T"}
_SRV = {"udp": "_sip._udp", "tcp": "_sip._tcp", "tls": "_sips._tcp"}

type Ask = Callable[[DnsName, str], tuple[list[Any], float]]
"""The records of a name and type, none when there are none, and their time to live. Raises LookUpError."""


class Dns:
    """Where a name leads."""

    def __init__(self, servers: Iterable[Address], own: Iterable[Address], ask: Ask | None = None) -> None:
        """`servers`: the name servers, those of the machine when empty. `own`: of their families are the addresses."""
        self._servers = list(map(str, servers))
        versions = {address.version for address in own}
        self._families = [family for version, family in ((4, "A"), (6, "AAAA")) if version in versions]
        self._ask = ask or self._ask_servers

    def __call__(self, name: Name) -> Answer:
        """Ask. Raises LookUpError when nothing is known of the name, or it could not be asked for."""
        host = from_text(name.host, root)
        lifetimes: list[float] = []
        hosts = [(host, name.port)] if name.port else list(self._servers_of(host, name.transport, lifetimes))
        ends: dict[Endpoint, None] = {}
        problem = "has no address"
        for target, port in hosts:
            try:
                ends |= dict.fromkeys(Endpoint(name.transport, one, port) for one in self._addresses(target, lifetimes))
            except LookUpError as error:
                problem = str(error)
                lifetimes.append(_PARTIAL)
        if not ends:
            raise LookUpError(problem)
        return Answer(tuple(ends)[:_ENDS_MAX], min(lifetimes))

    def _servers_of(self, host: DnsName, transport: str, lifetimes: list[float]) -> Iterator[tuple[DnsName, int]]:
        """The machines behind a name with their ports, the first to be tried first."""
        for is_service, replacement in self._pointers(host, transport, lifetimes):
            if is_service:
                yield from self._services(replacement, transport, lifetimes)
            else:
                yield replacement, _PORT[transport]

    def _pointers(self, host: DnsName, transport: str, lifetimes: list[float]) -> list[tuple[bool, DnsName]]:
        """What NAPTR records say of the transport: names of SRV records (True) or of machines; else what is usual."""
        try:
            records, lifetime = self._ask(host, "NAPTR")
        except LookUpError:
            records, lifetime = [], _PARTIAL  # some servers do not know the type
        fitting = [r for r in records if r.service.decode(errors="replace").upper() == _NAPTR[transport]]
        fitting.sort(key=lambda r: (r.order, r.preference, r.replacement))
        found = [
            (flag == "S", r.replacement)
            for r in fitting
            if (flag := r.flags.decode("ascii", "replace").upper()) in "SA"
        ]
        if found:
            lifetimes.append(lifetime)
            return found
        service = from_text(_SRV[transport], host)
        records, _ = self._ask(service, "SRV")
        return [(True, service)] if records else [(False, host)]

    def _services(self, service: DnsName, transport: str, lifetimes: list[float]) -> Iterator[tuple[DnsName, int]]:
        """SRV records by priority, then by weight (RFC 2782): always in the same order, unlike its draw of lots."""
        records, lifetime = self._ask(service, "SRV")
        lifetimes.append(lifetime)
        for record in sorted(records, key=lambda r: (r.priority, -r.weight, r.target, r.port)):
            if record.target == root:
                raise LookUpError("says that SIP is not served there (RFC 2782)")
            yield record.target, record.port or _PORT[transport]

    def _addresses(self, host: DnsName, lifetimes: list[float]) -> Iterator[str]:
        for family in self._families:
            records, lifetime = self._ask(host, family)
            if records:
                lifetimes.append(lifetime)
            # Servers turn them round at each question.
            yield from sorted(record.address for record in records)

    def _ask_servers(self, name: DnsName, kind: str) -> tuple[list[Any], float]:
        try:
            # Made anew each time: the machine's name servers change.
            resolver = Resolver(configure=not self._servers)
            if self._servers:
                resolver.nameservers = self._servers
            answer = resolver.resolve(name, rdatatype.from_text(kind), lifetime=_PATIENCE, search=False)
        except (NXDOMAIN, NoAnswer):
            return [], 0.0
        except Timeout:
            raise LookUpError("the DNS does not answer in time") from None
        except (DNSException, OSError, ValueError) as error:
            raise LookUpError(f"the DNS cannot answer: {' '.join(str(error).split())}") from None
        return list(answer), float(answer.chaining_result.minimum_ttl)
