"""How static files are stored in production."""

from typing import Any

import brotli
from whitenoise.compress import Compressor
from whitenoise.storage import CompressedManifestStaticFilesStorage

LARGE_BYTES = 50_000
LARGE_QUALITY = 9


class QuickCompressor(Compressor):
    """Compresses large files a little less hard.

    The best that Brotli can do takes six times as long at every first start and saves a tenth.
    """

    @staticmethod
    def compress_brotli(data: bytes) -> bytes:
        if len(data) > LARGE_BYTES:
            return brotli.compress(data, quality=LARGE_QUALITY)
        return brotli.compress(data)


class HashedStaticFiles(CompressedManifestStaticFilesStorage):
    """Names files by their content, so that browsers may keep them for ever.

    Only addresses inside of style sheets are replaced. Django would also follow what a script says
    of its source map, which a script that we did not write may come without.
    """

    patterns = CompressedManifestStaticFilesStorage.patterns[:1]

    def create_compressor(self, **kwargs: Any) -> Compressor:
        return QuickCompressor(**kwargs)
