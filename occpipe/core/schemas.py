"""The Arrow schemas: the manifest, the columns between stages, and the published row.

Masks are COCO's compressed run-length counts (ASCII), upright, at the size at which they were segmented: `mask_height` and
`mask_width` of the row. Boxes and areas are in pixels of the image. No column depends on the time or place of a run, so
equal inputs and configs give equal rows. Masks have 64-bit offsets, because many shards together exceed 2 GiB of them.
"""

from __future__ import annotations

import pyarrow as pa

VERSION = "4"

ERROR = pa.struct([("stage", pa.string()), ("type", pa.string()), ("message", pa.string())])
BOX = pa.struct([("x", pa.int32()), ("y", pa.int32()), ("width", pa.int32()), ("height", pa.int32())])
STUFF = pa.struct([("label", pa.string()), ("confidence", pa.float32())])
EVIDENCE = pa.struct([("context", pa.string()), ("relation", pa.float32())])
CLASS = pa.struct([("label", pa.string()), ("probability", pa.float32())])
SEGMENT = pa.struct(
    [
        ("label", pa.string()),
        ("score", pa.float32()),
        ("thing", pa.float32()),  # chance that it is a thing at all
        ("classes", pa.list_(CLASS)),  # that it may have, the most probable first
        ("mask", pa.large_string()),
    ]
)
"""A thing as the segmenter returned it."""
OBJECT = pa.struct(
    [
        ("label", pa.string()),
        ("score", pa.float32()),
        ("thing", pa.float32()),
        ("classes", pa.list_(CLASS)),
        ("area", pa.int64()),
        ("bbox", BOX),
        ("mask", pa.large_string()),
        ("relation", pa.float32()),  # the probability that it belongs
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("evidence", pa.list_(EVIDENCE)),
    ]
)

MANIFEST = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),  # relative to the input root, and the key of the output
        pa.field("size", pa.int64()),  # bytes
        pa.field("etag", pa.string()),
    ]
)

PIPELINE: dict[str, pa.DataType] = {
    **{field.name: field.type for field in MANIFEST},
    "image_id": pa.int64(),
    "shard": pa.int32(),  # the shard of the manifest with the image, and the position in it
    "row": pa.int32(),
    "earlier": pa.string(),  # key of the image that an earlier run wrote; null: none
    "status": pa.string(),  # null until a stage sets it
    "reason": pa.string(),
    "error": ERROR,
    "sha256": pa.string(),  # of the bytes of the input
    "format": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
    "pixels": pa.large_binary(),  # upright RGB, mask_height x mask_width x 3
    "mask_width": pa.int32(),
    "mask_height": pa.int32(),
    "segments": pa.list_(SEGMENT),  # things only
    "stuff": pa.list_(STUFF),
    "objects": pa.list_(OBJECT),
    "mask": pa.large_string(),  # the pixels that are filled
    "removed": pa.float32(),  # share of the image that is filled, 0 to 1
    "data": pa.large_binary(),  # the encoded result; null if the input is the result
    "lost": pa.list_(pa.string()),  # metadata of the source that a cleaned picture does not keep; null: no picture
    "output": pa.string(),  # key of the written image below OUTPUT
    "output_offset": pa.int64(),  # where it begins in a container, a byte of a tar or a row; null: it is a file
    "output_size": pa.int64(),
    "output_sha256": pa.string(),
    "config": pa.string(),  # digest of the config
    "copied": pa.bool_(),  # whether the cleaned picture comes from an earlier run; null: no
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
            "sha256",
            "format",
            "width",
            "height",
            "mask_width",
            "mask_height",
            "objects",
            "stuff",
            "mask",
            "removed",
            "lost",
            "output",
            "output_offset",
            "output_size",
            "output_sha256",
            "config",
        )
    ],
    metadata={"occpipe.schema": VERSION},
)
