"""A storage whose objects above 64 KiB are large, on a real Swift."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import swiftclient

from pfstorage import open_storage
from pfstorage.backends import Storage
from pfstorage.devswift import DevSwift
from tests.conftest import swift_options
from tests.support.faults import Proxy
from tests.support.large import SEGMENT_SIZE, raw_connection


@pytest.fixture
def store(swift: DevSwift, proxy: Proxy) -> Iterator[Storage]:
    """A Swift behind the proxy, where all above 64 KiB is large."""
    options = swift_options(
        swift, segment_size=SEGMENT_SIZE, range_size=SEGMENT_SIZE, auth_url=proxy.auth_url
    )
    with open_storage(**options) as storage:
        yield storage


@pytest.fixture
def raw(swift: DevSwift) -> Iterator[swiftclient.Connection]:
    with raw_connection(swift) as raw:
        yield raw
