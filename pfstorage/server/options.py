"""Options of the server, apart from the settings of the store."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pfstorage.errors import SettingsError
from pfstorage.jobs.model import JobLimits
from pfstorage.settings.flag import MAX_COUNT
from pfstorage.settings.flags import SERVER_FLAGS
from pfstorage.settings.model import size_of
from pfstorage.settings.redaction import without_password
from pfstorage.settings.sources import server_settings
from pfstorage.settings.values import FileTooLongError, read_file
from pfstorage.transfer.concurrency import AUTO_MAX, free_descriptors, max_workers
from pfstorage.wire.fields import FieldError, read_fields, read_value, wire_fields

log = logging.getLogger(__name__)

# default limit of an upload, in bytes
MAX_UPLOAD = 16 * 1024**3
_DNS_NAME = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"
# As browsers write an origin (RFC 6454, 6.2). "null" is not an origin: any page may have it.
_ORIGIN = re.compile(
    rf"(?!http:.*:80$|https:.*:443$)[a-z][a-z0-9+.-]*://(?:{_DNS_NAME}|\[[0-9a-f:.]+\])(?::[0-9]{{1,5}})?"
)
_HOST_NAME = re.compile(rf"{_DNS_NAME}|[0-9a-f]*:[0-9a-f]*:[0-9a-f:.]*")


_COUNT = {"minimum": 1, "maximum": MAX_COUNT}


def _count_field(default: float) -> Any:
    return field(default=default, metadata={"schema": _COUNT})


def _repeatable(flag: str) -> Any:
    return field(default=(), metadata={"aliases": (flag,)})


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """The options of a server: its clients, its files and its limits. Times are in seconds, sizes in bytes.

    *token_path* names the file of tokens. Without it, the server accepts every client that can reach it; at an
    address that is not a loopback one, that needs *allow_anonymous*.
    *fs_roots* are the directories for the local files of messages. Messages may not access *secret_files* (by the
    names of their flags) and the other files that are named here. The server accepts pages of *cors_origins*, and
    requests to the names *allow_hosts* of this host. Jobs are kept in *state_dir*; without it, they end with the
    server. If the file of the jobs is damaged, *repair_state* renames it and begins a new one.

    *head_seconds* bounds the wait for the first byte of a new connection, and for the rest of a head.
    *idle_seconds* bounds the wait for the next request. A client must send a body, and must read a response, at
    *min_rate* bytes a second; at `http1.connection.SPEED_UP` times that rate while another client waits for its
    place. The events of a job are streamed for *stream_seconds*, in *max_streams* streams at once per token. Uploads
    on the disk take *max_spool* bytes, or twice *max_upload* if that is 0.
    """

    token_path: str = ""
    allow_anonymous: bool = False
    tls_cert: str = ""
    tls_key: str = ""
    fs_roots: tuple[str, ...] = _repeatable("fsRoot")
    secret_files: Mapping[str, Any] = field(default_factory=dict)
    cors_origins: tuple[str, ...] = _repeatable("corsOrigin")
    allow_hosts: tuple[str, ...] = _repeatable("allowHost")
    max_upload: int = MAX_UPLOAD
    max_spool: int = 0
    max_connections: int = _count_field(256)
    max_requests: int = _count_field(32)
    max_streams: int = _count_field(32)
    stream_seconds: float = field(
        default=600.0, metadata={"aliases": ("maxStreamSeconds",), "schema": _COUNT}
    )
    max_workers: int = _count_field(AUTO_MAX)
    max_rows: int = _count_field(0)
    grace_seconds: float = _count_field(30.0)
    head_seconds: float = 10.0
    idle_seconds: float = 60.0
    min_rate: float = 4096
    state_dir: str = ""
    job_ttl: float = _count_field(JobLimits.ttl)
    max_jobs: int = _count_field(JobLimits.max_running)
    max_jobs_per_token: int = _count_field(0)
    max_job_bytes: int = JobLimits.max_bytes_per_owner
    repair_state: bool = False
    log_format: str = field(default="text", metadata={"schema": {"enum": ["text", "json"]}})

    @classmethod
    def from_args(cls, args: Mapping[str, Any], **more: Any) -> ServerOptions:
        """Make options from the ``vars`` of parsed flags and their configuration file; *more* are further fields.

        Raise `SettingsError`.
        """
        given = server_settings(args)
        try:
            wants_tokens = read_value("enableTokenAuth", bool, given.pop("enableTokenAuth", False))
            sizes = {flag.name for flag in SERVER_FLAGS if flag.kind == "size"}
            given |= {name: _byte_count(name, value) for name, value in given.items() if name in sizes}
            options = dataclasses.replace(read_fields(cls, given)[0], **more)
        except FieldError as e:
            raise SettingsError(f"settings, block 'server': {e.without_value}") from None
        _check_pages(options.cors_origins, options.allow_hosts)
        if wants_tokens and not options.token_path:
            raise SettingsError("--enableTokenAuth needs --tokenPath FILE, the file of the tokens")
        if options.token_path and not wants_tokens:
            raise SettingsError("--tokenPath needs --enableTokenAuth: add that flag")
        if bool(options.tls_cert) != bool(options.tls_key):
            raise SettingsError("--tlsCert and --tlsKey need each other: give both")
        return options

    def differences(self, other: ServerOptions) -> list[str]:
        """Return the settings, like ``server.tokenPath``, that have another value in *other*."""
        known = {flag.key for flag in SERVER_FLAGS}
        return [
            f"server.{name}"
            for each in wire_fields(ServerOptions)
            for name in each.names
            if name in known and getattr(self, each.attribute) != getattr(other, each.attribute)
        ]

    def tls_context(self) -> ssl.SSLContext | None:
        """Return a TLS context (TLS 1.2 or later) with the certificate, or None without one. Raise `SettingsError`."""
        if not self.tls_cert:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            for path in (self.tls_cert, self.tls_key):
                _check_pem(path)
            # without a password function, OpenSSL would ask for the passphrase at the terminal
            context.load_cert_chain(self.tls_cert, self.tls_key, password=_no_passphrase)
        except (OSError, ValueError) as e:
            text = f"--tlsCert {self.tls_cert!r} and --tlsKey {self.tls_key!r} can't be used: {e}"
            if isinstance(e, ssl.SSLError):
                text += "; the first file must hold the certificate, the second its key (PEM)"
            raise SettingsError(text) from e
        return context

    def worker_limit(self, more_connections: int) -> int:
        """Return how many files all transfers together may move at once, within the limit of open files.

        The server has up to *more_connections* above its limit. Besides, there may be `max_requests` requests,
        transfers and uploads each, and each of these uses a connection to the store and a file.
        """
        others = self.max_connections + more_connections + 6 * self.max_requests
        limit = max_workers(free_descriptors() - others)
        if limit < self.max_workers:
            log.warning(
                "only %d files are moved at once, not %d (--maxWorkers): the limit of open files allows no more"
                " beside %d connections (--maxConnections), see ulimit -n",
                *(limit, self.max_workers, self.max_connections),
            )
        return min(limit, self.max_workers)

    def private_files(self) -> dict[str, str]:
        """Return the private files and directories of the server by their flags; "" means a missing one."""
        return {
            "--tokenPath": self.token_path,
            "--tlsCert": self.tls_cert,
            "--tlsKey": self.tls_key,
            "--stateDir": self.state_dir,
            **self.secret_files,
        }


def _byte_count(flag: str, size: object) -> int:
    try:
        return size_of(str(size))
    except ValueError as e:
        raise SettingsError(f"--{flag}: {e}") from None


def _check_pem(path: str) -> None:
    """Raise `OSError`, or `ValueError` for a file that OpenSSL would read without end, or without naming its error."""
    try:
        start = read_file(path)[:4]
    except FileTooLongError as e:
        raise ValueError(f"{path!r}: {e}") from None
    if json.detect_encoding(start) != "utf-8":
        raise ValueError(f"{path!r} begins with a byte order mark: save it as plain text without one")


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase: use a key without one that only its owner can read")


def _check_pages(origins: tuple[str, ...], hosts: tuple[str, ...]) -> None:
    """Raise `SettingsError` for an origin or a host that no browser sends, and for one that many pages have."""
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise SettingsError(
                f"--corsOrigin {without_password(origin)[:80]!r}: write an origin as browsers do, like https://chris.example.org:8443:"
                " in lower case, without a path, '*' or the default port of the scheme; 'null' may be any page"
            )
    for host in hosts:
        if not _HOST_NAME.fullmatch(host):
            raise SettingsError(
                f"--allowHost {without_password(host)[:80]!r}: write a name like store.example.org, in lower case,"
                " without a scheme, a port or '*'"
            )
