"""Requests to object stores: Google Cloud Storage (``gs``) and S3 (``s3``), one attempt each.

Google's and Amazon's own clients send them, with the credentials and addresses that these find:
``gcloud auth application-default login`` or the machine's account, ``STORAGE_EMULATOR_HOST``;
``AWS_PROFILE``, ``AWS_ENDPOINT_URL`` and the rest of Amazon's variables. ``bucket`` repeats what
fails.
"""

import contextlib
import functools
import http.client
import importlib
import logging
import os
import pathlib
from typing import Any, Protocol

from ambient_jax import _packages

_CONNECT, _READ = 10, 60  # s that an answer may take
_TRANSIENT = (408, 409, 429)  # and all from 500 on
_WHOLE = 64 << 20  # bytes of a file that S3 takes in one request


class AgainError(Exception):
    """The store did not answer, or not now: the same request may succeed later."""


class RefusedError(Exception):
    """The store refuses the request, and will refuse it again."""


class Store(Protocol):
    """One store. A method sends one request, and raises FileNotFoundError for an absent object or
    bucket, FileExistsError for one that is there already, ``AgainError`` or ``RefusedError``."""

    def size(self, bucket: str, key: str) -> tuple[int, str]:
        """Returns the bytes of an object, and a text that differs for every version of it."""

    def read(self, bucket: str, key: str, start: int, stop: int | None) -> bytes:
        """Returns bytes ``start`` to ``stop``; all if ``stop`` is None. May return too few."""

    def write(self, bucket: str, key: str, data: bytes | pathlib.Path, is_new: bool) -> None:
        """Writes an object whole or not at all; with ``is_new`` only where there is none."""

    def files(self, bucket: str, prefix: str, limit: int | None = None) -> dict[str, int]:
        """Returns bytes of the objects whose keys begin with a prefix."""

    def versions(self, bucket: str, prefix: str) -> dict[str, tuple[int, str]]:
        """Returns what ``size`` does of the objects whose keys begin with a prefix."""

    def children(self, bucket: str, prefix: str) -> tuple[list[str], list[str]]:
        """Returns keys of objects right below a prefix that ends in "/", and of folders."""

    def delete(self, bucket: str, key: str) -> None:
        """Deletes an object; one that is absent is no error."""


def get(scheme: str) -> Store:
    """Returns the store of ``gs`` or ``s3`` for this process; a fork gets its own connections.
    Raises ``AgainError`` or ``RefusedError``, and MissingError without the store's package."""
    return _get(scheme, os.getpid())


def forget() -> None:
    """Drops all connections: the next request reads addresses and credentials anew."""
    _get.cache_clear()


@functools.cache
def _get(scheme: str, pid: int) -> Store:
    return _Google() if scheme == "gs" else _Amazon()


def _raise(error: Exception, code: int | None, why: str) -> None:
    """Raises what an HTTP status means; ``code`` is None if there was no answer."""
    if code == 404:
        raise FileNotFoundError(why) from error
    if code == 412:
        raise FileExistsError(why) from error
    if code is None or code in _TRANSIENT or code >= 500:
        raise AgainError(why) from error
    raise RefusedError(why) from error


@functools.cache
def _connection_errors() -> tuple[type[Exception], ...]:
    urllib3 = importlib.import_module("urllib3.exceptions")  # of both clients
    return (urllib3.HTTPError, http.client.HTTPException, ConnectionError, TimeoutError)


def _line(error: object) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def _status(code: int, told: str) -> str:
    """Returns an HTTP status in words, with what the store says of it."""
    phrase = http.client.responses.get(code, "")
    return f"{code} {phrase}" + (f", {_line(told)}" if told else "")


def _translated(method):
    @functools.wraps(method)
    def send(self, *args, **options):
        try:
            return method(self, *args, **options)
        except Exception as error:
            self.raise_for(error)
            raise

    return send


