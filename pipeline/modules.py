"""What a module of your own may import: decorators that say what a class or a function is for.

    from pipeline.modules import model

    @model(min_size=8)
    class WideNet(nn.Module): ...

None is needed, `model: {name: my_models:WideNet}` says the same. They put a name into the schema and the reference page
where nothing else tells what it is, and give facts by which a job file is checked before anything runs. They change
nothing, and are read, not run: what they are given must be plain numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

Code = TypeVar("Code", bound=Callable[..., Any])
Decorator = Callable[[Code], Code]


@overload
def model(code: Code, /) -> Code: ...
@overload
def model(*, min_size: int = 1, min_batch: int = 1) -> Decorator[Any]: ...
def model(code: Any = None, /, *, min_size: int = 1, min_batch: int = 1) -> Any:  # noqa: ARG001
    """A model. min_size: of images, in pixels a side. min_batch: 2 where one image has no variance of a batch norm."""
    return _unchanged if code is None else code


@overload
def dataset(code: Code, /) -> Code: ...
@overload
def dataset(*, num_classes: int | None = None, channels: int = 3, size: int | None = None) -> Decorator[Any]: ...
def dataset(
    code: Any = None,
    /,
    *,
    num_classes: int | None = None,  # noqa: ARG001
    channels: int = 3,  # noqa: ARG001
    size: int | None = None,  # noqa: ARG001
) -> Any:
    """A dataset. num_classes, channels, size: of its images, in pixels a side, where that is known beforehand."""
    return _unchanged if code is None else code


def augmentation(code: Code, /) -> Code:
    """An augmentation."""
    return code


def loss(code: Code, /) -> Code:
    """A loss."""
    return code


def optimizer(code: Code, /) -> Code:
    """An optimizer."""
    return code


def schedule(code: Code, /) -> Code:
    """A schedule of the learning rate."""
    return code


def _unchanged(code: Code) -> Code:
    return code
