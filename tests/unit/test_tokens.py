"""The file of tokens: its formats, the tokens that it accepts, and its changes."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
from pathlib import Path

import pytest

from pfstorage.access.permissions import Permissions
from pfstorage.errors import SettingsError, UnauthorizedError
from pfstorage.server import tokens
from pfstorage.server.tokens import Grant, TokenFile, make_token
from pfstorage.wire.status import status_of

ANN, BOB, ODD = "ann-0123456789abcdef", "bob-0123456789abcdef", "clé-日本-%(x)s=#;0123456789"
INI = f"""\
[AUTH TOKENS]
Ann = {ANN}
bob:2 = {BOB}
odd one = {ODD}
"""
RIGHTS = """
[TOKEN RIGHTS]
bob:2 = write chris/feed_12/
Ann = read
odd one = admin My Files/
"""


def file_of(text: str | bytes, name: str = "tokens.cfg", mode: int = 0o600) -> str:
    path = Path(name)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return name


def bearer(token: str) -> str:
    """Return the header as `http.client` reads it off the wire."""
    return f"Bearer {token}".encode().decode("latin-1")


def grant_of(path: str, token: str) -> Grant:
    return TokenFile(path).grant(bearer(token))


def is_accepted(file: TokenFile, token: str) -> bool:
    try:
        file.grant(bearer(token))
    except UnauthorizedError:
        return False
    return True


@pytest.fixture
def aged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat each file as unchanged for a while, so that only its status counts."""
    monkeypatch.setattr(tokens, "FRESH_NS", 0)


# formats


def test_an_ini_file_names_its_tokens_and_their_rights() -> None:
    path = file_of(INI + RIGHTS)
    assert grant_of(path, ANN) == Grant("Ann", Permissions("read"))
    assert grant_of(path, BOB) == Grant("bob:2", Permissions("write", "chris/feed_12/"))
    assert grant_of(path, ODD) == Grant("odd one", Permissions("admin", "My Files/"))


def test_without_rights_each_token_may_write_and_not_administer() -> None:
    assert grant_of(file_of(INI), ANN) == Grant("Ann", Permissions("write"))
    assert grant_of(file_of(f"{ANN}\n", "tokens"), ANN).permissions == Permissions("write")


@pytest.mark.parametrize("name", ["tokens", "tokens.txt", "tokens.CFG"])
def test_any_other_file_has_a_token_a_line(name: str) -> None:
    path = file_of(f"# ours\n\n{ANN}\r\n  {BOB}  \n#{'x' * 20}\n{ODD}\n", name)
    file = TokenFile(path)
    assert file.secrets() == {ANN, BOB, ODD}
    assert file.grant(bearer(BOB)).permissions == Permissions("write")
    assert not is_accepted(file, "x" * 20)
    assert not is_accepted(file, f"#{'x' * 20}")


@pytest.mark.parametrize("text", [INI, INI + RIGHTS, f"{ANN}\n[x]\n", f"{ANN}\nb = {BOB}\n"])
def test_an_ini_file_by_another_name_is_no_list_of_tokens(text: str) -> None:
    with pytest.raises(SettingsError, match=r"\.cfg"):
        TokenFile(file_of(text, "tokens"))


def test_a_token_is_revoked_by_its_line_alone(caplog: pytest.LogCaptureFixture) -> None:
    file = TokenFile(file_of(INI + RIGHTS))
    file_of(INI.replace(f"Ann = {ANN}\n", "") + RIGHTS)
    file.reload()
    assert not is_accepted(file, ANN)
    assert file.grant(bearer(BOB)).permissions == Permissions("write", "chris/feed_12/")
    for _ in range(3):  # it was changed just now, and is read each time
        assert not is_accepted(file, ANN)
    assert [record.message for record in caplog.records] == [
        "'tokens.cfg': these names in [TOKEN RIGHTS] have no token: Ann"
    ]


def test_a_token_without_a_name_keeps_the_one_it_is_given() -> None:
    name = grant_of(file_of(f"{ANN}\n{BOB}\n", "tokens"), BOB).name
    assert re.fullmatch("token [0-9a-f]{8}", name)
    assert grant_of(file_of(f"{BOB}\n", "tokens"), BOB).name == name
    assert grant_of(file_of(f"{ANN}\n", "tokens"), ANN).name != name


