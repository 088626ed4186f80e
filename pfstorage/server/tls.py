"""TLS: the certificate of the server, and what it speaks."""

from __future__ import annotations

import json
import ssl

from pfstorage.errors import SettingsError
from pfstorage.server.options import ServerOptions


def _no_password() -> str:
    raise ValueError("the key has a passphrase: give one without, that its owner alone can read")


def tls_of(options: ServerOptions) -> ssl.SSLContext:
    """Return the context of a server with the certificate of *options*: TLS 1.2 and later. Raise `SettingsError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        for path in (options.tls_cert, options.tls_key):
            with open(path, "rb") as file:  # what can't be read is named here, and not by OpenSSL
                if json.detect_encoding(file.read(4)) != "utf-8":
                    raise ValueError(
                        f"{path!r} begins with a byte order mark: save it as plain text, without"
                    )
        # a password, so that it does not ask for one at the terminal: nobody may sit there
        context.load_cert_chain(options.tls_cert, options.tls_key, password=_no_password)
    except (OSError, ValueError) as e:
        text = f"--tlsCert {options.tls_cert!r} and --tlsKey {options.tls_key!r} can't be used: {e}"
        if isinstance(e, ssl.SSLError):
            text += "; the first holds the certificate, the second its key (PEM)"
        raise SettingsError(text) from e
    return context
