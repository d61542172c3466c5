"""Which instance takes whom."""

from collections import Counter

import pytest

from sipward import balance
from sipward.balance import ordered
from sipward.model import Endpoint, Instance, Tenant

USERS = [str(number) for number in range(10_000)]
A, B, C = (Endpoint("udp", f"10.5.4.{number}", 5060) for number in (11, 12, 13))
THREE = Tenant("acme", (Instance(A), Instance(B, weight=2), Instance(C)))


def first(tenant: Tenant) -> dict[str, Endpoint]:
    return {user: ordered(tenant, user)[0] for user in USERS}


def test_weights_share_the_users_within_three_percent() -> None:
    shares = Counter(first(THREE).values())
    assert {end: round(shares[end] / len(USERS), 3) for end in (A, B, C)} == pytest.approx(
        {A: 0.25, B: 0.5, C: 0.25}, abs=0.03
    )


def test_a_lost_instance_moves_its_own_users_only_and_by_weight() -> None:
    before, after = first(THREE), first(THREE._replace(instances=THREE.instances[:2]))
    assert all(after[user] == before[user] for user in USERS if before[user] != C)
    moved = Counter(after[user] for user in USERS if before[user] == C)
    assert moved[B] / moved.total() == pytest.approx(2 / 3, abs=0.03)


def test_a_new_instance_takes_its_share_only() -> None:
    before, after = first(THREE._replace(instances=THREE.instances[:2])), first(THREE)
    assert {after[user] for user in USERS if after[user] != before[user]} == {C}


def test_who_loses_an_instance_goes_where_the_order_said_next() -> None:
    fewer = THREE._replace(instances=THREE.instances[:2])
    for user in USERS[:200]:
        assert ordered(fewer, user) == tuple(end for end in ordered(THREE, user) if end != C)


def test_the_order_in_which_instances_are_written_does_not_matter() -> None:
    turned = THREE._replace(instances=THREE.instances[::-1])
    assert all(ordered(THREE, user) == ordered(turned, user) for user in USERS[:200])


def test_a_lower_priority_comes_first_whatever_its_weight() -> None:
    tenant = Tenant("acme", (Instance(A, weight=1000, priority=2), Instance(B, priority=1), Instance(C, priority=1)))
    assert all(ordered(tenant, user)[-1] == A for user in USERS[:500])


def test_a_draining_instance_gets_nobody() -> None:
    tenant = THREE._replace(instances=(Instance(A), Instance(B, drain=True)))
    assert all(ordered(tenant, user) == (A,) for user in USERS[:100])
    assert ordered(THREE._replace(instances=(Instance(A, drain=True),)), "100") == ()
    assert ordered(THREE._replace(instances=()), "100") == ()


def test_two_tenants_with_the_same_users_share_them_differently() -> None:
    mine, theirs = first(THREE), first(THREE._replace(name="globex"))
    assert 0.2 < sum(mine[user] == theirs[user] for user in USERS) / len(USERS) < 0.5


def test_two_instances_on_one_host_are_two() -> None:
    ports = Tenant("acme", (Instance(A), Instance(A._replace(port=5080)), Instance(A._replace(transport="tcp"))))
    assert set(Counter(first(ports).values())) == {i.endpoint for i in ports.instances}


@pytest.mark.parametrize("user", ["", "zoë", "a" * 5000, "\0", "%61"])
def test_any_user_has_an_instance(user: str) -> None:
    assert set(ordered(THREE, user)) == {A, B, C}


@pytest.mark.parametrize("digest", [b"\x00" * 8, b"\xff" * 8, b"\xff" * 7 + b"\x00"])
def test_no_point_of_the_hash_divides_by_zero(digest: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fixed:
        def __init__(self, text: bytes, digest_size: int) -> None: ...

        def digest(self) -> bytes:
            return digest

    monkeypatch.setattr(balance, "blake2b", Fixed)
    assert set(ordered(THREE, "100")) == {A, B, C}
