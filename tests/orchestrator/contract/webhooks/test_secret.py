import base64
import stat

import pytest

from orchestrator.contract.errors import UsageError
from orchestrator.contract.settings import Settings
from orchestrator.contract.webhooks.secret import read_secrets, secret_file, sign


def test_the_secret_is_made_once_for_its_owner_alone(settings):
    first, second = read_secrets(settings), read_secrets(settings)

    assert first == second
    assert len(first[0]) == 32
    assert stat.S_IMODE(secret_file(settings).stat().st_mode) == 0o600


def test_a_signature_is_that_of_standard_webhooks():
    # The example of standardwebhooks.com.
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'

    signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_several_secrets_stand_one_a_line(tmp_path):
    file = tmp_path / "secrets"
    lines = [base64.b64encode(bytes([number]) * 24).decode() for number in range(2)]
    file.write_text(f"whsec_{lines[0]}\n{lines[1]}\n")

    assert read_secrets(Settings(home=tmp_path / "home", notify_secret_file=file)) == [bytes(24), b"\1" * 24]


@pytest.mark.parametrize("content", ["", "whsec_AA", "no base64!", "whsec_c2hvcnQ=", "\n".join(["A" * 32] * 5)])
def test_a_file_without_a_proper_secret_is_refused_without_showing_it(tmp_path, content):
    file = tmp_path / "secret"
    file.write_text(content)

    with pytest.raises(UsageError, match="secret") as refused:
        read_secrets(Settings(home=tmp_path / "home", notify_secret_file=file))

    assert not content or content not in str(refused.value)


def test_a_named_file_that_is_missing_is_not_made(tmp_path):
    settings = Settings(home=tmp_path / "home", notify_secret_file=tmp_path / "missing")

    with pytest.raises(UsageError, match="missing"):
        read_secrets(settings)

    assert not (tmp_path / "missing").exists()
