"""Train an image classifier from a folder of labelled images, and measure it.

Importing the package loads nothing heavy: torch, scikit-learn and onnx are imported by the modules
that need them.
"""

import os

# ONNX Runtime 1.29 and later writes and sends usage data on Linux unless this is set before its
# import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
