"""The one table of flags, with the settings and the environment variables that they go with.

Everything that needs the list of flags loops over `FLAGS`: the parser of the command line, the sources of settings,
the options of the server, and the test of ``docs/flags.rst``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

FlagKind = Literal["text", "switch", "texts", "integer", "count", "number", "size", "workers"]

# Counts and seconds of the server are bounded, so that a slip of the keyboard is refused.
MAX_COUNT = 999_999
# The ways to bring files to the disk.
DURABLE = ("none", "file", "batch")


class Flag(NamedTuple):
    """One flag. *setting* is its place in a settings document, as ``block.name``; it is empty for a mode or a command.

    *value* names the value in the help; a switch has none. *attribute* is the name in the parsed arguments where
    2.x used another one than *name*. *default* is the parsed value of a flag that was not given. *holds* is
    ``"secret"`` for a secret, and ``"url"`` for a URL that may contain a password.
    """

    name: str
    help: str
    value: str = ""
    setting: str = ""
    kind: FlagKind = "text"
    short: str = ""
    attribute: str = ""
    choices: tuple[str, ...] = ()
    default: object = None
    variables: tuple[str, ...] = ()
    holds: Literal["", "secret", "url"] = ""

    @property
    def dest(self) -> str:
        """The name of the value in the parsed arguments."""
        return self.attribute or self.name

    @property
    def block(self) -> str:
        return self.setting.partition(".")[0]

    @property
    def key(self) -> str:
        return self.setting.partition(".")[2]


FLAGS = (
    # the message
    Flag("msg", "the message; @FILE reads it from a file, - from stdin", "JSON"),
    Flag(
        "action",
        "the action of a message in two parts, see --args",
        "NAME",
        attribute="str_action",
        default="",
    ),
    Flag("args", "the meta of --action", "JSON", attribute="str_args", default=""),
    Flag("remote", "send the message to this pfstorage server", "HOST:PORT", holds="url"),
    Flag(
        "authToken",
        "the token for --remote; @FILE reads it from a file, - from stdin",
        "TOKEN",
        default="",
        holds="secret",
    ),
    # the store
    Flag(
        "type",
        "the backend: swift (default), filesystem or memory",
        "NAME",
        "this.type",
        attribute="str_type",
    ),
    Flag("storeBase", "the directory of --type filesystem", "DIR", "filesystem.store_base"),
    Flag(
        "ipSwift",
        "the host of Swift's own login (default HOST_IP, else 127.0.0.1)",
        "HOST",
        "swift.auth_url",
        variables=("HOST_IP",),
    ),
    Flag("portSwift", "the port of Swift's own login (default 8080)", "PORT", "swift.auth_url"),
    Flag(
        "swiftAuthUrl",
        "the whole URL of the login, instead of --ipSwift and --portSwift",
        "URL",
        "swift.auth_url",
        variables=("SWIFT_AUTH_URL", "ST_AUTH", "OS_AUTH_URL"),
        holds="url",
    ),
    Flag(
        "swiftUsername",
        "the user of the login (default SWIFT_USERNAME, ST_USER, OS_USERNAME)",
        "NAME",
        "swift.username",
        variables=("SWIFT_USERNAME", "ST_USER", "OS_USERNAME"),
    ),
    Flag(
        "swiftKey",
        "the key of the login; @FILE reads it from a file, - from stdin",
        "KEY",
        "swift.key",
        default="",
        variables=("SWIFT_KEY", "ST_KEY", "OS_PASSWORD"),
        holds="secret",
    ),
    Flag(
        "swiftContainer",
        "the container (default SWIFT_CONTAINER_NAME, else users)",
        "NAME",
        "swift.container_name",
        variables=("SWIFT_CONTAINER_NAME",),
    ),
    Flag("httpProxy", "the HTTP proxy for requests to the store", "HOST:PORT", "this.httpProxy", holds="url"),
    Flag(
        "caCert",
        "trust the certificate authorities in FILE (PEM)",
        "FILE",
        "swift.cacert",
        variables=("OS_CACERT",),
    ),
    Flag(
        "insecure",
        "do not verify certificates: others on the network can read keys and change files",
        setting="this.insecure",
        kind="switch",
    ),
    Flag(
        "allowPlainStorage",
        "after a login by https, accept a storage URL of http: others can then read the token and the files",
        setting="this.allowPlainStorage",
        kind="switch",
    ),
    # transfers
    Flag(
        "workers",
        "files moved at once (default auto: pfstorage finds the fastest number)",
        "N|auto",
        "this.workers",
        "workers",
    ),
    Flag(
        "segmentSize",
        "store larger objects in segments of this size (default 1G)",
        "SIZE",
        "this.segmentSize",
    ),
    Flag("rangeSize", "pull larger objects in ranges of this size (default 64M)", "SIZE", "this.rangeSize"),
    Flag(
        "bwLimit",
        "move at most this many bytes a second, like 50M (default no limit)",
        "SIZE",
        "this.bwLimit",
    ),
    Flag(
        "durable",
        "sync pulled files, and those of a filesystem store, to the disk before they get their names (default none)",
        setting="this.durable",
        choices=DURABLE,
    ),
    Flag("retries", "how often a failed request is repeated (default 3)", "N", "this.retries", "integer"),
    Flag("timeout", "how long the store may be silent (default 90)", "SECONDS", "this.timeout", "number"),
    Flag(
        "connectTimeout",
        "how long to wait for a connection (default 2)",
        "SECONDS",
        "this.connectTimeout",
        "number",
    ),
    Flag(
        "minRate",
        "give up a request that moves fewer bytes a second (default 1K; 0 is no bound)",
        "SIZE",
        "this.minRate",
    ),
    # the server
    Flag("server", "serve messages over HTTP", kind="switch", short="s"),
    Flag(
        "forever",
        "serve until stopped; without it, the server answers one request and ends",
        kind="switch",
        attribute="b_forever",
    ),
    Flag(
        "ipSelf",
        "the address to serve at (default HOST_IP, else 127.0.0.1)",
        "HOST",
        "this.ipSelf",
        variables=("HOST_IP",),
    ),
    Flag("portSelf", "the port to serve at (default 4055)", "PORT", "this.portSelf", "integer"),
    Flag(
        "enableTokenAuth",
        "accept only clients with a token of --tokenPath",
        setting="server.enableTokenAuth",
        kind="switch",
        attribute="b_enableTokenAuth",
    ),
    Flag(
        "tokenPath",
        "the file of tokens: one a line, or INI if its name ends in .cfg",
        "FILE",
        "server.tokenPath",
        default="",
    ),
    Flag("makeToken", "print a new token; with --tokenPath, add its hash to FILE", kind="switch"),
    Flag(
        "rights",
        "the permissions of the new token (default write)",
        choices=("read", "write", "admin"),
        default="",
    ),
    Flag("prefix", "the prefix of the keys that the new token is for (default all keys)", "PREFIX"),
    Flag("expires", "the end of the new token, like 2030-12-31 or 2030-12-31T18:00Z", "WHEN", default=""),
    Flag(
        "allowAnonymous",
        "accept clients without a token at an address that is not a loopback one",
        setting="server.allowAnonymous",
        kind="switch",
        attribute="b_allowAnonymous",
    ),
    Flag("tlsCert", "serve by TLS, with this certificate (PEM)", "FILE", "server.tlsCert", default=""),
    Flag("tlsKey", "the key of the certificate (PEM)", "FILE", "server.tlsKey", default=""),
    Flag(
        "fsRoot",
        "a directory for the local files of messages over HTTP (default the current directory); repeatable",
        "DIR",
        "server.fsRoot",
        "texts",
    ),
    Flag(
        "corsOrigin",
        "accept messages from pages of this origin, like https://chris.example.org; repeatable",
        "ORIGIN",
        "server.corsOrigin",
        "texts",
    ),
    Flag(
        "allowHost",
        "a further name by which clients call this host, besides localhost; repeatable",
        "NAME",
        "server.allowHost",
        "texts",
    ),
    Flag(
        "maxUpload",
        "the largest file that a client may send with a message (default 16G)",
        "SIZE",
        "server.maxUpload",
        "size",
        default="",
    ),
    Flag(
        "maxSpool",
        "bytes of all uploads in TMPDIR (default twice --maxUpload)",
        "SIZE",
        "server.maxSpool",
        "size",
        default="",
    ),
    Flag("maxConnections", "connections at once (default 256)", "N", "server.maxConnections", "count"),
    Flag(
        "maxWorkers",
        "files that all transfers together move at once (default 64)",
        "N",
        "server.maxWorkers",
        "count",
    ),
    Flag("maxRequests", "requests in progress at once (default 32)", "N", "server.maxRequests", "count"),
    Flag(
        "maxStreams",
        "event streams and waits for a job at once, per token (default 32)",
        "N",
        "server.maxStreams",
        "count",
    ),
    Flag(
        "maxStreamSeconds",
        "how long an event stream lasts until its client asks again (default 600)",
        "SECONDS",
        "server.maxStreamSeconds",
        "count",
    ),
    Flag(
        "stateDir",
        "keep jobs in DIR, and continue them after a restart",
        "DIR",
        "server.stateDir",
        default="",
    ),
    Flag(
        "jobTtl",
        "how long a job is kept after its end (default a week)",
        "SECONDS",
        "server.jobTtl",
        "count",
    ),
    Flag(
        "repairState",
        "if the file of the jobs is damaged, rename it and begin a new one",
        setting="server.repairState",
        kind="switch",
    ),
    Flag("maxRows", "rows of one ls (default all)", "N", "server.maxRows", "count"),
    Flag("maxJobs", "jobs that run at once (default 4)", "N", "server.maxJobs", "count"),
    Flag(
        "maxJobsPerToken",
        "jobs of one token that run at once (default as --maxJobs)",
        "N",
        "server.maxJobsPerToken",
        "count",
    ),
    Flag(
        "maxJobBytes",
        "disk space of one token's waiting jobs, and as much of its finished jobs (default 64M)",
        "SIZE",
        "server.maxJobBytes",
        "size",
        default="",
    ),
    Flag(
        "logFormat",
        "the format of the log on stderr (default text)",
        setting="server.logFormat",
        choices=("text", "json"),
        default="",
    ),
    Flag(
        "graceSeconds",
        "how long running requests may take when the server ends (default 30)",
        "N",
        "server.graceSeconds",
        "count",
    ),
    Flag(
        "httpResponse",
        "send replies as text/html",
        setting="this.httpResponse",
        kind="switch",
        attribute="b_httpResponse",
    ),
    # the program
    Flag("configFileLoad", "read settings from FILE", "FILE", attribute="str_configFileLoad", default=""),
    Flag("configFileSave", "write the settings to FILE", "FILE", attribute="str_configFileSave", default=""),
    Flag("saveSecrets", "write secrets to the file of --configFileSave, too", kind="switch"),
    Flag(
        "debugToDir",
        "write each message and its reply to DIR, secrets masked",
        "DIR",
        "this.debugToDir",
        attribute="str_debugToDir",
    ),
    Flag(
        "verbosity",
        "0 nothing on stderr, 1 a little (default), 2 more",
        "LEVEL",
        "this.verbosity",
        "integer",
        short="v",
    ),
    Flag(
        "test",
        "send a hello that asks for sysinfo, to check the installation; needs no store",
        kind="switch",
        attribute="b_test",
    ),
    Flag("version", "print the version", kind="switch", attribute="b_version"),
    Flag("desc", "print the overview", kind="switch", short="x"),
    Flag("synopsis", "print the synopsis", kind="switch", short="y"),
)

SERVER_FLAGS = tuple(flag for flag in FLAGS if flag.block == "server")

# The two flags that make up a URL of Swift's own login. They are not settings themselves.
LOGIN_ADDRESS = ("ipSwift", "portSwift")

# Settings that have variables and no flag. Where several variables of one setting are given, the last one counts.
AUTH_VERSION_VARIABLES = ("OS_IDENTITY_API_VERSION", "OS_AUTH_VERSION", "ST_AUTH_VERSION")

# Keystone's options, by the names of swiftclient: its documentation, "Authentication".
OS_OPTIONS = {
    "OS_STORAGE_URL": "object_storage_url",
    **{
        f"OS_{name.upper()}": name
        for name in (
            *("auth_token", "auth_type", "tenant_name", "tenant_id", "project_name", "project_id", "user_id"),
            *("user_domain_name", "user_domain_id", "project_domain_name", "project_domain_id"),
            *("region_name", "service_type", "endpoint_type"),
            *("application_credential_id", "application_credential_secret"),
        )
    },
}


def _variables() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for flag in FLAGS:
        for name in flag.variables:
            found[name] = (*found.get(name, ()), flag.setting)
    found |= dict.fromkeys(AUTH_VERSION_VARIABLES, ("swift.auth_version",))
    return found | dict.fromkeys(OS_OPTIONS, ("swift.os_options",))


# Each variable, and the settings that it gives.
VARIABLES = _variables()
