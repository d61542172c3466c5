"""`sips` URIs of phones, as instances see them that are not reached over TLS: as `sip`, with a mark to know them by.

Who is asked for a sips URI must speak TLS for what follows (RFC 3261, 26.2.2): a PBX that has none would answer, and
then not be able to send a BYE. The hop that sips asks TLS of is the phone's, and that has it.
"""

from sipward.model import Endpoint
from sipward.uri import Uri

MARK = "sw-sips"
"""The URI parameter of a Contact that was a sips URI."""


def plain(uri: Uri, target: Endpoint) -> Uri | None:
    """A Request-URI as `target` understands it, if that is another one."""
    return uri._replace(scheme="sip") if uri.scheme == "sips" and target.transport != "tls" else None


def marked(uri: Uri) -> Uri:
    """A phone's Contact for an instance without TLS."""
    if uri.scheme != "sips":
        return uri
    address, question, headers = uri.rest.partition("?")
    return uri._replace(scheme="sip", rest=f"{address};{MARK}{question}{headers}")


def own(uri: Uri) -> Uri:
    """The Contact that `marked` has made another one of, or the URI itself."""
    mark = f";{MARK}"
    return uri._replace(scheme="sips", rest=uri.rest.replace(mark, "", 1)) if mark in uri.rest else uri
