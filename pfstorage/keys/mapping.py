"""Key <-> local path: pure functions, and the only place that judges ``..`` and roots.

A *location* is the leading part of a key or of a path. Locations are compared and
replaced by whole components: ``chris/DICOM`` is no part of ``chris/DICOM2/a``.
"""

from __future__ import annotations

import os.path
from collections.abc import Sequence

from pfstorage.errors import InvalidKeyError

MAX_KEY_BYTES = 1024
FIRST_CHARACTER = "\x01"  # no key holds a NUL, so between a key and itself with this after it lies none
MAX_COMPONENT_BYTES = 255  # NAME_MAX of the Linux and macOS file systems


def relative_to(name: str, location: str) -> str | None:
    """Return what is left of *name* after the leading *location*, None if it isn't there.

    The whole *name* is below an empty location; a name is below itself, with
    nothing left. Slashes at the end of *location* don't matter.

    >>> relative_to("chris/DICOM/a.dcm", "chris/DICOM/"), relative_to("chris/DICOM2/a", "chris/DICOM")
    ('a.dcm', None)
    >>> relative_to("/store/a", "/"), relative_to("a", ""), relative_to("a", "a")
    ('store/a', 'a', '')
    """
    if not location:
        return name
    stem = location.rstrip("/")
    if name in (stem, location):
        return ""
    return name[len(stem) + 1 :] if name.startswith(stem + "/") else None


def join(location: str, rest: str) -> str:
    """Join two parts of a key or path with exactly one slash; an empty part adds none.

    >>> join("storage/", "f1.txt"), join("storage", "/f1.txt"), join("", "f1.txt"), join("/", "a")
    ('storage/f1.txt', 'storage/f1.txt', 'f1.txt', '/a')
    """
    if not location or not rest:
        return location or rest
    return f"{location.rstrip('/')}/{rest.lstrip('/')}"


def common_prefix(first: str, last: str) -> str:
    """Return the longest text that both begin with: of sorted keys, the prefix that lists them all.

    >>> common_prefix("chris/a1", "chris/a2/b")
    'chris/a'
    """
    length = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    return min(first, last, key=len) if length is None else first[:length]


def start_just_before(key: str) -> str:
    """Return a marker after which a listing begins with *key*, and with little else before it.

    >>> start_just_before("chris/a"), start_just_before("a")
    ('chris/`', '`')
    """
    last = ord(key[-1])
    return key[:-1] + (chr(last - 1) if 1 < last < 0xD800 else "")


def without_dot(location: str) -> str:
    """Drop the leading ``./`` that means nothing in a store; other dots are part of names.

    >>> without_dot("./a"), without_dot("."), without_dot(".hidden")
    ('a', '', '.hidden')
    """
    while location.startswith("./"):
        location = location[2:].lstrip("/")
    return "" if location == "." else location


def normal_location(text: str) -> str:
    """Return the location *text* without what means nothing in it: empty components, and those of one dot.

    >>> normal_location("k//w/"), normal_location("/k/./w"), normal_location("/"), normal_location(".hidden/..")
    ('k/w', 'k/w', '', '.hidden/..')
    """
    return "/".join(part for part in text.split("/") if part not in ("", "."))


def normal_prefix(text: str) -> str:
    """Return the beginning *text* of keys as `normal_location` would; its last component may be a part of one.

    >>> normal_prefix("k//w"), normal_prefix("k//w//"), normal_prefix("k//."), normal_prefix("/")
    ('k/w', 'k/w/', 'k/.', '')
    """
    directory, _, last = text.rpartition("/")
    plain = normal_location(directory)
    return f"{plain}/{last}" if plain else last


