"""The stages, a file each: load, segment, relate, inpaint, write; for `apply` load_detections and reuse_results.

A stage is a callable over Arrow tables that declares the columns it READS, WRITES and DROPS. It takes rows in any number,
keeps their order, and turns what goes wrong with one of them into its status, reason and error.
"""
