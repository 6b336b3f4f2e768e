"""Whom nginx's limits count as one client, and whom they spare; addresses come as a trusted proxy would tell them."""
import pytest

PROXY = "set_real_ip_from 127.0.0.1;\n\tset_real_ip_from ::1;\n\treal_ip_header X-Forwarded-For;\n\treal_ip_recursive on;\n\t"
EXEMPT = "198.51.100.7 off;\n\t2001:db8:9::/48 off;\n\t"


@pytest.fixture
def behind_proxy(stack, monkeypatch):
    """The usual site with limits on, behind a proxy on loopback, two networks exempt."""
    stack.limits = "on"
    usual = stack.site_conf()
    site = usual.replace("include otpd/server.conf;", PROXY + "include otpd/server.conf;")
    site = site.replace("geo $otp_limits {", "geo $otp_limits {\n\t" + EXEMPT)
    assert site.count("real_ip_recursive on;\n\tinclude") == 1 and site.count(EXEMPT) == 1
    monkeypatch.setattr(stack, "site_conf", lambda: site)
    stack._nginx_key = None
    stack.ensure_nginx()
    yield stack
    stack._nginx_key = None


def statuses(stack, address, count):
    """The statuses of that many requests, each from this address; an empty body is 422 where no limit forbids it."""
    connection = stack.http()
    found = [stack.request("POST", "/generate-password", {}, {"X-Forwarded-For": address}, connection).status for _ in range(count)]
    connection.close()
    return found


@pytest.mark.parametrize("first, same, other", [
    ("192.0.2.1", ["::ffff:192.0.2.1", "::FFFF:c000:0201", "0:0:0:0:0:ffff:192.0.2.1"], ["192.0.2.2", "::ffff:192.0.2.3"]),
    ("2001:db8:1:2::1", ["2001:DB8:1:2:ffff::9", "2001:0db8:0001:0002:0:0:0:abcd"], ["2001:db8:1:3::1", "2001:db8:2:2::1"]),
    ("2001:db8::", ["2001:db8::1:0:0:1", "2001:db8:0:0:a0a:a0a:a0a:a0a"], ["2001:db8:0:1::"])])
def test_one_client(behind_proxy, first, same, other):
    """An IPv4 address in any spelling, or an IPv6 /64 in any spelling, is one client; its neighbours are others."""
    assert statuses(behind_proxy, first, 20).count(422) in (11, 12)
    for address in same:
        assert statuses(behind_proxy, address, 1) == [429], address
    for address in other:
        assert statuses(behind_proxy, address, 1) == [422], address


@pytest.mark.parametrize("address", ["198.51.100.7", "2001:db8:9:1::4"])
def test_exempt_clients(behind_proxy, address):
    assert statuses(behind_proxy, address, 30) == [422] * 30


def test_only_a_trusted_proxy_is_believed(stack):
    """A client's own X-Forwarded-For changes nothing."""
    stack.limits = "on"
    stack._nginx_key = None
    stack.ensure_nginx()
    connection = stack.http()
    found = [stack.request("POST", "/generate-password", {}, {"X-Forwarded-For": f"192.0.2.{n}"}, connection).status for n in range(15)]
    connection.close()
    assert found.count(422) in (11, 12) and found.count(429) in (3, 4)
