import pytest
from kombu import Connection

from orchestrator.contract.errors import UnavailableError, UsageError
from orchestrator.contract.server import celery_url, connect, redact, require_answer


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://:s3cret@h:6379/0", "redis://:***@h:6379/0"),
        ("rediss://ada:s3@cret@h/1", "rediss://ada:***@h/1"),
        ("unix:///run/s.sock", "unix:///run/s.sock"),
        ("unix://:s3cret@/run/s.sock", "unix://:***@/run/s.sock"),
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
        "unix://:s3cret@/run/s.sock", "unix:///run/s.sock?password=s3%2Fcret&db=1",
    ],
)  # fmt: skip
def test_celery_talks_to_the_same_server_and_database_as_the_ledger(url):
    expected = connect(url).connection_pool.connection_kwargs
    keys = ("path", "host", "port", "db", "password")

    with Connection(celery_url(url)) as connection:
        channel_class = connection.transport.Channel
        channel = channel_class.__new__(channel_class)  # a real one would connect
        channel.connection = connection.transport
        actual = channel_class._connparams(channel)

    ours, celerys = ({key: kwargs.get(key) or None for key in keys} for kwargs in (expected, actual))
    if "path" in actual:
        ours["host"] = celerys["host"] = ours["port"] = celerys["port"] = None
    assert celerys == ours


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://h", "redis://h:port", "REDIS"])
def test_an_invalid_url_is_an_immediate_error(url):
    with pytest.raises(UsageError, match="server URL"):
        connect(url)


def test_the_error_for_a_missing_server_says_what_to_do(tmp_path):
    url = f"unix://:s3cret@{tmp_path}/none.sock"

    with pytest.raises(UnavailableError) as missing:
        require_answer(connect(url), url)

    assert str(missing.value).startswith(f"no server answers at unix://:***@{tmp_path}/none.sock (")
    assert str(missing.value).endswith("start one, or `pigeonhole up` for a local one")
