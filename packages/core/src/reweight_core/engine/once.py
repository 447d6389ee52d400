"""A property that is computed once, in one thread without waiting for another's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")


class once(Generic[Value]):  # noqa: N801  used as a decorator
    """`functools.cached_property` without its lock, which all objects of a class share before Python 3.12.

    Args:
        function: computes the value from the object.
    """

    def __init__(self, function: Callable[[Any], Value]):
        self._function, self._name = function, ""
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> once[Value]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object | None, owner: type) -> once[Value] | Value:
        if instance is None:
            return self
        # found there from now on
        value = vars(instance)[self._name] = self._function(instance)
        return value
