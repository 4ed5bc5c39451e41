"""The stages of a job, one verb in one file: a table of rows in, a table of rows out, without Ray.

It imports all rooms but `pipeline` and those above it. Start at `load`, then follow the data: `segment`, `relate`,
`inpaint`, `write`.
"""
