"""Forms with a file, which becomes an object."""

from __future__ import annotations

import io

from pfstorage import StoreHandler
from pfstorage.backends import Storage
from tests.conftest import serving
from tests.support.exchange import MULTIPART, answer, message, multipart, post


def test_a_padded_form_stores_its_file_and_an_encoded_one_nothing(storage: Storage) -> None:
    put = message("objPut", toObject="x/a").encode()
    form = multipart(("d_msg", put), ("local", b" a \r\n--limi \r\n"))
    base64 = b'"local"\r\nContent-Transfer-Encoding: base64\r\n'
    with serving(StoreHandler(storage)) as server:
        refused = answer(server.server_port, post(form.replace(b'"local"\r\n', base64), MULTIPART))
        assert (refused.status, refused.json["error"]["type"]) == (400, "MessageError")
        assert "'base64'" in refused.json["msg"]
        assert answer(server.server_port, post(message("ls", path="x"))).json["status"] is False
        padded = form.replace(b"--limit", b"--limit \t").replace(b"--limit \t--", b"--limit--  ")
        reported = answer(server.server_port, post(padded, MULTIPART))
        assert (reported.status, reported.json["status"]) == (200, True), reported.body
    sink = io.BytesIO()
    storage.get("x/a", sink)
    assert sink.getvalue() == b" a \r\n--limi \r\n"
