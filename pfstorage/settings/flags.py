"""The one table of flags, with the settings and the environment variables that they go with.

Everything that needs the list of flags loops over `FLAGS`: the parser of the command line, the sources of settings,
the options of the server, and the test of ``docs/flags.rst``.
"""

from __future__ import annotations

from pfstorage.settings.flag import DURABLE, Flag
from pfstorage.settings.server_flags import FLAGS_OF_THE_SERVER

FLAGS = (
    # the message
    Flag("msg", "the message; @FILE reads it from a file, - from stdin", "JSON", may_be_empty=True),
    Flag(
        "action",
        "the action of a message in two parts, see --args",
        "NAME",
        attribute="str_action",
        default="",
    ),
    Flag(
        "args",
        "the meta of --action",
        "JSON",
        attribute="str_args",
        default="",
        needs=("action",),
        is_refused_alone=True,
    ),
    Flag("remote", "send the message to this pfstorage server", "HOST:PORT", holds="url"),
    Flag(
        "authToken",
        "the token for --remote; @FILE reads it from a file, - from stdin",
        "TOKEN",
        default="",
        holds="secret",
        needs=("remote",),
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
    Flag(
        "httpProxy",
        "the HTTP proxy for requests to the store",
        "HOST:PORT",
        "this.httpProxy",
        holds="url",
        is_for_remote=True,
    ),
    Flag(
        "caCert",
        "trust the certificate authorities in FILE (PEM)",
        "FILE",
        "swift.cacert",
        variables=("OS_CACERT",),
        is_for_remote=True,
    ),
    Flag(
        "insecure",
        "do not verify certificates: others on the network can read keys and change files",
        setting="this.insecure",
        kind="switch",
        is_for_remote=True,
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
    *FLAGS_OF_THE_SERVER,
    # the program
    Flag("configFileLoad", "read settings from FILE", "FILE", attribute="str_configFileLoad", default=""),
    Flag("configFileSave", "write the settings to FILE", "FILE", attribute="str_configFileSave", default=""),
    Flag(
        "saveSecrets",
        "write secrets to the file of --configFileSave, too",
        kind="switch",
        needs=("configFileSave",),
    ),
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
        is_for_remote=True,
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
