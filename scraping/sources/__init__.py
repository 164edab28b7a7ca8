"""The sources of images: one module each, their base class, their catalogue and their registry.

Nothing is imported here: a browser's driver need not be loaded by what only downloads.
"""
