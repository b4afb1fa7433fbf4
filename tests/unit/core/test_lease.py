"""How long a session may be trusted."""

from __future__ import annotations

from sidecar.core.lease import Lease


def test_it_counts_from_the_sending_and_ends_sharply() -> None:
    lease = Lease(sent=100.0, ttl_s=10.0)
    assert lease.valid(109.999)
    assert not lease.valid(110.0)
    assert lease.ends == 110.0


def test_two_renewals_may_fail_before_it_ends() -> None:
    lease = Lease(sent=0.0, ttl_s=9.0)
    assert lease.renew_at == 3.0
    assert lease.ends - lease.renew_at >= 2 * lease.renew_at


def test_a_longer_life_given_by_the_server_is_used() -> None:
    assert Lease(sent=0.0, ttl_s=15.0).valid(14.0)
