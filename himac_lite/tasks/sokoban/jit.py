"""The compiler of the searches and of the batched rules: numba, which is an optional extra.

Only modules with kernels import this one, and other modules import those when they need them: importing numba takes
half a second, and compiling takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from himac_lite.errors import TaskError, first_line

HOW = "pip install 'himac-lite[fast]'"

try:
    from numba import njit
except ImportError as error:  # missing, or broken: numba refuses a NumPy that is newer than itself
    absent = isinstance(error, ModuleNotFoundError) and error.name == "numba"
    reason = "is not installed" if absent else f"cannot be imported ({first_line(error)})"
    raise TaskError(f"numba {reason}; the batched environment, large searches and pretraining need it: {HOW}") from None

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def kernel(function: Kernel | None = None, **options: Any) -> Any:
    """`numba.njit` that keeps the compiled code on disk if some folder for it is writable.

    numba looks for one in ``NUMBA_CACHE_DIR``, beside the source file and in the user's cache folder. Without any the
    code is compiled again in each process.
    """
    if function is None:
        return lambda given: kernel(given, **options)
    try:
        made = njit(cache=True, **options)(function)
    except (RuntimeError, OSError):  # "no locator available", or a folder that cannot even be looked at
        return njit(**options)(function)
    made._cache = _Forgiving(made._cache)
    return made


class _Forgiving:
    """numba's cache of one function, without its errors: a full disk or an unreadable file only costs a compilation."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def load_overload(self, *given: Any) -> Any:
        try:
            return self._cache.load_overload(*given)
        except Exception:  # a damaged file fails to unpickle in many ways
            return None

    def save_overload(self, *given: Any) -> None:
        try:
            self._cache.save_overload(*given)
        except Exception:
            self._cache.disable()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)
