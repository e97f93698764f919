import pytest
from kombu import Connection

from orchestrator.contract.errors import UnavailableError, UsageError
from orchestrator.contract.server import connect, require_answer
from orchestrator.contract.server_url import celery_url, redact

SECRET = "hun.ter2"  # with any character in its middle


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://:s3cret@h:6379/0", "redis://***@h:6379/0"),
        ("redis://s3cret@h", "redis://***@h"),
        ("rediss://ada:s3@cret@h/1", "rediss://***@h/1"),
        ("redis://:s3/cr?e#t@h/1", "redis://***@h/1"),
        ("redis://:s3cret", "redis://***"),
        ("s3cret@h", "***@h"),
        ("redis:/:s3cret@h", "***@h"),
        ("unix:///run/s.sock", "unix:///run/s.sock"),
        ("unix://:s3cret@/run/s.sock", "unix://***@/run/s.sock"),
        ("unix:///run/s.sock?password=s3cret&db=2", "unix:///run/s.sock?password=***&db=2"),
        ("redis://h?db=1&password=s3cret", "redis://h?db=1&password=***"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_url_is_shown_without_its_password(url, shown):
    assert redact(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:6380/3", "redis://:s3cret@h:6380", "unix:///run/s.sock", "unix:///run/s.sock?db=2",
        "unix://:s3cret@/run/s.sock", "unix:///run/s.sock?password=s3%2Fcret&db=1", "redis://h?db=4",
        "redis://ada:s3%23cret@h", "redis://:p:q@h:6380", "redis://[::1]:6380/1", "redis://h:6380?password=x&db=1",
    ],
)  # fmt: skip
def test_celery_talks_to_the_same_server_and_database_as_the_ledger(url):
    expected = connect(url).connection_pool.connection_kwargs
    keys = ("path", "host", "port", "db", "username", "password")

    with Connection(celery_url(url)) as connection:
        channel_class = connection.transport.Channel
        channel = channel_class.__new__(channel_class)  # a real one would connect
        channel.connection = connection.transport
        actual = channel_class._connparams(channel)

    ours, celerys = ({key: kwargs.get(key) or None for key in keys} for kwargs in (expected, actual))
    ours["port"] = ours["port"] or 6379
    if "path" in actual:
        ours["host"] = celerys["host"] = ours["port"] = celerys["port"] = None
    assert celerys == ours


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://h", "redis://h:port", "REDIS"])
def test_an_invalid_url_is_an_immediate_error(url):
    with pytest.raises(UsageError, match="server URL"):
        connect(url)


@pytest.mark.parametrize("char", "#/?[]@ ")
@pytest.mark.parametrize("url", ["redis://:{}@h/0", "rediss://ada:{}@h", "redis://{}@h", "unix://:{}@/run/s.sock"])
def test_a_password_that_must_be_encoded_is_not_named_in_the_error(url, char):
    with pytest.raises(UsageError) as refused:
        connect(url.format(SECRET.replace(".", char)))

    assert "must be percent-encoded: # is %23, / is %2F" in str(refused.value)
    assert not any(part in str(refused.value) for part in SECRET.split("."))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://h?x=1", "has the unknown option 'x'; there are db, username, password"),
        ("redis://h:99999", "has no port from 1 to 65535"),
        ("redis://h:port", "has no host and port"),
        ("redis://h/abc", "must name its database by a number"),
        ("redis://h?db=x", "must name its database by a number"),
        ("redis://h/0#x", "holds a #"),
        ("ftp://:s3cret@h", r"'ftp://\*\*\*@h' must start with one of redis://"),
        ("unix://run/s.sock", "must name a socket by its absolute path"),
    ],
)
def test_what_is_wrong_with_a_url_is_told(url, told):
    with pytest.raises(UsageError, match=told):
        connect(url)


def test_the_error_for_a_missing_server_says_what_to_do(tmp_path):
    url = f"unix://:s3cret@{tmp_path}/none.sock"

    with pytest.raises(UnavailableError) as missing:
        require_answer(connect(url), url)

    assert str(missing.value).startswith(f"no server answers at unix://***@{tmp_path}/none.sock (")
    assert str(missing.value).endswith("start one, or `pigeonhole up` for a local one")