@pytest.mark.parametrize("name", ["tokens", "tokens.cfg"])
def test_a_mark_of_the_byte_order_is_no_part_of_a_token(name: str) -> None:
    text = INI if name.endswith(".cfg") else f"{ANN}\n"
    assert is_accepted(TokenFile(file_of("\ufeff" + text, name)), ANN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (INI + RIGHTS.replace("Ann = read\n", ""), r"line 2: .*the section \[TOKEN RIGHTS\] lacks Ann$"),
        (INI + RIGHTS.replace("Ann", "ann"), r"the section \[TOKEN RIGHTS\] lacks Ann$"),
        (INI + RIGHTS.replace("Ann", "Anm"), r"the section \[TOKEN RIGHTS\] lacks Ann$"),
        (INI + "[TOKEN RIGHTS]\n", r"\[TOKEN RIGHTS\] lacks Ann, bob:2, odd one$"),
        *(
            (
                INI + RIGHTS.replace("[TOKEN RIGHTS]", title),
                r"line 6: an unknown section: use \[AUTH TOKENS\] and",
            )
            for title in (
                *("[TOKEN RIGHT]", "[token rights]", "[Token Rights]", "[TOKENS RIGHTS]", "[TOKEN  RIGHTS]"),
                *(
                    "[ TOKEN RIGHTS ]",
                    "[TOKEN RIGHTS",
                    "[TOKEN RIGHTS]]",
                    "[TOKEN RIGHTS] # ours",
                    "[RIGHTS]",
                    "[]",
                ),
            )
        ),
        (INI + RIGHTS.replace("[TOKEN RIGHTS]", "TOKEN RIGHTS"), "line 6: not a line of an INI file"),
        (INI + RIGHTS.replace("[TOKEN RIGHTS]", " [TOKEN RIGHTS]"), "line 6: the line begins with a blank"),
        (
            INI + RIGHTS.replace("[TOKEN RIGHTS]", "\N{NO-BREAK SPACE}[TOKEN RIGHTS]"),
            "line 6: the line has a control",
        ),
        (f"[DEFAULT]\nall = {'d' * 20}\n{INI}", "line 1: an unknown section"),
        (INI + RIGHTS.replace("= read", f"= {ANN}"), "line 8: rights are one of read, write, admin"),
        (INI + RIGHTS.replace("= read", "= Read"), "line 8: rights are one of read, write, admin"),
        (INI + RIGHTS.replace("= read", "= read, write"), "line 8: rights are one of read, write, admin"),
        (INI + RIGHTS.replace("= read", "="), "line 8: rights are one of read, write, admin"),
        (INI + RIGHTS.replace("= read", ": read"), "line 8: not a line of an INI file"),
        (INI + RIGHTS.replace("= read", "= read\n  x"), "line 9: the line begins with a blank: remove it"),
        (
            INI + RIGHTS.replace("= read", "= read /chris"),
            "line 8: a key prefix is a plain text like 'chris/feed_12/'",
        ),
        (INI + RIGHTS.replace("= read", "= read chris/../"), "line 8: a key prefix is"),
        (
            INI + RIGHTS.replace("= read", "= read expires=2030-01-01"),
            "line 8: move 'expires=' behind the token",
        ),
        (
            INI + RIGHTS.replace("= read", "= read a/ expires=2030-01-01"),
            "line 8: move 'expires=' behind the token",
        ),
        (
            INI + RIGHTS.replace("= read", "= read a/ Expires: 2030-01-01"),
            "line 8: move 'expires=' behind the token",
        ),
        (INI + RIGHTS.replace("= read", "= read a/ # ours"), "line 8: .*write a comment on a separate line"),
        (INI + RIGHTS.replace("= read", "= read ; ours"), "line 8: .*write a comment on a separate line"),
        *(
            (INI + f"eve = {word}\n", "line 5: the token is a keyword of token files")
            for word in ("read", "admin")
        ),
        (INI + "eve = expires=2030-12-31\n", "line 5: the token is a keyword of token files"),
        (INI + f"eve = {ANN}2,expires=2030-12-31\n", "line 5: the token is a keyword of token files"),
        (INI + f"eve = {ANN}2;Expires:2030-12-31\n", "line 5: the token is a keyword of token files"),
        *(
            (
                INI + f"eve = {like}{'0' * 64}\n",
                "line 5: the hash is not supported: write 'sha256:' and 64 hexadecimal digits",
            )
            for like in ("sha:", "SHA256=", "{SHA256}", "{ssha}", "$5$salt$", "$2b$12$", "$argon2id$v=19$")
        ),
        *(
            (INI + f"eve = {ANN}2 expires={when}\n", "line 5: 'expires' takes a date")
            for when in ("0001-01-01T00:00+14:00", "9999-12-31T23:00-02:00")
        ),
        (INI + "eve =\n", "line 5: write 'NAME = TOKEN'"),
        (INI + f" eve = {ANN}2\n", "line 5: the line begins with a blank"),
        (INI + f"eve = {ANN}\n", "line 5: the token is in the file twice"),
        (INI + f"eve = {ANN} or {BOB}2\n", "line 5: write .*; a token has no blank"),
        (INI + f"Ann = {ANN}2\n", "line 5: the name is in the section twice"),
        (INI + INI, "line 5: the section is in the file twice"),
        (INI + RIGHTS + "Ann = admin\n", "line 10: the name is in the section twice"),
        (INI + RIGHTS + RIGHTS, "line 11: the section is in the file twice"),
        ("[AUTH TOKENS]\n", "has no token: 'pfstorage --makeToken' makes one"),
        ("[auth tokens]\n" + INI.partition("\n")[2], "line 1: an unknown section"),
        (f"{ANN}\n", "line 1: not a line of an INI file"),
        (f"[AUTH TOKENS]\n{ANN}\n", "line 2: not a line of an INI file"),
        ("", r"no section \[AUTH TOKENS\]"),
        (RIGHTS, r"no section \[AUTH TOKENS\]"),
        (INI + RIGHTS[:-1], "line 9: the file ends in the middle of this line"),
        (INI + RIGHTS + "Ann = ad", "line 10: the file ends in the middle of this line"),
        (INI + "\0" * 100 + "\n", "line 5: the line has a control character"),
        (INI.encode("utf-16"), "it is not UTF-8"),
        (INI + "#" * 2**20, "not a token file: such a file has at most 1048576 bytes"),
    ],
)
def test_a_wrong_ini_file_is_refused_with_its_line_and_the_mistake(text: str | bytes, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected) as caught:
        TokenFile(file_of(text))
    assert "tokens.cfg" in str(caught.value)
    assert "0123456789" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no token"),
        ("# none\n\n", "no token"),
        (f"{ANN}\n{BOB}\n{ANN}\n", "line 3: the token is in the file twice"),
        (f"{ANN}\n{BOB}", "line 2: the file ends in the middle of this line"),
        (f"{ANN}\n{BOB[:5]}", "line 2: the file ends in the middle of this line"),
        (
            f"{ANN}\nsha256:{'a' * 63}\n",
            "line 2: the hash is not supported: write 'sha256:' and 64 hexadecimal digits",
        ),
        (
            f"{ANN}\nsha512:{'a' * 128}\n",
            "line 2: the hash is not supported: write 'sha256:' and 64 hexadecimal digits",
        ),
        (f"{ANN} expires=tomorrow\n", "line 1: 'expires' takes a date"),
        (f"{ANN} expires=\n", "line 1: write .*; a token has no blank"),
        (f"{ANN} until=2030-01-01\n", "line 1: write .*; a token has no blank"),
        (f"{ANN} expires=2030-02-30\n", "line 1: 'expires' takes a date"),
        (b"\xff" * 20, "UTF-8"),
    ],
)
def test_a_wrong_list_of_tokens_is_refused_with_the_mistake(text: str | bytes, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected) as caught:
        TokenFile(file_of(text, "tokens"))
    assert "0123456789" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620, 0o644, 0o666])
