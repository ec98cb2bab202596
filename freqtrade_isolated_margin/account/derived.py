"""What follows from the fields of a record: worked out when it is first asked for, and kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class derived(Generic[T]):  # noqa: N801 - a decorator
    """A property that works itself out once.

    `functools.cached_property` takes a lock each time (before Python 3.12), which costs more than the numbers
    here do. Two threads that ask at the same moment may both work it out: to the same.
    """

    def __init__(self, work_out: Callable[[Any], T]) -> None:
        self._work_out = work_out
        self.__doc__ = work_out.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        """Remember where it stands."""
        self._name = name

    @overload
    def __get__(self, record: None, owner: type) -> Self: ...
    @overload
    def __get__(self, record: object, owner: type) -> T: ...
    def __get__(self, record: object | None, owner: type) -> Self | T:
        """Work it out and keep it in the record, where it is found from then on."""
        if record is None:
            return self
        found = record.__dict__[self._name] = self._work_out(record)
        return found
