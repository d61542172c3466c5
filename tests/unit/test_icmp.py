import os
import socket

import pytest

from sipward.icmp import forget_errors


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_peer_that_is_back_is_not_refused_for_having_been_away(family: socket.AddressFamily) -> None:
    host = "127.0.0.1" if family is socket.AF_INET else "::1"
    with socket.socket(family, socket.SOCK_DGRAM) as peer, socket.socket(family, socket.SOCK_DGRAM) as ours:
        peer.bind((host, 0))
        place = peer.getsockname()
        ours.connect(place)
        peer.close()
        ours.send(b"lost")
        forget_errors()
        with socket.socket(family, socket.SOCK_DGRAM) as successor:
            successor.bind(place)
            ours.send(b"heard")
            assert successor.recv(100) == b"heard"


def test_a_tcp_connections_error_is_left_to_its_owner() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _ = listener.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        forget_errors()
        with pytest.raises(ConnectionResetError):
            ours.recv(100)


def test_no_descriptor_is_opened_or_closed() -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        forget_errors()
    assert os.listdir("/proc/self/fd") == before
