"""TLS: the certificate of the server, and what it speaks."""

from __future__ import annotations

import ssl

from pfstorage.errors import SettingsError
from pfstorage.serving.options import ServerOptions


def tls_of(options: ServerOptions) -> ssl.SSLContext:
    """Return the context of a server with the certificate of *options*: TLS 1.2 and later. Raise `SettingsError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ValueError) as e:
        text = f"--tlsCert {options.tls_cert!r} and --tlsKey {options.tls_key!r} can't be used: {e}"
        raise SettingsError(text) from e
    return context
