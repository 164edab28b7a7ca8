"""How static files are stored in production."""

from whitenoise.storage import CompressedManifestStaticFilesStorage


class HashedStaticFiles(CompressedManifestStaticFilesStorage):
    """Names files by their content, so that browsers may keep them for ever.

    Only addresses inside of style sheets are replaced. Django would also follow what a script says
    of its source map, which a script that we did not write may come without.
    """

    patterns = CompressedManifestStaticFilesStorage.patterns[:1]
