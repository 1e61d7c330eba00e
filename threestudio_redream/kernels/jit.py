"""The one door to numba: lazy import, one threading policy, and a switch back to the references.

Write a kernel as a plain module-level function and decorate it. numba is imported, and the function
compiled, on the first call; importing the module costs nothing::

    from threestudio_redream.kernels.jit import njit, prange

    @njit(parallel=True)
    def scale(values, factor, out):
        for i in prange(values.shape[0]):
            out[i] = factor * values[i]

A kernel may call another decorated function **of the same file** and use ``prange`` and plain
constants as globals. (numba's disk cache only watches the file of the outermost function, so a
helper that lived elsewhere could change without the cached machine code following.)

Threading policy
----------------
numba has three threading layers. GNU OpenMP kills a forked child that enters a parallel region
(PyTorch data loaders fork), and TBB is rarely installed. ``workqueue`` ships with numba and
re-creates its threads after a fork, but aborts the process when two Python threads launch parallel
kernels at the same time. So: ``workqueue``, unless ``NUMBA_THREADING_LAYER`` says otherwise, and
every parallel launch through :func:`njit` holds one process-wide lock. The lock is also taken around
``os.fork``, so a child never inherits a half-finished launch. Kernels must not launch parallel
kernels from inside a ``prange``.

Environment: ``REDREAM_KERNELS`` = ``auto`` (default: numba if it imports), ``numba`` (required) or
``torch`` (references only); ``NUMBA_NUM_THREADS``, else ``OMP_NUM_THREADS``, else all usable cores.
"""

from __future__ import annotations

import logging
import os
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from threestudio_redream.errors import ConfigError, RedreamError

__all__ = [
    "LazyKernel",
    "get_threads",
    "kernel_choice",
    "njit",
    "numba_available",
    "prange",
    "set_threads",
    "use_numba",
]

log = logging.getLogger(__name__)
Result = TypeVar("Result")

_launch_lock = threading.RLock()  # also guards the three names below
_numba: types.ModuleType | None = None
_import_failure: str | None = None
_threads: int | None = None

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_launch_lock.acquire, after_in_parent=_launch_lock.release, after_in_child=_launch_lock.release
    )


def prange(*bounds: int) -> Iterator[int]:
    """``numba.prange`` inside a kernel; plain ``range`` when the Python function is called directly."""
    return iter(range(*bounds))


def numba_available() -> bool:
    """Whether numba imports. The first call imports it (about half a second); failures are remembered."""
    global _numba, _import_failure
    if _numba is None and _import_failure is None:
        with _launch_lock:
            try:
                import numba
            except Exception as error:  # a numba that does not fit the numpy raises more than ImportError
                _import_failure = f"{type(error).__name__}: {error}"
                log.info("numba is not usable, the torch references are used: %s", _import_failure)
            else:
                if "NUMBA_THREADING_LAYER" not in os.environ:
                    numba.config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]
                _numba = numba
    return _numba is not None


def kernel_choice() -> str:
    """``REDREAM_KERNELS``: ``auto``, ``numba`` or ``torch``; read at every call.

    Raises:
        ConfigError: the variable holds another word.
    """
    choice = os.environ.get("REDREAM_KERNELS", "").strip().lower() or "auto"
    if choice not in ("auto", "numba", "torch"):
        raise ConfigError(
            "REDREAM_KERNELS names no kernel family", received=choice, fix="Set it to auto, numba or torch."
        )
    return choice


def use_numba(device: str = "cpu") -> bool:
    """Whether the numba kernels are the path for tensors on ``device`` (a torch device type).

    Raises:
        ConfigError: see :func:`kernel_choice`.
        RedreamError: ``REDREAM_KERNELS=numba`` and numba does not import.
    """
    choice = kernel_choice()
    if device != "cpu" or choice == "torch":
        return False
    if choice == "numba":
        _require_numba()
    return numba_available()


