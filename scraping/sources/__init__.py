"""The places that pictures come from: one module each, the contract they keep, and the registry of
them.

Nothing is imported here: a browser's driver need not be loaded by what only downloads.
"""