def test_a_file_that_others_can_read_is_refused_with_the_command_to_run(mode: int) -> None:
    with pytest.raises(SettingsError, match=re.escape("run  chmod 600 'my tokens'")):
        TokenFile(file_of(f"{ANN}\n", "my tokens", mode))


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640, 0o700])
def test_a_file_for_its_owner_and_readers_of_its_group_is_taken(mode: int) -> None:
    assert is_accepted(TokenFile(file_of(f"{ANN}\n", "tokens", mode)), ANN)


def test_a_path_that_is_no_regular_file_is_refused_without_waiting() -> None:
    os.mkfifo("pipe", 0o600)
    os.mkdir("directory.cfg", 0o700)
    with pytest.raises(SettingsError, match="'missing': No such file"):
        TokenFile("missing")
    with pytest.raises(SettingsError, match="not a token file"):
        TokenFile("pipe")
    with pytest.raises(SettingsError, match="directory"):
        TokenFile("directory.cfg")


def test_a_short_token_is_warned_of_once_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    path = file_of("[AUTH TOKENS]\nAnn = fifteen-letters\nBob = sixteen--letters\n")
    file = TokenFile(path)
    for _ in range(3):
        assert is_accepted(file, "fifteen-letters")
    file.reload()
    assert [record.message for record in caplog.records] == [
        "'tokens.cfg': these tokens are too short to be safe: Ann"
    ]


