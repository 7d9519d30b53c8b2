"""Giving live objects attributes of their own for a while, and taking them away exactly.

Everything in the library that changes an object of somebody else goes through here: methods that
libraries announce something by, decoders, the `forward` of modules. What was put is taken away only
where it is found; if somebody put something on top of it in between, that is refused and nothing
is changed, because what is on top still calls what is below.
"""

import copyreg
import types
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self

from smoothcache_core.errors import AttachError

_ABSENT: Any = object()


class Change(Protocol):
    """Something that was changed on a live object."""

    def verify(self) -> None:
        """Raise `AttachError` if it cannot be undone now; nothing is changed."""
        ...

    def undo(self) -> None:
        """Restore the object exactly, or raise `AttachError` and change nothing."""
        ...

    def restore(self, owner: object, own: dict[str, Any]) -> None:
        """Put back in `own`, a copy of the attributes of `owner`, what was there before."""
        ...


class Patch:
    """An attribute that an object is given of its own, in its `__dict__`.

    Args:
        owner: Whose attribute it is: a module, or any other object with a `__dict__`.
        name: Name of the attribute.
        value: What it is until `undo`.
        moves_to: Further names under which hooks of other libraries may keep what they found under
            `name`; accelerate moves `forward` to `_old_forward`.
        refusal: Message of the error if something is on top.
    """

    def __init__(
        self,
        owner: object,
        name: str,
        value: object,
        *,
        moves_to: Sequence[str] = (),
        refusal: str | None = None,
    ) -> None:
        self._owner, self._name, self._value = owner, name, value
        self._places = (name, *moves_to)
        self._refusal = refusal or (
            f"{type(owner).__name__}: something replaced `{name}` after it had been replaced "
            "before; remove that first"
        )
        self._before = vars(owner).get(name, _ABSENT)
        vars(owner)[name] = value

    def verify(self) -> None:
        """Raise `AttachError` if something is on top; nothing is changed."""
        self._place()

    def undo(self) -> None:
        """Put back what was there before.

        Raises:
            AttachError: Something is on top; nothing was changed.
        """
        self._put_back(self._place(), vars(self._owner))

    def _put_back(self, place: str | None, own: dict[str, Any]) -> None:
        if place is None:
            return
        if self._before is not _ABSENT:
            own[place] = self._before
        elif place == self._name:
            del own[place]
        else:  # a hook kept it, which would have found the method of the class without us
            method = getattr(type(self._owner), self._name)
            own[place] = types.MethodType(method, self._owner)

    def restore(self, owner: object, own: dict[str, Any]) -> None:
        """Put back in `own`, a copy of the attributes of `owner`, what was there before.

        Raises:
            AttachError: Something is on top; a copy would still call what is below it.
        """
        if owner is self._owner:
            self._put_back(self._place(), own)

    def _place(self) -> str | None:
        """Return where the value is; None if it was taken away together with what it was put on."""
        own = vars(self._owner)
        for name in self._places:
            if name in own and own[name] is self._value:
                return name
        if any(own.get(self._name) is inner for inner in _wrapped_by(self._before)):
            return None  # a hook below was removed by restoring what was before it
        raise AttachError(self._refusal)


def _wrapped_by(wrapper: object) -> list[object]:
    """Return what `wrapper` wraps, by `functools.wraps`, down to the innermost function."""
    inner = getattr(wrapper, "__wrapped__", None)
    return [] if inner is None else [inner, *_wrapped_by(inner)]