class _Google:
    def __init__(self):
        storage = _packages.need("google.cloud.storage", "gs://", "gcs")
        self._auth = importlib.import_module("google.auth.exceptions")
        self._api = importlib.import_module("google.api_core.exceptions")
        self._broken = importlib.import_module("google.cloud.storage.exceptions")
        self._requests = importlib.import_module("requests")
        self._hint = ""
        self._connect(storage)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # threads share it
        self._once: Any = {"retry": None, "timeout": (_CONNECT, _READ)}

    @_translated
    def _connect(self, storage):
        try:
            self._client = storage.Client()
        except self._auth.DefaultCredentialsError:  # public buckets need none
            self._client = storage.Client.create_anonymous_client()
            self._hint = "; no credentials found: gcloud auth application-default login"

    def raise_for(self, error: Exception) -> None:
        if isinstance(error, self._api.GoogleAPICallError):
            told = ""
            with contextlib.suppress(AttributeError, ValueError, KeyError, TypeError):
                told = error.response.json()["error"]["message"]
            code = int(error.code or 500)
            _raise(error, code, f"{_status(code, told)}{self._hint}")
        if isinstance(error, self._broken.InvalidResponse):
            code = error.response.status_code
            _raise(error, code, _status(code, ""))
        if isinstance(error, self._auth.GoogleAuthError):
            lost = (self._auth.TransportError, self._auth.TimeoutError)
            # A refresh of the credentials wraps what it met.
            transient = isinstance(error, lost) or isinstance(error.__cause__, lost)
            _raise(error, None if transient or error.retryable else 401, _line(error))
        broken = (self._broken.DataCorruption, self._requests.exceptions.RequestException)
        if isinstance(error, (*broken, *_connection_errors())):
            _raise(error, None, f"no answer, {_line(error)}")

    def _blob(self, bucket, key):
        return self._client.bucket(bucket).blob(key)

    @_translated
    def size(self, bucket, key):
        blob = self._blob(bucket, key)
        blob.reload(**self._once)
        return int(blob.size), str(blob.generation)

    @_translated
    def read(self, bucket, key, start, stop):
        span = {} if stop is None else {"start": start, "end": stop - 1}
        return self._blob(bucket, key).download_as_bytes(raw_download=True, **span, **self._once)

    @_translated
    def write(self, bucket, key, data, is_new):
        options = self._once | ({"if_generation_match": 0} if is_new else {})
        blob = self._blob(bucket, key)
        if isinstance(data, pathlib.Path):
            blob.upload_from_filename(os.fspath(data), **options)
        else:
            blob.upload_from_string(data, "application/octet-stream", **options)

    @_translated
    def files(self, bucket, prefix, limit=None):
        listed = self._client.list_blobs(bucket, prefix=prefix, max_results=limit, **self._once)
        return {blob.name: int(blob.size) for blob in listed}

    @_translated
    def versions(self, bucket, prefix):
        listed = self._client.list_blobs(bucket, prefix=prefix, **self._once)
        return {blob.name: (int(blob.size), str(blob.generation)) for blob in listed}

    @_translated
    def children(self, bucket, prefix):
        listed = self._client.list_blobs(bucket, prefix=prefix, delimiter="/", **self._once)
        return [blob.name for blob in listed], sorted(listed.prefixes)

    @_translated
    def delete(self, bucket, key):
        try:
            self._blob(bucket, key).delete(**self._once)
        except self._api.NotFound:
            pass


class _Amazon:
    def __init__(self):
        boto3 = _packages.need("boto3", "s3://", "s3")
        self._errors = importlib.import_module("botocore.exceptions")
        self._failed = importlib.import_module("boto3.exceptions").S3UploadFailedError
        config = importlib.import_module("botocore.config").Config(
            retries={"total_max_attempts": 1},
            connect_timeout=_CONNECT,
            read_timeout=_READ,
            max_pool_connections=32,
        )
        self._connect(boto3, config)

    @_translated
    def _connect(self, boto3, config):
        try:
            self._client: Any = boto3.session.Session().client("s3", config=config)
        except ValueError as error:  # such as an address that is none
            raise RefusedError(_line(error)) from error

    def raise_for(self, error: Exception) -> None:
        if isinstance(error, self._failed):
            error = error.__context__ or error
        if isinstance(error, self._errors.ClientError):
            code = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
            _raise(error, code, _status(code, error.response.get("Error", {}).get("Message", "")))
        names = [
            *("HTTPClientError", "ConnectionError", "IncompleteReadError"),
            *("FlexibleChecksumError", "CredentialRetrievalError", "MetadataRetrievalError"),
        ]
        transient = [getattr(self._errors, name) for name in names]
        if isinstance(error, (*transient, self._failed, *_connection_errors())):
            _raise(error, None, f"no answer, {_line(error)}")
        if isinstance(error, self._errors.BotoCoreError):
            _raise(error, 401, _line(error))

    @_translated
    def size(self, bucket, key):
        head = self._client.head_object(Bucket=bucket, Key=key)
        return int(head["ContentLength"]), str(head["ETag"])

    @_translated
    def read(self, bucket, key, start, stop):
        span = {} if stop is None else {"Range": f"bytes={start}-{stop - 1}"}
        return self._client.get_object(Bucket=bucket, Key=key, **span)["Body"].read()

    @_translated
    def write(self, bucket, key, data, is_new):
        if isinstance(data, pathlib.Path):
            if data.stat().st_size > _WHOLE:
                self._client.upload_file(os.fspath(data), bucket, key)
                return
            data = data.read_bytes()
        only = {"IfNoneMatch": "*"} if is_new else {}
        self._client.put_object(Bucket=bucket, Key=key, Body=data, **only)

    @_translated
    def files(self, bucket, prefix, limit=None):
        pages = self._pages(bucket, prefix, PaginationConfig={"MaxItems": limit})
        return {o["Key"]: int(o["Size"]) for page in pages for o in page.get("Contents", ())}

    @_translated
    def versions(self, bucket, prefix):
        found = [o for page in self._pages(bucket, prefix) for o in page.get("Contents", ())]
        return {o["Key"]: (int(o["Size"]), str(o["ETag"])) for o in found}

    @_translated
    def children(self, bucket, prefix):
        pages = list(self._pages(bucket, prefix, Delimiter="/"))
        keys = [o["Key"] for page in pages for o in page.get("Contents", ())]
        return keys, [o["Prefix"] for page in pages for o in page.get("CommonPrefixes", ())]

    def _pages(self, bucket, prefix, **options):
        lister = self._client.get_paginator("list_objects_v2")
        return lister.paginate(Bucket=bucket, Prefix=prefix, **options)

    @_translated
    def delete(self, bucket, key):
        self._client.delete_object(Bucket=bucket, Key=key)
