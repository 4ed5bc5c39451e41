"""The stages, a file each, in data order: discover, fetch, segment, relate, inpaint, sink, publish.

A stage between discover and publish is a callable over Arrow tables that declares the columns it READS and WRITES.
"""
