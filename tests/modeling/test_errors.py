import errno

import pytest

from modeling.errors import ImageError, ModelFormatError, is_out_of_memory, takes_no_writes, trouble_of

WORKER = ("EMFILE", "ENFILE", "ENOMEM", "ENOBUFS")
STORAGE = (
    "EIO", "ESTALE", "ETIMEDOUT", "EREMOTEIO", "ENOTCONN", "EHOSTDOWN", "ECONNRESET", "EAGAIN", "ENODEV", "EKEYEXPIRED",
)  # fmt: skip
NEITHER = ("ENOENT", "EACCES", "ENOSPC", "EDQUOT", "EROFS", "EISDIR", "ENAMETOOLONG", "ELOOP", "EINVAL", "EPIPE")


@pytest.mark.parametrize(
    ("name", "trouble"),
    [(name, "worker") for name in WORKER]
    + [(name, "storage") for name in STORAGE]
    + [(name, None) for name in NEITHER],
)
def test_every_error_number_is_the_trouble_of_one(name, trouble):
    assert trouble_of(OSError(getattr(errno, name), name)) == trouble


@pytest.mark.parametrize("name", [*WORKER, *STORAGE, *NEITHER])
def test_a_disk_that_is_full_or_read_only_takes_no_writes(name):
    assert takes_no_writes(OSError(getattr(errno, name), name)) == (name in ("ENOSPC", "EDQUOT", "EROFS"))


@pytest.mark.parametrize(
    "err",
    [
        MemoryError(),
        RuntimeError("can't start new thread"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("std::bad_alloc"),
        Exception("I/O error: Too many open files (os error 24)"),
    ],
)
def test_memory_and_threads_that_are_short_are_the_workers(err):
    assert trouble_of(err) == "worker"


@pytest.mark.parametrize("text", ["CUDA out of memory. Tried to allocate 2 GiB", "CUDA error: out of memory"])
def test_memory_of_a_gpu_may_be_too_little_for_ever(text):
    err = RuntimeError(text)

    assert (is_out_of_memory(err), trouble_of(err)) == (True, None)


@pytest.mark.parametrize("err", [ImageError("corrupt", "?"), RuntimeError("a bug"), ValueError("bad_alloc"), None])
def test_other_errors_are_nobodys(err):
    assert trouble_of(err) is None


def test_the_trouble_of_an_error_is_that_of_its_cause():
    def fail(*, hidden: bool) -> None:
        try:
            raise OSError(errno.EMFILE, "Too many open files")
        except OSError as err:
            if hidden:
                raise ModelFormatError("the card cannot be read") from None
            raise ModelFormatError("the card cannot be read") from err

    with pytest.raises(ModelFormatError) as caused:
        fail(hidden=False)
    with pytest.raises(ModelFormatError) as alone:
        fail(hidden=True)

    assert (trouble_of(caused.value), trouble_of(alone.value)) == ("worker", None)
