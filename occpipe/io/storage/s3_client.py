"""Clients of S3: one for each way of access in a process, so that its threads share connections and a rate.

boto3's adaptive retries cover throttling (503 Slow Down), 5xx and connection resets. Once a store throttles, a token bucket
slows down all requests of the client, and so of the process, until it is answered again.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any

from occpipe.core.access import Access
from occpipe.io.storage import s3_keys

CONNECT_S = 10
SILENCE_S = 60
"""How long a connection may bring no byte."""
_LOCK = threading.Lock()


def client_of(access: Access) -> Any:
    """The boto3 client of a way of access, made on first use; boto3 clients are safe to share between threads."""
    environment = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    with _LOCK:  # the threads of a stage ask at once, and making clients is not safe between them
        return _connect(access, environment)


@functools.lru_cache(8)
def _connect(access: Access, environment: tuple[tuple[str, str], ...]) -> Any:  # noqa: ARG001 - part of the cache's key
    import boto3  # half a second of imports that local runs never need
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.handlers import add_expect_header

    config = Config(
        retries={"mode": "adaptive", "max_attempts": 5},
        max_pool_connections=64,
        connect_timeout=CONNECT_S,
        read_timeout=min(SILENCE_S, access.read_timeout_s),
        signature_version=UNSIGNED if access.anonymous else None,
        response_checksum_validation="when_required",  # some servers send that of the whole object with a part of it
    )
    session = boto3.Session(profile_name=access.profile, region_name=access.region)
    client = session.client("s3", endpoint_url=access.endpoint, config=config)
    # Where a connection breaks in the middle of "100 Continue" botocore reads its end for ever; our bodies are small.
    client.meta.events.unregister("before-call.s3", add_expect_header)
    # By this name it runs before a handler for `s3.*`, which parses whole pages for errors.
    client.meta.events.register("before-parse.*.*", s3_keys.parse_page)
    client.meta.events.register("provide-client-params.s3.*", _with_parameters(access))
    return client


def _with_parameters(access: Access) -> Callable[..., None]:
    """A hook of botocore that adds to each request what its operation knows of these parameters."""
    wanted = {
        "RequestPayer": "requester" if access.requester_pays else None,
        "ExpectedBucketOwner": access.bucket_owner,
        "ServerSideEncryption": "aws:kms" if access.kms_key else None,
        "SSEKMSKeyId": access.kms_key,
    }

    def add(params: dict[str, Any], model: Any, **_: object) -> None:
        known = model.input_shape.members
        for name, value in wanted.items():
            if value is not None and name in known:
                params.setdefault(name, value)

    return add
