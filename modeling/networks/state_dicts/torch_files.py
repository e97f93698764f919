"""Files that torch saves: tensors in plain containers are read; what else was pickled is named, never unpickled."""

import json
import os
import pickle
import re
import shlex
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from modeling.errors import ModelFormatError

_NUM_SHOWN = 3
_LONGEST_NAME = 80
_GLOBAL = re.compile(r"(?:GLOBAL|function|create new object for nn\.Parameter or classes) ([\w.]+)")
_RUNS_CODE = ("os.", "posix.", "nt.", "sys.", "subprocess.", "builtins.eval", "builtins.exec", "runpy.", "pty.")
# Keeps what a state dict can hold: tensors by name, nested; modules become their state dicts. In double quotes, so that
# the shell's single ones stay readable.
_CONVERSION = (
    'import torch; plain = lambda o: plain(o.state_dict()) if hasattr(o, "state_dict") else '
    '{str(k): plain(v) for k, v in o.items() if isinstance(v, (dict, torch.Tensor)) or hasattr(v, "state_dict")} '
    "if isinstance(o, dict) else o; "
    'torch.save(plain(torch.load(%s, map_location="cpu", weights_only=False)), %s)'
)
_SCRIPT_CONVERSION = 'import torch; torch.save(torch.jit.load(%s, map_location="cpu").state_dict(), %s)'


def read_torch(path: Path) -> Any:
    """What torch saved: tensors in containers.

    Raises:
        ModelFormatError: it is damaged, or holds anything else.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd pickles, which are refused in one line
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as err:
        raise _refusal(path, str(err)) from err
    except Exception as err:  # broken archives can raise anything
        reason = " ".join(str(err).partition("\n")[0].split())
        raise ModelFormatError(f"{path}: cannot be loaded as weights ({type(err).__name__}: {reason[:200]})") from err


def check_archive(file: IO[bytes], path: Path) -> None:
    """Check an archive by its directory, before its content is read.

    Raises:
        ModelFormatError: it inflates, holds code, or is not an archive of torch.
    """
    try:
        entries = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as err:
        raise ModelFormatError(f"{path}: cannot be loaded as weights (a damaged zip archive: {err})") from err
    size_bytes, inflated_bytes = os.fstat(file.fileno()).st_size, sum(entry.file_size for entry in entries)
    if inflated_bytes > size_bytes:
        raise ModelFormatError(
            f"{path}: a zip archive of {size_bytes / 1e6:,.1f} MB that inflates to {inflated_bytes / 1e6:,.1f} MB; "
            "torch saves weights uncompressed, so these are none: save network.state_dict() with torch.save"
        )
    names = {Path(entry.filename).name for entry in entries}
    if "constants.pkl" in names:
        raise ModelFormatError(
            f"{path}: a TorchScript archive, whose code is not loaded; only if you trust its source, "
            f"convert it with {_command(_SCRIPT_CONVERSION, path)}"
        )
    if "data.pkl" not in names:
        raise ModelFormatError(f"{path}: a zip archive without torch's data.pkl, so it holds no weights of torch")


def _refusal(path: Path, reason: str) -> ModelFormatError:
    """The error for a pickle of more than tensors: what it holds, and how to convert it."""
    classes = _pickled_classes(path, reason)
    if not classes:
        return ModelFormatError(
            f"{path}: neither safetensors nor a plain state dict, and nothing else is unpickled; "
            "save network.state_dict(), best as safetensors"
        )
    shown = ", ".join(classes[:_NUM_SHOWN]) + (
        f" and {len(classes) - _NUM_SHOWN} more" if len(classes) > _NUM_SHOWN else ""
    )
    told = f"{path}: holds pickled objects beside its tensors ({shown}), and nothing else is unpickled"
    if any(name.startswith(_RUNS_CODE) for name in classes):
        return ModelFormatError(f"{told}; unpickling it would run code: get the weights from elsewhere")
    return ModelFormatError(f"{told}; only if you trust its source, convert it with {_command(_CONVERSION, path)}")


def _pickled_classes(path: Path, reason: str) -> list[str]:
    """The names of what the pickle would import, found without unpickling it."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not a zip archive, or torch cannot read its opcodes: its reason has one name
        found = _GLOBAL.findall(reason)
    names = {(name if name.isprintable() else ascii(name)[1:-1])[:_LONGEST_NAME] for name in found}
    return sorted(names, key=lambda name: (name.startswith("torch."), name))  # the operator's own classes first


def _command(code: str, path: Path) -> str:
    """A command for the shell that writes plain weights beside the present folder's other files."""
    source, target = (json.dumps(text, ensure_ascii=False) for text in (str(path), f"{path.stem}.weights.pt"))
    return f"`python -c {shlex.quote(code % (source, target))}`"
