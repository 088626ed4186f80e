"""Map errors to HTTP statuses."""

from __future__ import annotations

from http import HTTPStatus

from pfstorage.errors import (
    BusyError,
    ConflictError,
    ExistsError,
    ForbiddenError,
    FullDiskError,
    IntegrityError,
    InvalidKeyError,
    JobConflictError,
    LocalFileError,
    MessageError,
    MethodNotAllowedError,
    MisconfiguredError,
    NoDescriptorError,
    NoLengthError,
    NoSpaceError,
    NotFoundError,
    PermissionDeniedError,
    PfstorageError,
    RejectedError,
    SettingsError,
    SlowRequestError,
    StateFileError,
    StoppedError,
    TooLargeError,
    UnauthenticatedError,
    UnauthorizedError,
    UnavailableError,
    UnknownActionError,
    UnknownJobError,
    UnknownPathError,
)
from pfstorage.wire.reply import Reply

STATUS_BY_ERROR: dict[type[PfstorageError], HTTPStatus] = {
    MessageError: HTTPStatus.BAD_REQUEST,
    UnknownActionError: HTTPStatus.NOT_FOUND,
    UnknownPathError: HTTPStatus.NOT_FOUND,
    UnknownJobError: HTTPStatus.NOT_FOUND,
    JobConflictError: HTTPStatus.CONFLICT,
    MethodNotAllowedError: HTTPStatus.METHOD_NOT_ALLOWED,
    NoLengthError: HTTPStatus.LENGTH_REQUIRED,
    SlowRequestError: HTTPStatus.REQUEST_TIMEOUT,
    TooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    SettingsError: HTTPStatus.BAD_REQUEST,
    UnauthorizedError: HTTPStatus.UNAUTHORIZED,
    ForbiddenError: HTTPStatus.FORBIDDEN,
    BusyError: HTTPStatus.SERVICE_UNAVAILABLE,
    LocalFileError: HTTPStatus.BAD_REQUEST,
    FullDiskError: HTTPStatus.INSUFFICIENT_STORAGE,
    NoDescriptorError: HTTPStatus.SERVICE_UNAVAILABLE,
    StateFileError: HTTPStatus.SERVICE_UNAVAILABLE,  # the file belongs to the server: the client did nothing wrong
    StoppedError: HTTPStatus.SERVICE_UNAVAILABLE,
    NotFoundError: HTTPStatus.NOT_FOUND,
    ExistsError: HTTPStatus.PRECONDITION_FAILED,
    InvalidKeyError: HTTPStatus.BAD_REQUEST,
    UnauthenticatedError: HTTPStatus.BAD_GATEWAY,  # the store refuses this server: the client can't repair that
    PermissionDeniedError: HTTPStatus.FORBIDDEN,
    RejectedError: HTTPStatus.BAD_GATEWAY,
    MisconfiguredError: HTTPStatus.BAD_GATEWAY,  # a mistake of this server, too
    ConflictError: HTTPStatus.CONFLICT,
    NoSpaceError: HTTPStatus.INSUFFICIENT_STORAGE,
    IntegrityError: HTTPStatus.BAD_GATEWAY,
    UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
}

# The error for a status that `http.server` answers by itself. Other such statuses are a `MessageError`.
KIND_BY_STATUS: dict[int, type[PfstorageError]] = {
    HTTPStatus.REQUEST_TIMEOUT: SlowRequestError,
    HTTPStatus.REQUEST_URI_TOO_LONG: TooLargeError,
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: TooLargeError,
}


def http_status(reply: Reply) -> HTTPStatus:
    """Return the HTTP status for *reply*: 202 if a job will do the work later."""
    return HTTPStatus.ACCEPTED if reply.is_accepted else status_of(reply.error)


_OK = HTTPStatus.OK  # before Python 3.12, a look-up of it in its class calls a function


def status_of(error: PfstorageError | None) -> HTTPStatus:
    """Return the HTTP status for a reply: 200 without *error*, else that of the nearest class of the error."""
    if error is None:
        return _OK
    kinds = (STATUS_BY_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_BY_ERROR)
    return next(kinds, HTTPStatus.INTERNAL_SERVER_ERROR)