class Override:
    """Attributes that an object finds in its class, for it is given a subclass of its own class.

    Copies and pickles of the object are of its own class, and have none of them: what is replaced
    on an instance would be copied too, and still be that of the object that was copied. Objects
    that are made by `type(owner)(...)` meanwhile do find them, and must not be taken for the owner.

    Args:
        owner: Whose attributes they are; any object whose class can be set.
        attributes: What they are until `undo`, by their names.

    Raises:
        AttachError: The class of the object cannot be set.
    """

    def __init__(self, owner: Any, attributes: Mapping[str, object]) -> None:
        own: Any = type(owner)
        names = {"__module__": own.__module__, "__qualname__": own.__qualname__}

        def reduced(this: object, protocol: Any) -> Any:
            make, arguments, *state = own.__reduce_ex__(this, protocol)
            make = new_object if make is copyreg.__newobj__ else make  # type: ignore[attr-defined]
            return make, tuple(own if a is self._made else a for a in arguments), *state

        space = {**names, "__doc__": own.__doc__, "__reduce_ex__": reduced, **attributes}
        self._owner, self._own, self._names = owner, own, tuple(attributes)
        self._made = subclass_like(own, space)
        try:
            owner.__class__ = self._made
        except TypeError as error:
            raise AttachError(
                f"the methods of this {own.__name__} cannot be listened to: {error}"
            ) from error

    def verify(self) -> None:
        """Raise `AttachError` if something is on top; nothing is changed."""
        own = attributes_of(self._owner)
        on_top = [name for name in self._names if name in own]
        if on_top or type(self._owner) is not self._made:
            raise AttachError(
                f"{self._own.__name__}: something replaced `{(*on_top, '__class__')[0]}` after it "
                "had been replaced before; remove that first"
            )

    def undo(self) -> None:
        """Give the object back its class.

        Raises:
            AttachError: Something is on top; nothing was changed.
        """
        self.verify()
        self._owner.__class__ = self._own

    def restore(self, owner: object, own: dict[str, Any]) -> None:
        """Put back nothing: an object of another class has its attributes in that class."""


def subclass_like(own: type, space: Mapping[str, Any]) -> Any:
    """Return a subclass that compares equal to its base, under the same name.

    Pipelines look at classes: `type(scheduler) != FlowMatchEulerDiscreteScheduler`.

    Args:
        own: The class of an object.
        space: Attributes of the subclass.
    """
    meta: Any = type(own)

    class Alike(meta):
        def __eq__(self, other: object) -> bool:
            return other is own or self is other

        def __hash__(self) -> int:
            return hash(own)

    return types.new_class(
        own.__name__, (own,), {"metaclass": Alike}, exec_body=lambda body: body.update(space)
    )


def attributes_of(owner: object) -> Mapping[str, Any]:
    """Return the attributes that an object has of its own; none where it has no `__dict__`."""
    return getattr(owner, "__dict__", {})


def new_object(own: Any, *arguments: Any) -> object:
    """Do what `copyreg.__newobj__` does; of that, pickle demands the class that an object has."""
    return own.__new__(own, *arguments)


class Patches:
    """Changes that are undone together, the last first, or not at all.

    Args:
        changes: Those made so far, in their order.

    Example:
        >>> with Patches(Patch(scheduler, "step", step), Patch(model, "decode", decode)):
        ...     sample()
    """

    def __init__(self, *changes: Change) -> None:
        self._changes = list(changes)

    def add(self, change: Change) -> None:
        """Undo this one too, before those that were made earlier."""
        self._changes.append(change)

    def verify(self) -> None:
        """Raise `AttachError` if one of them cannot be undone now; nothing is changed."""
        for change in self._changes:
            change.verify()

    def restore(self, owner: object, own: dict[str, Any]) -> None:
        """Put back in `own`, a copy of the attributes of `owner`, what was there before."""
        for change in reversed(self._changes):
            change.restore(owner, own)

    def before(self, owner: object) -> dict[str, Any]:
        """Return the attributes that an object would have of its own if all were undone.

        Raises:
            AttachError: Something is on top of one of them.
        """
        own = dict(vars(owner))
        self.restore(owner, own)
        return own

    def undo(self) -> None:
        """Restore all objects exactly.

        Raises:
            AttachError: Something is on top of one of them; nothing was changed.
        """
        self.verify()
        while self._changes:
            self._changes.pop().undo()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Undo them; after an exception it is that exception that is passed on."""
        try:
            self.undo()
        except AttachError as refused:
            if error is None:
                raise
            error.add_note(str(refused))


@contextmanager
def undone_on_error() -> Generator[Patches]:
    """Yield changes to be made one by one: if one of them fails, those before are undone."""
    patches = Patches()
    try:
        yield patches
    except BaseException:
        patches.undo()
        raise


@contextmanager
def replaced(owner: object, name: str, value: object) -> Generator[None]:
    """Give an object an attribute of its own for a while.

    What it had of its own under the name comes back at the end, after an exception too.

    Example:
        >>> with replaced(vae, "decode", lambda latents: noted.append(latents)):
        ...     pipe(prompt)

    Raises:
        AttachError: Something else was put under the name in between and is still there; it stays,
            and ours below it. If an exception is under way, that is passed on with a note.
    """
    with Patches(Patch(owner, name, value)):
        yield
