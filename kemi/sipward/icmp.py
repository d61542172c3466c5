"""What a peer that was away has left in our sockets: the ICMP error (port unreachable) that the next command would get.

A connected UDP socket keeps such an error until somebody asks for it, and gives it to the next to send, however long
the peer has been back. rtpengine's module takes that for an rtpengine that is away, and offers it no call for a second.
"""

import os
from contextlib import suppress
from socket import SO_ERROR, SO_TYPE, SOCK_DGRAM, SOL_SOCKET, socket


def forget_errors() -> None:
    """Take the errors off this process's connected UDP sockets."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # what is no socket, is not connected, or is closed by now has none
            _forget_error(int(name))


def _forget_error(descriptor: int) -> None:
    end = socket(fileno=descriptor)
    try:
        # A TCP connection's error is its owner's to see.
        if end.getsockopt(SOL_SOCKET, SO_TYPE) == SOCK_DGRAM and end.getpeername():
            end.getsockopt(SOL_SOCKET, SO_ERROR)
    finally:
        end.detach()  # it was not ours to close
