"""What `import orchestrator.lines` costs: a controller's PC has no torch."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CLIENT_PACKAGES = {
    "annotated_types", "hiredis", "pydantic", "pydantic_core", "redis", "typing_extensions", "typing_inspection",
}  # fmt: skip


def test_the_clients_import_redis_and_pydantic_and_nothing_else():
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from orchestrator.lines import AsyncLineClient, LineClient\n"
        "tops = {name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
        "print(*sorted(name for name in tops if not name.startswith('_')))"
    )

    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    found_at_hand = CLIENT_PACKAGES | {"opentelemetry"}  # redis imports it where something else has installed it
    assert set(found.stdout.split()) - found_at_hand == {"modeling", "orchestrator"}


def test_a_client_that_is_not_closed_lets_a_program_end():
    code = (
        "from orchestrator.lines import LineClient\n"
        "client = LineClient('post', 'unix:///nowhere', deadline=3600, fallback='F')\n"
        "client.submit(b'image', 'item')"
    )

    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_what_a_client_installs_is_pinned_as_for_everything_else():
    def pins(name: str) -> set[str]:
        return {line.split(" ")[0] for line in (ROOT / name).read_text().splitlines() if "==" in line.partition(" ")[0]}

    installed = pins("requirements-client.lock")

    assert installed <= pins("requirements.lock")
    assert {pin.partition("==")[0].replace("-", "_") for pin in installed} - {"async_timeout"} == CLIENT_PACKAGES
