"""What configures the server, beside the settings of the store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pfstorage.errors import SettingsError
from pfstorage.jobs.model import JobLimits
from pfstorage.server.http1.body import MAX_UPLOAD
from pfstorage.settings.model import size_of
from pfstorage.transfer.rate import AUTO_MOST

WANTED = 16
_NAME = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"
_ORIGIN = re.compile(
    rf"(?!http:.*:80$|https:.*:443$)[a-z][a-z0-9+.-]*://(?:{_NAME}|\[[0-9a-f:.]+\])(?::[0-9]{{1,5}})?"
)
"""As browsers write it (RFC 6454, 6.2). ``null``, which any page may make its own, is none."""
_HOST = re.compile(rf"{_NAME}|[0-9a-f]*:[0-9a-f]*:[0-9a-f:.]*")


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How the server listens, whom it lets in, and how much it bears. Times are in seconds, sizes in bytes.

    *token_path* names the file of tokens; without one, anybody may come in who can reach
    the server, which on another address than a loopback one needs *allow_anonymous*.
    *fs_roots* are the directories that messages may name local files below; *secret_files* are
    closed to messages, each after its flag, beside those that are named here. Browsers may
    come from *cors_origins*, and by the names *allow_hosts* of this host. Jobs are kept in
    *state_dir*; without one, they end with the server. Where they can't be read, *repair_state* begins anew.

    A new connection is waited for *head_seconds* until its first byte comes, and so is the rest of a head;
    a kept one may be idle for *idle_seconds*. A body comes with *min_rate* bytes a second, and an answer is taken
    with as many; where another waits for its place, with `WANTED` times as many. The events of a job are streamed for
    *stream_seconds*, *max_streams* of them at once for one token. Uploads that lie on the disk have *max_spool* bytes,
    or twice *max_upload* if that is 0.
    """

    token_path: str = ""
    allow_anonymous: bool = False
    tls_cert: str = ""
    tls_key: str = ""
    fs_roots: tuple[str, ...] = ()
    secret_files: Mapping[str, str] = field(default_factory=dict)
    cors_origins: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    max_upload: int = MAX_UPLOAD
    max_spool: int = 0
    max_connections: int = 256
    max_requests: int = 32
    max_streams: int = 32
    stream_seconds: float = 600.0
    max_workers: int = AUTO_MOST
    max_rows: int = 0
    grace_seconds: float = 30.0
    head_seconds: float = 10.0
    idle_seconds: float = 60.0
    min_rate: float = 4096
    state_dir: str = ""
    job_ttl: float = JobLimits.ttl
    max_jobs: int = JobLimits.max_running
    max_jobs_per_token: int = 0
    max_job_bytes: int = JobLimits.max_bytes_per_owner
    repair_state: bool = False
    log_format: str = "text"

    @classmethod
    def from_args(cls, args: Mapping[str, Any], **more: Any) -> ServerOptions:
        """Make them of the ``vars`` of parsed flags, and of *more* of them. Raise `SettingsError`."""
        given = more | {name: args[flag] for flag, name in FLAGS.items() if args.get(flag)}
        for name in ("fs_roots", "cors_origins", "allow_hosts"):
            given[name] = tuple(given.get(name, ()))
        _check_pages(given["cors_origins"], given["allow_hosts"])
        for flag in ("maxUpload", "maxSpool", "maxJobBytes"):
            if (name := FLAGS[flag]) in given:
                try:
                    given[name] = size_of(given[name])
                except ValueError as e:
                    raise SettingsError(f"--{flag}: {e}") from None
        if args.get("b_enableTokenAuth") and not given.get("token_path"):
            raise SettingsError("--enableTokenAuth needs --tokenPath FILE, where the tokens are")
        if given.get("token_path") and not args.get("b_enableTokenAuth"):
            raise SettingsError("--tokenPath goes with --enableTokenAuth")
        if bool(given.get("tls_cert")) != bool(given.get("tls_key")):
            raise SettingsError("--tlsCert and --tlsKey go together")
        return cls(**given)

    def own_files(self) -> dict[str, str]:
        """Return the files and directories that are the server's alone, by their flags; "" for what there is not."""
        return {
            "--tokenPath": self.token_path,
            "--tlsCert": self.tls_cert,
            "--tlsKey": self.tls_key,
            "--stateDir": self.state_dir,
            **self.secret_files,
        }


def _check_pages(origins: tuple[str, ...], hosts: tuple[str, ...]) -> None:
    """Raise `SettingsError` for what no browser sends, and for what too many pages send."""
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise SettingsError(
                f"--corsOrigin {origin[:80]!r}: an origin is written as browsers do, like https://chris.example.org:8443:"
                " in small letters, without a path, '*' or the port that is its scheme's own; 'null' is any page's"
            )
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise SettingsError(
                f"--allowHost {host[:80]!r}: a name is like store.example.org, in small letters, without a scheme, a"
                " port or '*'"
            )


FLAGS = {
    "tokenPath": "token_path",
    "b_allowAnonymous": "allow_anonymous",
    "tlsCert": "tls_cert",
    "tlsKey": "tls_key",
    "fsRoot": "fs_roots",
    "corsOrigin": "cors_origins",
    "allowHost": "allow_hosts",
    "maxUpload": "max_upload",
    "maxSpool": "max_spool",
    "maxConnections": "max_connections",
    "maxRequests": "max_requests",
    "maxStreams": "max_streams",
    "maxStreamSeconds": "stream_seconds",
    "maxWorkers": "max_workers",
    "graceSeconds": "grace_seconds",
    "stateDir": "state_dir",
    "jobTtl": "job_ttl",
    "maxRows": "max_rows",
    "maxJobs": "max_jobs",
    "maxJobsPerToken": "max_jobs_per_token",
    "maxJobBytes": "max_job_bytes",
    "repairState": "repair_state",
    "logFormat": "log_format",
}
"""Where the parsed flags stand, and what they are here."""
