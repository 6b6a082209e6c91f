"""Whatever went wrong, as one of the project's own errors: one clear line and an exit code."""

from __future__ import annotations

from assay.verify.core.errors import AssayError, InternalError, ResourceError

NO_MEMORY = ("can't allocate memory", "not enough memory", "bad_alloc", "out of memory")  # as torch and solvers put it


def explained(error: Exception) -> AssayError:
    """``error`` itself if it is ours; otherwise ours, with ``error`` as its cause."""
    if isinstance(error, AssayError):
        return error
    failure: AssayError
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _tells_of_memory(error)):
        failure = ResourceError("out of memory")
    elif isinstance(error, OSError):  # a full disk, too many open files, a folder that went away
        failure = ResourceError(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    else:
        failure = InternalError(f"unexpected {type(error).__name__}: {error} (--debug shows where)")
    failure.__cause__ = error
    return failure


def _tells_of_memory(error: RuntimeError) -> bool:
    return any(words in str(error).lower() for words in NO_MEMORY)


def line(error: Exception) -> str:
    """What went wrong, in one line."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
