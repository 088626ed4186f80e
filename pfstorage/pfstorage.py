"""Provide the module path of 2.x: ``from pfstorage.pfstorage import swiftStorage``."""

from pfstorage.compat.v2 import D, FL2dict, PfStorage, swiftStorage
from pfstorage.handler import StoreHandler
from pfstorage.server.server import ThreadedHTTPServer

__all__ = ["D", "FL2dict", "PfStorage", "StoreHandler", "ThreadedHTTPServer", "swiftStorage"]
