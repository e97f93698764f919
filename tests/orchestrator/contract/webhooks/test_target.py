import socket
from ipaddress import ip_address, ip_network

import pytest

from orchestrator.contract.errors import UsageError
from orchestrator.contract.webhooks.target import DeliveryError, WebhookTarget, check_target, parse_target, resolve


@pytest.mark.parametrize(
    ("url", "target", "shown"),
    [
        (
            "https://hooks.example.com/a/b?token=x",
            WebhookTarget("https", "hooks.example.com", 443, "/a/b?token=x"),
            None,
        ),
        ("http://example.com", WebhookTarget("http", "example.com", 80, "/"), "http://example.com"),
        ("HTTPS://Example.com:8443/x", WebhookTarget("https", "example.com", 8443, "/x"), "https://example.com:8443"),
        ("https://[2001:db8::1]:444/", WebhookTarget("https", "2001:db8::1", 444, "/"), "https://[2001:db8::1]:444"),
    ],
)
def test_a_url_has_a_scheme_host_port_and_path(url, target, shown):
    parsed = parse_target(url)

    assert parsed == target
    assert shown is None or parsed.shown == shown
    assert "token" not in parsed.shown


@pytest.mark.parametrize(
    "url",
    [
        "", "example.com/x", "ftp://example.com/", "file:///etc/passwd", "https://", "https:///x", "https://a b/",
        "https://example.com:0/", "https://example.com:99999/", "https://example.com:x/", "https://exa\nmple.com/",
        "https://example.com/\r\nHost: other", "https://exämple.com/", "https://user:s3cret@example.com/",
        "https://user@example.com/", "https://example.com/#part", "https://[::1/", "https://a%00b/",
        "https://example.com/" + "x" * 2000,
    ],
)  # fmt: skip
def test_other_urls_are_refused_without_saying_their_secrets(url):
    with pytest.raises(UsageError) as refused:
        parse_target(url)

    assert "s3cret" not in str(refused.value)


PRIVATE = [
    "127.0.0.1", "127.8.9.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
    "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254",
    "ff02::1", "fec0::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "::7f00:1",
]  # fmt: skip


def answer_with(monkeypatch, *answers):
    """The resolver's answers, one a call; the last one stays."""
    left = [list(answer) for answer in answers]

    def look_up(host, port, **_):
        found = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET6 if ":" in each else socket.AF_INET, 1, 6, "", (each, port)) for each in found]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused(monkeypatch, address):
    answer_with(monkeypatch, [address])

    with pytest.raises(UsageError, match=r"is not a public address.*notify_allow"):
        check_target("https://hooks.example.com/x", [])


@pytest.mark.parametrize("url", ["http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://localhost/"])
def test_other_spellings_of_loopback_are_refused(url):
    with pytest.raises(UsageError, match="is not a public address"):
        check_target(url, [])


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"])
def test_public_addresses_are_accepted(monkeypatch, address):
    answer_with(monkeypatch, [address])

    assert resolve(parse_target("https://hooks.example.com/x"), []) == [ip_address(address)]


def test_a_host_with_one_private_address_among_public_ones_is_refused(monkeypatch):
    answer_with(monkeypatch, ["93.184.216.34", "10.0.0.1"])

    with pytest.raises(DeliveryError, match=r"10\.0\.0\.1 is not a public address"):
        resolve(parse_target("https://hooks.example.com/x"), [])


@pytest.mark.parametrize(
    ("address", "network"), [("10.1.2.3", "10.1.0.0/16"), ("::ffff:10.1.2.3", "10.0.0.0/8"), ("fd00::1", "fd00::/8")]
)
def test_private_addresses_within_an_allowed_network_are_accepted(monkeypatch, address, network):
    answer_with(monkeypatch, [address])

    assert resolve(parse_target("http://intern/x"), [ip_network(network)]) == [ip_address(address)]


def test_a_host_that_does_not_exist_is_refused_and_a_resolver_that_is_away_is_not(monkeypatch):
    def fail_with(code):
        def look_up(*_, **__):
            raise socket.gaierror(code, "")

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    fail_with(socket.EAI_NONAME)
    with pytest.raises(UsageError, match="there is no such host"):
        check_target("https://hooks.example.com/x", [])
    fail_with(socket.EAI_AGAIN)
    assert check_target("https://hooks.example.com/x", []).host == "hooks.example.com"
