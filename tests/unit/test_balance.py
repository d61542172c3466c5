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


@pytest.mark.parametrize("name", ["acme", "globex", "initech", "#+39072140XX", "a", "z" * 64])
@pytest.mark.parametrize("policy", ["failover", "balance"])
def test_each_share_of_ten_thousand_users_is_within_three_percent_of_its_due(name: str, policy: str) -> None:
    shares = Counter(first(THREE._replace(name=name, policy=policy)).values())
    due = {A: 2500, B: 5000, C: 2500}
    assert {end: shares[end] for end in due} == {end: pytest.approx(users, abs=300) for end, users in due.items()}


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


def test_to_balance_is_to_look_at_weights_alone() -> None:
    layered = tuple(i._replace(priority=n) for n, i in enumerate(THREE.instances, 1))
    balanced = THREE._replace(instances=layered, policy="balance")
    assert all(ordered(balanced, user) == ordered(THREE, user) for user in USERS[:500])


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