def local_to_key(path: str, over: str, location: str, cwd: str, names: Sequence[tuple[str, str]] = ()) -> str:
    """Return the key of the local file *path*: its leading *over* becomes *location*.

    ``./data``, ``data``, ``data/`` and the absolute path of the same directory are
    the same *over*; so is what begins with another name of a directory, of which *names* has
    each before its path. *over* may also be above such a name. Without *over*, *location* is put
    before the path as given, less its leading ``/`` or ``./``. Raise `InvalidKeyError` if *path* is not
    below *over*, or if the key can't be stored everywhere.

    >>> local_to_key("./data/d/f", "data/", "storage", "/home/u")
    'storage/d/f'
    >>> local_to_key("./data/d/f", "", "storage", "/home/u")
    'storage/data/d/f'
    >>> local_to_key("d/f", "/link/d", "storage", "/home/u", [("/link", "/home/u")])
    'storage/f'
    >>> local_to_key("d/f", "/links", "storage", "/home/u", [("/links/u", "/home/u")])
    'storage/u/d/f'
    """
    if over:
        rest = relative_to(_absolute(path, cwd, names), _absolute(over, cwd, names))
        for name, own in names if rest is None else ():
            rest = relative_to(_absolute(path, cwd, [(own, name)]), _absolute(over, cwd, [(own, name)]))
            if rest is not None:
                break
        if rest is None:
            raise InvalidKeyError(
                f"{path!r} is not below mapLocationOver {over[:MAX_KEY_BYTES]!r}", local=path
            )
    else:
        rest = os.path.normpath(path).lstrip("/")
    return check_key(join(location, rest))


def _absolute(path: str, cwd: str, names: Sequence[tuple[str, str]]) -> str:
    absolute = os.path.normpath(os.path.join(cwd, path))
    for name, own in names:
        rest = relative_to(absolute, name)
        if rest is not None:
            return join(own, rest)
    return absolute


def check_key(key: str) -> str:
    """Return *key*, or raise `InvalidKeyError` if no store can hold it faithfully.

    Swift limits a name to 1024 bytes of UTF-8 without NUL (its API reference,
    "Object name"). ``.`` and ``..`` it would take, but no file system gives them back.
    """
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidKeyError(
            f"the name {key!a} is not valid Unicode: rename the file", key=ascii(key)
        ) from None
    if not key or length > MAX_KEY_BYTES or "\0" in key:
        raise InvalidKeyError(
            f"a key has 1 to {MAX_KEY_BYTES} bytes and no NUL; this one has {length}: {key!r}", key=key
        )
    if not {".", ".."}.isdisjoint(key.split("/")):
        raise InvalidKeyError(f"the key {key!r} has a component '.' or '..'", key=key)
    return key


def check_location(location: str) -> str:
    """Return *location*, below which many names are to stand, or raise `InvalidKeyError` if no key fits there.

    It is refused once: each of the names would repeat all of it in what is told of its failure.
    """
    length = len(location.encode(errors="surrogatepass"))
    if length > MAX_KEY_BYTES:
        raise InvalidKeyError(
            f"a key has at most {MAX_KEY_BYTES} bytes, and the location that is given for all has {length}: shorten it"
        )
    return location


def check_new_key(key: str) -> str:
    """Return *key*, or raise `InvalidKeyError` if it is none that pfstorage makes: see `check_key`.

    An empty component means nothing to a file system, so it has no place for ``a//b`` beside ``a/b``.
    """
    if "" in check_key(key).removesuffix("/").split("/"):
        raise InvalidKeyError(
            f"the key {key!r} has an empty component: leave out the slash at its beginning, or one of two",
            key=key,
        )
    return key


def local_parts(rest: str, key: str) -> tuple[str, ...]:
    """Return the components of the local path *rest*, which *key* maps to, below its target.

    Raise `InvalidKeyError` for whatever would leave the target or share a local
    name with another key: ``..``, ``.``, NUL, a leading or a double slash, a
    component that is too long.

    >>> local_parts("d/a.dcm", "chris/d/a.dcm")
    ('d', 'a.dcm')
    >>> local_parts("../a", "chris/../a")
    Traceback (most recent call last):
    ...
    pfstorage.errors.InvalidKeyError: the key 'chris/../a' has no safe local name: component '..'
    """
    parts = tuple(rest.split("/"))
    for part in parts:
        if part in ("", ".", "..") or "\0" in part:
            raise InvalidKeyError(f"the key {key!r} has no safe local name: component {part!r}", key=key)
        try:
            length = len(os.fsencode(part))
        except UnicodeEncodeError:
            raise InvalidKeyError(
                f"the key {key!a} can't be a path in the encoding of this system", key=key
            ) from None
        if length > MAX_COMPONENT_BYTES:
            raise InvalidKeyError(
                f"the key {key!r} has a component of over {MAX_COMPONENT_BYTES} bytes", key=key
            )
    return parts


def is_directory_marker(key: str) -> bool:
    """Tell whether *key* stands for a directory: tools make such empty objects for empty ones."""
    return key.endswith("/")
