"""The flags of the command line, and what it says of itself."""

from __future__ import annotations

import argparse
from typing import NoReturn

from pfstorage.logs.output import Parser

DESCRIPTION = """\
pfstorage gives one regular JSON interface to object storage: OpenStack Swift,
a directory, or memory. A message is {"action": "ls", "meta": {...}}; the reply is
JSON, too, on stdout. Everything else that is said goes to stderr."""

SYNOPSIS = """\
run one message:
    pfstorage --type filesystem --storeBase ./store --msg '{"action": "ls"}'
    pfstorage --ipSwift localhost --portSwift 8080 --msg @message.json
serve messages over HTTP:
    pfstorage --ipSwift localhost --portSwift 8080 --ipSelf 127.0.0.1 --portSelf 4055 --server --forever
send a message to such a server:
    pfstorage --remote 127.0.0.1:4055 --msg '{"action": "hello", "meta": {"askAbout": "timestamp"}}'"""

DETAILS = """\
The actions and their metas:
    ls            list objects          path, substr, retSpec, limit, marker, delimiter
    objPut        files into the store  putSpec, inLocation, mapLocationOver, file, fileList, followSymlinks
                                        (objPush is the same)
    objPull       objects to files      path, substr, fromLocation, mapLocationOver
    objVerify     compare both          as objPull; moves nothing
    these three   which files, and how  include, exclude, shard, overwrite, dryRun, audit, reply
                                        async, jid: a server does it later
    objSweep      unused segments       path, olderThan, dryRun (true unless you say false), async, jid
    jobStatus     how far is such a job job or jid, wait
    jobList       the last of them      limit
    jobCancel     end one               job or jid
    objExists     is there this object  obj
    objStat       what is known of it   obj
    hello         who is there          askAbout: timestamp | sysinfo | echoBack
    internalctl   read, change settings var with get, set or valueReplace

Exit status: 0 the reply's status is true; 1 it is false; 2 the message or a flag is malformed;
130 SIGINT, 143 SIGTERM, 129 SIGHUP and 131 SIGQUIT ended it."""