# accepted tokens


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", " \tbearer "])
def test_a_request_with_a_token_is_accepted(scheme: str) -> None:
    assert TokenFile(file_of(INI)).grant(f"{scheme} {ANN}\t ").name == "Ann"


@pytest.mark.parametrize("last", "àé🩻")
def test_a_token_ends_with_any_letter(last: str) -> None:
    """Letters with a byte in UTF-8 that is a blank in Latin-1, such as A0 of U+00E0."""
    token = f"0123456789abcdef{last}"
    assert is_accepted(TokenFile(file_of(f"{token}\n", "tokens")), token)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        ANN,
        f"Basic {ANN}",
        f"Bearer{ANN}",
        f"Bearer={ANN}",
        f"Bearer {ANN}x",
        f"Bearer {ANN[:-1]}",
        f"Bearer {ANN.upper()}",
        f"Bearer {ANN},{BOB}",
        f"Bearer {ANN}\0",
        "Bearer Ann",
        f"Bearer {ODD}",  # its bytes on the wire differ
        "Bearer \ud800",
        "Bearer " + "x" * 100_000,
    ],
)
def test_other_tokens_are_refused_without_a_reason(header: str | None) -> None:
    with pytest.raises(UnauthorizedError) as caught:
        TokenFile(file_of(INI)).grant(header)
    assert "0123456789" not in str(caught.value)
    assert status_of(caught.value) == 401


def test_all_tokens_are_compared_whichever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    file, compared = TokenFile(file_of(INI)), []
    compare = tokens.hmac.compare_digest
    monkeypatch.setattr(
        tokens.hmac, "compare_digest", lambda a, b: (compared.append((len(a), len(b))), compare(a, b))[1]
    )
    for token in (ANN, BOB, ODD, "nobody"):
        compared.clear()
        is_accepted(file, token)
        assert compared == [(32, 32)] * 3


def test_a_made_token_is_random_and_needs_no_quoting() -> None:
    made = {make_token() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch("[A-Za-z0-9_-]{43}", token) for token in made)
    assert is_accepted(TokenFile(file_of("\n".join([*made, ""]), "tokens")), made.pop())


def test_no_token_is_shown() -> None:
    file = TokenFile(file_of(INI))
    assert repr(file) == "TokenFile('tokens.cfg')"
    assert ANN not in repr(file.grant(bearer(ANN)))
    assert file.secrets() == {ANN, BOB, ODD}


# changes of the file


@pytest.mark.parametrize("way", ["in place", "renamed", "same size"])
def test_a_token_ends_with_its_line_and_begins_with_it(way: str, aged: None) -> None:
    file = TokenFile(file_of(INI))
    assert (is_accepted(file, ANN), is_accepted(file, "new-0123456789abcdef")) == (True, False)
    after = INI.replace(ANN, "new-0123456789abcdef") + ("" if way == "same size" else "# more\n")
    if way == "renamed":
        os.replace(file_of(after, "other"), "tokens.cfg")
    else:
        before = os.stat("tokens.cfg").st_ctime_ns
        while os.stat("tokens.cfg").st_ctime_ns == before:  # the clock of the file system ticks
            file_of(after)
    assert (is_accepted(file, ANN), is_accepted(file, "new-0123456789abcdef")) == (False, True)
    assert ANN not in file.secrets()


