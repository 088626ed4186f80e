"""The mapping between keys and local paths, and the validation of keys. All functions are pure.

A *location* is the leading part of a key or a path. It is compared by whole components: ``chris/DICOM2/a`` is not
below the location ``chris/DICOM``.
"""

from __future__ import annotations

import os.path
from collections.abc import Sequence

from pfstorage.errors import InvalidKeyError

MAX_KEY_BYTES = 1024
# The smallest character of a key: no key sorts between a key and the same key followed by it.
FIRST_CHARACTER = "\x01"
# NAME_MAX of the Linux and macOS file systems.
MAX_COMPONENT_BYTES = 255


def relative_to(name: str, location: str) -> str | None:
    """Return the part of *name* after the leading *location*; None if *name* is not below it.

    Every name is below the empty location. A name is below itself, with the rest "". A slash at the end of
    *location* has no effect.

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
    """Return the longest common prefix. For the first and the last of sorted keys, it is a prefix of all.

    >>> common_prefix("chris/a1", "chris/a2/b")
    'chris/a'
    """
    length = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    return min(first, last, key=len) if length is None else first[:length]


def start_just_before(key: str) -> str:
    """Return a text to start a listing after, such that *key* is among its first rows.

    >>> start_just_before("chris/a"), start_just_before("a")
    ('chris/`', '`')
    """
    last = ord(key[-1])
    return key[:-1] + (chr(last - 1) if 1 < last < 0xD800 else "")


def without_dot(location: str) -> str:
    """Remove leading ``./``, which has no meaning in a store. Other dots are part of names.

    >>> without_dot("./a"), without_dot("."), without_dot(".hidden")
    ('a', '', '.hidden')
    """
    while location.startswith("./"):
        location = location[2:].lstrip("/")
    return "" if location == "." else location


def normal_location(text: str) -> str:
    """Return the location *text* without empty components and components of one dot.

    >>> normal_location("k//w/"), normal_location("/k/./w"), normal_location("/"), normal_location(".hidden/..")
    ('k/w', 'k/w', '', '.hidden/..')
    """
    return "/".join(part for part in text.split("/") if part not in ("", "."))


def normal_prefix(text: str) -> str:
    """Normalize the key prefix *text* like `normal_location`, but keep its last component, which may be partial.

    >>> normal_prefix("k//w"), normal_prefix("k//w//"), normal_prefix("k//."), normal_prefix("/")
    ('k/w', 'k/w/', 'k/.', '')
    """
    directory, _, last = text.rpartition("/")
    plain = normal_location(directory)
    return f"{plain}/{last}" if plain else last


def local_to_key(path: str, over: str, location: str, cwd: str, names: Sequence[tuple[str, str]] = ()) -> str:
    """Return the key of the local file *path*: *location* replaces the leading part *over* of the path.

    *over* may be spelled in several ways: ``./data``, ``data``, ``data/`` and the absolute path are the same.
    *names* are pairs of an alternative name of a directory and its path; paths and *over* may start with either, and
    *over* may also be a parent of such a name. Without *over*, the key is *location* and the path as given, without
    a leading ``/`` or ``./``. Raise `InvalidKeyError` if *path* is not below *over*, or the key is invalid.

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
        rest = relative_to(_renamed_absolute(path, cwd, names), _renamed_absolute(over, cwd, names))
        for name, own in names if rest is None else ():
            rest = relative_to(
                _renamed_absolute(path, cwd, [(own, name)]), _renamed_absolute(over, cwd, [(own, name)])
            )
            if rest is not None:
                break
        if rest is None:
            raise InvalidKeyError(
                f"{path!r} is not below mapLocationOver {over[:MAX_KEY_BYTES]!r}", local=path
            )
    else:
        rest = os.path.normpath(path).lstrip("/")
        if rest.split("/", 1)[0] == ".." and is_unicode(rest):
            raise InvalidKeyError(
                f"{path!r} is above the current directory: give mapLocationOver, the leading part of the path that"
                " inLocation replaces",
                key=join(location, rest),
            )
    return check_key(join(location, rest))


def _renamed_absolute(path: str, cwd: str, names: Sequence[tuple[str, str]]) -> str:
    absolute = os.path.normpath(os.path.join(cwd, path))
    for name, own in names:
        rest = relative_to(absolute, name)
        if rest is not None:
            return join(own, rest)
    return absolute


def is_unicode(text: str) -> bool:
    """Return whether *text* has no lone surrogate. JSON and local names can contain one, but no key can."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def check_key(key: str) -> str:
    """Return *key*, or raise `InvalidKeyError` if not every store can hold it.

    Swift limits a name to 1024 bytes of UTF-8 without NUL (API reference, "Object name"). It accepts the components
    ``.`` and ``..``, but a file system does not preserve them.
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
    """Return *location*, or raise `InvalidKeyError` if it is too long for keys below it.

    With this check, a long location causes one error. Otherwise, the error of each key would repeat it.
    """
    length = len(location.encode(errors="surrogatepass"))
    if length > MAX_KEY_BYTES:
        raise InvalidKeyError(
            f"a key has at most {MAX_KEY_BYTES} bytes, and the location that is given for all has {length}: shorten it"
        )
    return location


def check_new_key(key: str) -> str:
    """Return *key*, or raise `InvalidKeyError` if pfstorage does not create such a key.

    These are the keys that `check_key` rejects, and keys with an empty component: for a file system, ``a//b`` and
    ``a/b`` are the same path.
    """
    if "" in check_key(key).removesuffix("/").split("/"):
        raise InvalidKeyError(
            f"the key {key!r} has an empty component: leave out the slash at its beginning, or one of two",
            key=key,
        )
    return key


def local_parts(rest: str, key: str) -> tuple[str, ...]:
    """Return the components of *rest*, the local path of *key* below the target directory.

    Raise `InvalidKeyError` for a path that would leave the target, or could be the path of another key: with
    ``..``, ``.``, NUL, a leading or a double slash, or a component that is too long.

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
    """Return whether *key* ends in a slash: tools create such empty objects for empty directories."""
    return key.endswith("/")
