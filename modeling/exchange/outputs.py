"""Where exports go: beside their place first, into it when they are whole."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modeling.durable import sync, sync_tree
from modeling.errors import ModelingError


@contextmanager
def published_output(output: Path) -> Iterator[Path]:
    """A name in a fresh folder beside `output`, to write a file or a folder to; afterwards it becomes `output`.

    Nothing appears at `output` where the block raises.

    Raises:
        ModelingError: something is there already, or it cannot be written to.
    """
    if output.exists() or output.is_symlink():
        raise ModelingError(f"output {output} exists; name one that does not")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    except OSError as err:
        raise ModelingError(f"output {output} cannot be written ({err.strerror}); name another place") from err
    try:
        written = staging / output.name
        yield written
        written.chmod(0o755 if written.is_dir() else 0o644)
        sync_tree(staging)
        written.rename(output)
        sync(output.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