def test_a_change_that_the_status_does_not_show_is_seen_while_the_file_is_fresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two changes within a tick of its clock leave the same times, and the same size if they have as many bytes."""
    monkeypatch.setattr(tokens, "_version_of", lambda status: (1,))
    file = TokenFile(file_of(INI))
    assert is_accepted(file, ANN)
    file_of(INI.replace(ANN, "new-0123456789abcdef"))
    assert (is_accepted(file, ANN), is_accepted(file, "new-0123456789abcdef")) == (False, True)


def test_a_file_that_has_not_changed_is_not_read_again(aged: None, monkeypatch: pytest.MonkeyPatch) -> None:
    file = TokenFile(file_of(INI))
    monkeypatch.setattr(tokens, "_read_token_file", lambda path: pytest.fail("it was read again"))
    assert is_accepted(file, ANN)


BREAKS = {
    "gone": lambda: os.unlink("tokens.cfg"),
    "open to others": lambda: os.chmod("tokens.cfg", 0o644),
    "a directory": lambda: (os.unlink("tokens.cfg"), os.mkdir("tokens.cfg", 0o700)),
}


@pytest.mark.parametrize("way", BREAKS)
def test_all_tokens_are_refused_while_the_file_can_not_be_read(
    way: str, aged: None, caplog: pytest.LogCaptureFixture
) -> None:
    file = TokenFile(file_of(INI))
    assert is_accepted(file, ANN)
    BREAKS[way]()
    assert not any(is_accepted(file, token) for token in (ANN, BOB, ODD, ANN))
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "no token is valid any more" in record.message
    assert "0123456789" not in caplog.text
    assert file.secrets() == {ANN, BOB, ODD}  # they may be good again
    if way == "a directory":
        os.rmdir("tokens.cfg")
    file_of(INI)
    assert is_accepted(file, ANN)
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]


def test_another_reason_is_reported_too(caplog: pytest.LogCaptureFixture) -> None:
    file = TokenFile(file_of(INI))
    BREAKS["open to others"]()
    assert not is_accepted(file, ANN)
    file_of("")  # a file that was never good again is not trusted more
    assert not is_accepted(file, ANN)
    BREAKS["gone"]()
    for _ in range(2):
        assert not is_accepted(file, ANN)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3


REFUSED = {
    "a typo in a section": INI + RIGHTS.replace("RIGHTS]", "RIGHT]"),
    "small letters": INI + RIGHTS.replace("[TOKEN RIGHTS]", "[token rights]"),
    "no line of rights": INI + RIGHTS.replace("Ann = read\n", ""),
    "an unknown right": INI + RIGHTS.replace("read", "reed"),
    "cut in the middle of a line": (INI + RIGHTS)[:-5],
    "cut before the rights": INI,
    "cut in the tokens": INI[:40],
    "empty": "",
    "of another encoding": (INI + RIGHTS).encode("utf-16"),
    "a name without a token": f"[AUTH TOKENS]\nAnn = {ANN}\nBob\n",
    "too large": INI + RIGHTS + "#" * 2**20 + "\n",
}


@pytest.mark.parametrize("way", REFUSED)
def test_a_file_that_is_not_valid_leaves_the_old_one_in_force_with_one_warning(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = TokenFile(file_of(INI + RIGHTS))
    file_of(REFUSED[way])
    for _ in range(3):
        assert file.grant(bearer(ANN)) == Grant("Ann", Permissions("read"))
        assert file.grant(bearer(BOB)) == Grant("bob:2", Permissions("write", "chris/feed_12/"))
        assert not is_accepted(file, "nobody")
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "the previous tokens stay valid: " in record.message
    assert "tokens.cfg" in record.message
    assert "0123456789" not in caplog.text
    file_of(INI.replace(ANN, "new-0123456789abcdef") + RIGHTS)
    assert (is_accepted(file, ANN), is_accepted(file, "new-0123456789abcdef")) == (False, True)


@pytest.mark.parametrize(
    "first", [INI.replace("[AUTH TOKENS]", "[AUTH]"), "x", b"\xff\n", "#" * 2**20 + "\n"]
)
@pytest.mark.parametrize("second", [INI.replace("[AUTH TOKENS]", "[TOKENS]"), "yy", b"\xff\xff\n"])
def test_each_mistake_in_a_file_is_warned_of_once(
    aged: None, caplog: pytest.LogCaptureFixture, first: str | bytes, second: str | bytes
) -> None:
    file = TokenFile(file_of(INI + RIGHTS))
    for number, text in enumerate((first, second, first), 1):
        file_of(text)
        for _ in range(3):
            assert is_accepted(file, ANN)
        assert len(caplog.records) == number
    os.utime("tokens.cfg")
    assert is_accepted(file, ANN)
    assert len(caplog.records) == 3


def test_a_mistake_is_warned_of_when_the_file_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = TokenFile(file_of(INI + RIGHTS))
    monkeypatch.setattr(tokens, "FRESH_NS", 60_000_000_000)
    for text in (b"[AUTH]\n", b"\xff\n"):
        file_of(text)
        assert is_accepted(file, ANN)
    assert len(caplog.records) == 1
    monkeypatch.setattr(tokens, "FRESH_NS", 0)
    for _ in range(3):
        assert is_accepted(file, ANN)
    assert "it is not UTF-8" in caplog.records[-1].message
    assert len(caplog.records) == 2


def test_a_file_that_is_written_line_by_line_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tokens, "FRESH_NS", 60_000_000_000)
    whole = INI + RIGHTS
    file = TokenFile(file_of(whole))
    for end in range(len(whole) - 1):
        file_of(whole[:end])
        try:
            assert file.grant(bearer(ANN)).permissions == Permissions("read"), whole[:end]
            assert file.grant(bearer(BOB)).permissions == Permissions("write", "chris/feed_12/"), whole[:end]
        except (
            UnauthorizedError
        ):  # a file that is cut between two lines may be a file without the other lines
            pytest.fail(f"kept out at {end}")
    assert len(caplog.records) == 1


def test_a_running_server_rejects_a_file_that_lost_its_rights_section(aged: None) -> None:
    file = TokenFile(file_of(INI + RIGHTS))
    file_of(INI)
    file.reload()
    assert file.grant(bearer(ANN)).permissions == Permissions("read")
    assert grant_of("tokens.cfg", ANN).permissions == Permissions("write")
    os.unlink("tokens.cfg")
    assert not is_accepted(file, ANN)
    file_of(INI)  # the content of a file that is being rewritten, for a moment
    assert not is_accepted(file, ANN)
    file_of(INI + RIGHTS)
    assert file.grant(bearer(ANN)).permissions == Permissions("read")


def test_other_tokens_without_rights_are_taken_at_once() -> None:
    file = TokenFile(file_of(INI + RIGHTS))
    file_of("[AUTH TOKENS]\neve = eve-0123456789abcdef\n")
    assert (is_accepted(file, ANN), is_accepted(file, "eve-0123456789abcdef")) == (False, True)


def test_a_file_whose_name_goes_to_another_while_it_is_read_is_read_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file, check = TokenFile(file_of(INI + RIGHTS)), tokens._check_status

    def replace(path: str, status: os.stat_result) -> None:
        check(path, status)
        if os.path.exists("other"):
            os.replace("other", path)

    file_of(INI + RIGHTS)
    file_of(INI.replace(ANN, "new-0123456789abcdef") + RIGHTS, "other")
    monkeypatch.setattr(tokens, "_check_status", replace)
    assert (is_accepted(file, "new-0123456789abcdef"), is_accepted(file, ANN)) == (True, False)
    assert caplog.records == []


def test_a_file_that_changes_while_it_is_read_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = TokenFile(file_of(INI + RIGHTS))
    check = tokens._check_status

    def write_on(path: str, status: os.stat_result) -> None:
        check(path, status)
        with open(path, "a") as written:
            written.write("eve = admin\n")

    file_of(INI)
    monkeypatch.setattr(tokens, "_check_status", write_on)
    assert file.grant(bearer(ANN)).permissions == Permissions("read")
    assert "is written while it is read" in caplog.text


def test_a_file_that_is_rewritten_in_place_never_gives_more_rights() -> None:
    path = file_of(INI + RIGHTS)
    file, ends, errors = TokenFile(path), threading.Event(), []

    def send_token() -> None:
        while not ends.is_set():
            for token, permissions in (
                (ANN, Permissions("read")),
                (BOB, Permissions("write", "chris/feed_12/")),
            ):
                if (given := file.grant(bearer(token)).permissions) != permissions:
                    errors.append(given)

    thread = threading.Thread(target=send_token)
    thread.start()
    try:
        for _ in range(200):
            with open(path, "w") as written:
                for line in (INI + RIGHTS).splitlines(keepends=True):
                    written.write(line)
                    written.flush()
    finally:
        ends.set()
        thread.join()
    assert errors == []


# hashes and ends


def hashed(token: str) -> str:
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


@pytest.mark.parametrize("name", ["tokens", "tokens.cfg"])
def test_a_token_may_be_on_file_as_its_hash(name: str) -> None:
    head = "[AUTH TOKENS]\nodd = " if name.endswith(".cfg") else ""
    file = TokenFile(file_of(f"{head}{hashed(ODD)}\n", name))
    assert file.grant(bearer(ODD)).permissions == Permissions("write")
    for wrong in (hashed(ODD), hashed(ODD).partition(":")[2], hashed(ODD).upper(), ODD[1:]):
        assert not is_accepted(file, wrong)


def test_a_hash_in_capitals_is_the_same_and_twice_is_refused() -> None:
    assert is_accepted(TokenFile(file_of(f"{hashed(ANN).upper()}\n", "tokens")), ANN)
    with pytest.raises(SettingsError, match="line 2: the token is in the file twice"):
        TokenFile(file_of(f"{ANN}\n{hashed(ANN)}\n", "tokens"))


def test_a_token_whose_hash_is_on_file_is_known_as_a_secret_once_it_was_sent() -> None:
    file = TokenFile(file_of(f"{hashed(ODD)}\n{BOB}\n", "tokens"))
    assert file.secrets() == {BOB}
    assert not is_accepted(file, "nobody-0123456789")
    assert file.secrets() == {BOB}
    assert is_accepted(file, ODD)
    assert file.secrets() == {BOB, ODD}
    file_of(f"{BOB}\n", "tokens")
    assert not is_accepted(file, ODD)
    assert file.secrets() == {BOB}


@pytest.mark.parametrize(
    ("when", "is_over"),
    [
        ("2000-01-01", True),
        ("2000-01-01T12:00Z", True),
        ("2000-01-01 12:00:00", True),
        ("2999-12-31", False),
        ("2999-12-31T23:59:59z", False),
        ("2999-12-31T12:00:00+02:00", False),
    ],
)
@pytest.mark.parametrize("token", [ANN, hashed(ANN)])
def test_a_token_is_worth_nothing_from_its_end_on(when: str, is_over: bool, token: str) -> None:
    file = TokenFile(file_of(f"[AUTH TOKENS]\nAnn = {token} expires={when}\nbob = {BOB}\n"))
    assert is_accepted(file, BOB)
    if not is_over:
        assert file.grant(bearer(ANN)).name == "Ann"
        return
    with pytest.raises(UnauthorizedError, match="this token has expired, at 2000-01-01T"):
        file.grant(bearer(ANN))


def test_a_token_ends_while_the_server_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    file = TokenFile(file_of(f"{ANN} expires=2030-01-01T00:00:00Z\n", "tokens"))
    monkeypatch.setattr(tokens.time, "time", lambda: 1893456000 - 0.1)
    assert is_accepted(file, ANN)
    monkeypatch.setattr(tokens.time, "time", lambda: 1893456000.0)
    assert not is_accepted(file, ANN)


def test_reload_reads_the_file_and_never_raises(
    aged: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_version_of", lambda status: (1,))  # no change is seen
    file = TokenFile(file_of(INI))
    file_of(INI.replace(ANN, "new-0123456789abcdef"))
    assert is_accepted(file, ANN)
    file.reload()
    assert (is_accepted(file, ANN), is_accepted(file, "new-0123456789abcdef")) == (False, True)
    os.unlink("tokens.cfg")
    file.reload()
    assert "no token is valid any more" in caplog.text
    assert not is_accepted(file, BOB)


def test_many_threads_are_accepted_while_the_file_changes() -> None:
    file, stays, errors = TokenFile(file_of(INI)), threading.Event(), []

    def send_token() -> None:
        while not stays.is_set():
            if not is_accepted(file, ANN) or is_accepted(file, "nobody"):
                errors.append("Ann was kept out, or nobody let in")

    threads = [threading.Thread(target=send_token) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for permit in range(50):
            os.replace(file_of(f"{INI}t{permit} = {permit:020}\n", "other"), "tokens.cfg")
            assert is_accepted(file, f"{permit:020}")
            assert permit == 0 or not is_accepted(file, f"{permit - 1:020}")
    finally:
        stays.set()
        for thread in threads:
            thread.join()
    assert errors == []


def test_a_file_that_has_more_tokens_than_it_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems report a size of 0 for files that are not empty."""
    from pfstorage.server import tokens

    path = tmp_path / "many"
    path.write_text("token-of-some-length\n" * 100)
    path.chmod(0o600)
    monkeypatch.setattr(tokens, "MAX_BYTES", 100)
    monkeypatch.setattr(tokens, "_check_status", lambda *_: None)
    with pytest.raises(SettingsError, match="not a token file"):
        tokens.TokenFile(str(path))
