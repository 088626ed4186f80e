"""Run nginx as a fast server with the API of a Swift.

Its answers to a login, a listing and a HEAD of the account are static. The ETag of each object is its MD5.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import ended, free_port, wait_until_up
from benchmarks.peers import NotInstalledError
from benchmarks.store import CONTAINER, Site
from benchmarks.trees import Tree

TOKEN = "token"
ACCOUNT = "/v1/AUTH_fast"
PATH = f"{ACCOUNT}/{CONTAINER}"

# Names have one level: the listing is the same for each prefix and delimiter. It is empty from the second page on.
CONFIG = """\
{user}
daemon off;
pid nginx.pid;
error_log stderr;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    log_not_found off;
    client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp; uwsgi_temp_path temp;
    scgi_temp_path temp;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 1000000;
    etag off;
    map_hash_max_size 8192;
    map_hash_bucket_size 256;
    map $uri $md5 {{ default ""; {md5s} }}
    map $arg_marker $page {{ default rest.json; "" all.json; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location = /auth/v1.0 {{
            add_header X-Storage-Url http://127.0.0.1:{port}{account};
            add_header X-Auth-Token {token};
            add_header X-Storage-Token {token};
            return 200 "";
        }}
        location = {account} {{
            add_header X-Account-Container-Count 1;
            add_header X-Account-Object-Count {count};
            add_header X-Account-Bytes-Used {size};
            return 204;
        }}
        location = {path} {{
            default_type application/json;
            types {{ }}
            add_header X-Container-Object-Count {count};
            add_header X-Container-Bytes-Used {size};
            alias {home}/$page;
        }}
        location {path}/{location}/ {{
            if ($md5 = "") {{ return 404; }}
            default_type application/dicom;
            types {{ }}
            add_header ETag $md5;
            alias {files}/;
        }}
    }}
}}
"""


@contextlib.contextmanager
def serving(home: Path, tree: Tree, location: str) -> Iterator[Site]:
    """Serve *tree* at *location*, with the other files of nginx in *home*. Raise `NotInstalledError`."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise NotInstalledError("there is no nginx: apt-get install nginx-light")
    port = free_port()
    home.mkdir()
    _write(home, tree, location, port)
    command = [program, "-p", str(home), "-c", str(home / "nginx.conf")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    with ended(process):
        wait_until_up(process, port)
        yield Site(port, (process.pid,), PATH, TOKEN)


def _write(home: Path, tree: Tree, location: str, port: int) -> None:
    """Write the configuration, and the static answers that it names, to *home*."""
    md5s = {name: hashlib.md5((tree.directory / name).read_bytes()).hexdigest() for name in tree.names}
    rows = [_row(f"{location}/{name}", tree.size, md5) for name, md5 in md5s.items()]
    (home / "all.json").write_text(json.dumps(rows))
    (home / "rest.json").write_text("[]")
    config = CONFIG.format(
        # the default user of the worker can't read these files
        user="user root root;" if os.geteuid() == 0 else "",
        md5s=" ".join(f'{PATH}/{location}/{name} "{md5}";' for name, md5 in md5s.items()),
        port=port,
        account=ACCOUNT,
        path=PATH,
        location=location,
        token=TOKEN,
        count=len(rows),
        size=len(rows) * tree.size,
        home=home,
        files=tree.directory,
    )
    (home / "nginx.conf").write_text(config)


def _row(key: str, size: int, md5: str) -> dict[str, str | int]:
    return {
        "name": key,
        "hash": md5,
        "bytes": size,
        "content_type": "application/dicom",
        "last_modified": "2026-01-01T00:00:00.000000",
    }
