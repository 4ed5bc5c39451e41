"""The Arrow schemas: the manifest, the columns between stages, and the published row.

Masks are COCO's compressed run-length counts (ASCII) for an image of the row's height and width, upright. Nothing here
depends on when or where a row was made, so equal inputs and configs give equal rows.
"""

from __future__ import annotations

import pyarrow as pa

VERSION = "1"

ERROR = pa.struct([("stage", pa.string()), ("type", pa.string()), ("message", pa.string())])
BOX = pa.struct([("x", pa.int32()), ("y", pa.int32()), ("width", pa.int32()), ("height", pa.int32())])
STUFF = pa.struct([("label", pa.string()), ("confidence", pa.float32())])
EVIDENCE = pa.struct([("context", pa.string()), ("relation", pa.float32())])
SEGMENT = pa.struct(
    [
        ("label", pa.string()),
        ("is_thing", pa.bool_()),
        ("score", pa.float32()),
        ("area", pa.int64()),
        ("bbox", BOX),
        ("mask", pa.string()),
    ]
)
OBJECT = pa.struct(
    [
        ("label", pa.string()),
        ("score", pa.float32()),
        ("area", pa.int64()),
        ("bbox", BOX),
        ("mask", pa.string()),
        ("relation", pa.float32()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("evidence", pa.list_(EVIDENCE)),
    ]
)

MANIFEST = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),  # relative to the input root, and the key of the output
        pa.field("size", pa.int64()),  # bytes
        pa.field("etag", pa.string()),
    ]
)

PIPELINE: dict[str, pa.DataType] = {
    **{field.name: field.type for field in MANIFEST},
    "status": pa.string(),  # null while the row is still on its way
    "reason": pa.string(),
    "error": ERROR,
    "data": pa.large_binary(),  # the encoded input
    "format": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
    "segments": pa.list_(SEGMENT),
    "stuff": pa.list_(STUFF),
    "objects": pa.list_(OBJECT),
    "mask": pa.string(),  # what is filled
    "removed": pa.float32(),  # share of the image that is filled
    "output": pa.string(),  # key of the written image below OUTPUT
    "output_size": pa.int64(),
    "output_sha256": pa.string(),
    "config": pa.string(),  # digest of the config
    "copied": pa.bool_(),  # whether the cleaned picture is that of an earlier run; null: no
}
"""Every column that a stage may read or write."""

PUBLISHED = pa.schema(
    [
        pa.field(name, PIPELINE[name], nullable=name not in ("image_id", "uri", "status", "config"))
        for name in (
            "image_id",
            "uri",
            "status",
            "reason",
            "error",
            "size",
            "etag",
            "format",
            "width",
            "height",
            "objects",
            "stuff",
            "mask",
            "removed",
            "output",
            "output_size",
            "output_sha256",
            "config",
        )
    ],
    metadata={"occpipe.schema": VERSION},
)
