"""What every room shares: the config, the types of the domain, masks, class names, Arrow schemas and errors.

It imports no other room. Start at `types` for the words, and at `config` for the settings.
"""