def get_threads() -> int:
    """Threads that a parallel kernel uses: :func:`set_threads`, else the environment, else all cores."""
    if _threads is not None:
        return _threads
    numba = _require_numba()
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if "NUMBA_NUM_THREADS" not in os.environ and wanted.isdigit() and int(wanted) > 0:
        return min(int(wanted), numba.config.NUMBA_NUM_THREADS)
    return numba.config.NUMBA_NUM_THREADS


def set_threads(count: int | None) -> None:
    """Use ``count`` threads in every parallel kernel of this process; ``None`` returns to the default.

    Raises:
        ConfigError: ``count`` is below 1 or above what numba was started with.
    """
    global _threads
    if count is not None:
        most = _require_numba().config.NUMBA_NUM_THREADS
        if not 1 <= count <= most:
            raise ConfigError(
                f"Kernels can use 1 to {most} threads in this process",
                received=count,
                fix="To allow more, set NUMBA_NUM_THREADS before Python starts.",
            )
    _threads = count


class LazyKernel:
    """A function that numba compiles on its first call (:func:`njit` makes them).

    Attributes:
        py_func: the undecorated Python function, for debugging and for tests.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self.py_func = function
        self.options = options
        self.parallel = bool(options.get("parallel", False))
        self.__doc__, self.__name__, self.__module__ = function.__doc__, function.__name__, function.__module__
        self._dispatcher: Callable[..., Any] | None = None

    @property
    def dispatcher(self) -> Callable[..., Any]:
        """The numba dispatcher; built, but not yet compiled, on first access."""
        if self._dispatcher is None:
            with _launch_lock:
                if self._dispatcher is None:
                    self._dispatcher = self._build()
        return self._dispatcher

    def __call__(self, *args: Any) -> Any:
        call = self.dispatcher
        if not self.parallel:
            return call(*args)
        with _launch_lock:
            _require_numba().set_num_threads(get_threads())  # numba keeps it per Python thread
            return call(*args)

    def _build(self) -> Callable[..., Any]:
        numba = _require_numba()
        source = self.py_func
        scope = dict(source.__globals__)
        for name in source.__code__.co_names:
            value = scope.get(name)
            if value is prange:
                scope[name] = numba.prange
            elif isinstance(value, LazyKernel):
                if value.py_func.__code__.co_filename != source.__code__.co_filename:
                    raise RedreamError(
                        f"Kernel {self.__name__!r} calls a kernel of another file, which numba's cache cannot watch",
                        received=value.py_func.__code__.co_filename,
                        fix="Move the helper into the file of the kernel.",
                    )
                scope[name] = value.dispatcher
        linked = types.FunctionType(source.__code__, scope, source.__name__, source.__defaults__, source.__closure__)
        linked.__qualname__, linked.__module__ = source.__qualname__, source.__module__
        try:
            return numba.njit(cache=True, **self.options)(linked)
        except RuntimeError as error:  # no folder can be written: neither __pycache__ nor the user's cache
            log.info("compiled kernels are not kept on disk (set NUMBA_CACHE_DIR): %s", error)
            return numba.njit(**self.options)(linked)


def njit(function: Callable[..., Result] | None = None, **options: Any) -> Any:
    """``numba.njit`` with a lazy import, a disk cache, and the threading policy of this module.

    Args:
        options: passed to ``numba.njit`` (``parallel``, ``fastmath``, ``error_model``, ``inline``, ...).

    Returns:
        :class:`LazyKernel`; call it with positional arguments.
    """
    if function is not None:
        return LazyKernel(function, **options)
    return lambda decorated: LazyKernel(decorated, **options)


def _require_numba() -> Any:
    if not numba_available():
        raise RedreamError(
            "This kernel needs numba, which did not import",
            received=_import_failure,
            fix="Repair it with: pip install --upgrade numba; or set REDREAM_KERNELS=torch.",
        )
    return _numba