class _Parser(Parser):
    def error(self, message: str) -> NoReturn:
        """End the program with one line; argparse would print each flag before it.

        Of arguments that it does not know, one of which may be a secret, only flags are told.
        """
        start = "unrecognized arguments: "
        if message.startswith(start):
            words = [word.partition("=")[0] for word in message.removeprefix(start).split()]
            message = start + " ".join(word if word.startswith("-") else "..." for word in words)
        self.exit(2, f"{self.prog}: {message}; --help lists the flags\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser. Values go where 2.x kept them: ``str_type``, ``b_forever`` and so on."""
    parser = _Parser(
        prog="pfstorage",
        description=DESCRIPTION,
        epilog=SYNOPSIS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--msg", metavar="JSON", help="the message; @FILE reads it from a file, - from stdin")
    add("--action", dest="str_action", default="", metavar="NAME", help="with --args, a message in two parts")
    add("--args", dest="str_args", default="", metavar="JSON", help="the meta of --action")
    add("--remote", metavar="HOST:PORT", help="send the message to a pfstorage server there")
    add(
        "--authToken",
        default="",
        metavar="TOKEN",
        help="the token that it asks for; @FILE keeps it out of the process list",
    )
    add("--type", dest="str_type", metavar="NAME", help="the store: swift (default), filesystem or memory")
    add("--storeBase", metavar="DIR", help="the directory that is the store of --type filesystem")
    add("--ipSwift", metavar="HOST", help="where Swift's own login answers (default HOST_IP, else 127.0.0.1)")
    add("--portSwift", metavar="PORT", help="its port (default 8080)")
    add("--swiftAuthUrl", metavar="URL", help="the whole address of the login, instead of these two")
    add("--swiftUsername", metavar="NAME", help="who logs in (default SWIFT_USERNAME, ST_USER, OS_USERNAME)")
    add("--swiftKey", default="", metavar="KEY", help="with what; @FILE keeps it out of the process list")
    add("--swiftContainer", metavar="NAME", help="the container (default SWIFT_CONTAINER_NAME, else users)")
    add("--httpProxy", metavar="HOST:PORT", help="the proxy towards the store")
    add("--caCert", metavar="FILE", help="trust the certificate authorities in FILE (PEM)")
    add(
        "--insecure",
        action="store_true",
        default=None,
        help="trust any certificate: others on the way can then read keys and change files",
    )
    add(
        "--allowPlainStorage",
        action="store_true",
        default=None,
        help="after a login by https, use a storage URL of http: others can then read the token and the files",
    )
    add(
        "--workers",
        type=_workers,
        metavar="N|auto",
        help="files moved at once (default auto: as many as move the most)",
    )
    add("--segmentSize", metavar="SIZE", help="store larger objects in segments of this size (default 1G)")
    add("--rangeSize", metavar="SIZE", help="pull larger objects by ranges of this size (default 64M)")
    add("--bwLimit", metavar="SIZE", help="move at most so many bytes a second, like 50M (default no limit)")
    add(
        "--durable",
        choices=("none", "file", "batch"),
        help="bring pulled files, and those of a store of files, to the disk before they have names (default none)",
    )
    add("--retries", type=int, metavar="N", help="how often a failed request is repeated (default 3)")
    add("--timeout", type=float, metavar="SECONDS", help="how long the store may be silent (default 90)")
    add(
        "--connectTimeout",
        type=float,
        metavar="SECONDS",
        help="how long to wait for a connection (default 2)",
    )
    add(
        "--minRate",
        metavar="SIZE",
        help="give up a store that sends or takes fewer bytes a second (default 1K; 0 is no bound)",
    )
    add("-s", "--server", action="store_true", help="serve messages over HTTP")
    add("--forever", dest="b_forever", action="store_true", help="serve until stopped, not one request")
    add("--ipSelf", metavar="HOST", help="where to serve (default HOST_IP, else 127.0.0.1)")
    add("--portSelf", type=int, metavar="PORT", help="on which port (default 4055)")
    _add_server_flags(parser)
    add("--httpResponse", dest="b_httpResponse", action="store_true", default=None, help="reply as text/html")
    add(
        "--configFileLoad",
        dest="str_configFileLoad",
        default="",
        metavar="FILE",
        help="read settings from FILE",
    )
    add(
        "--configFileSave",
        dest="str_configFileSave",
        default="",
        metavar="FILE",
        help="write the settings to FILE",
    )
    add("--saveSecrets", action="store_true", help="write secrets to that file, too")
    add("--debugToDir", dest="str_debugToDir", metavar="DIR", help="write each message and its reply to DIR")
    add(
        "-v",
        "--verbosity",
        type=int,
        metavar="LEVEL",
        help="0 nothing on stderr, 1 a little (default), 2 more",
    )
    add(
        "--test",
        dest="b_test",
        action="store_true",
        help="ask hello/sysinfo, to see that pfstorage runs; asks no store",
    )
    add("--version", dest="b_version", action="store_true", help="print the version")
    add("-x", "--desc", action="store_true", help="print the overview")
    add("-y", "--synopsis", action="store_true", help="print the synopsis")
    return parser


def _add_server_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--enableTokenAuth",
        dest="b_enableTokenAuth",
        action="store_true",
        help="let in who has a token of --tokenPath",
    )
    add(
        "--tokenPath",
        default="",
        metavar="FILE",
        help="the file of tokens: one a line, or INI if it ends in .cfg",
    )
    add("--makeToken", action="store_true", help="print a new token; with --tokenPath, add its hash to FILE")
    add(
        "--rights",
        choices=("read", "write", "admin"),
        default="",
        help="what the new token allows (default write)",
    )
    add("--prefix", metavar="PREFIX", help="the beginning of the keys that it is for (default all keys)")
    add("--expires", default="", metavar="WHEN", help="its end, like 2030-12-31 or 2030-12-31T18:00Z")
    add(
        "--allowAnonymous",
        dest="b_allowAnonymous",
        action="store_true",
        help="let anybody in on another address than a loopback one",
    )
    add("--tlsCert", default="", metavar="FILE", help="serve by TLS, with this certificate (PEM)")
    add("--tlsKey", default="", metavar="FILE", help="its key (PEM)")
    add(
        "--fsRoot",
        action="append",
        default=[],
        metavar="DIR",
        help="where local files of messages by HTTP may lie (default the current directory); may be given again",
    )
    add(
        "--corsOrigin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let pages of this origin send messages, like https://chris.example.org; may be given again",
    )
    add(
        "--allowHost",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which clients call this host, beside localhost; may be given again",
    )
    add(
        "--maxUpload",
        default="",
        metavar="SIZE",
        help="the largest file that may come with a message (default 16G)",
    )
    add(
        "--maxSpool",
        default="",
        metavar="SIZE",
        help="bytes of all uploads that lie in TMPDIR (default twice --maxUpload)",
    )
    add("--maxConnections", type=_count, metavar="N", help="connections at once (default 256)")
    add(
        "--maxWorkers",
        type=_count,
        metavar="N",
        help="files that all transfers together move at once (default 64)",
    )
    add("--maxRequests", type=_count, metavar="N", help="requests that are worked on at once (default 32)")
    add(
        "--maxStreams",
        type=_count,
        metavar="N",
        help="streams of events, and waits for a job, of one token at once (default 32)",
    )
    add(
        "--maxStreamSeconds",
        type=_count,
        metavar="SECONDS",
        help="how long a stream of events lasts, until its client asks again (default 600)",
    )
    add(
        "--stateDir",
        default="",
        metavar="DIR",
        help="where jobs are kept, to go on with them after a restart",
    )
    add(
        "--jobTtl",
        type=_count,
        metavar="SECONDS",
        help="how long a job is kept after its end (default a week)",
    )
    add(
        "--repairState",
        action="store_true",
        help="if the file of the jobs can't be read, keep it there by another name, and begin a new one",
    )
    add("--maxRows", type=_count, metavar="N", help="rows that an ls lists at most (default all)")
    add("--maxJobs", type=_count, metavar="N", help="jobs that run at once (default 4)")
    add(
        "--maxJobsPerToken",
        type=_count,
        metavar="N",
        help="those of one token (default as --maxJobs)",
    )
    add(
        "--maxJobBytes",
        default="",
        metavar="SIZE",
        help="what a token's jobs that wait take, and what those that are over take (default 64M)",
    )
    add(
        "--logFormat",
        choices=("text", "json"),
        default="",
        help="how the log on stderr is written (default text)",
    )
    add(
        "--graceSeconds",
        type=_count,
        metavar="N",
        help="what work may take when the server ends (default 30)",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def _workers(text: str) -> int | str:
    if text != "auto" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto")
    return text if text == "auto" else int(text)
