"""Shared by every room: the config, the types of the domain, masks, class names, Arrow schemas and errors.

It imports no other room. Start with `types` for the terms, and with `config` for the settings.
"""
