"""Imported before Icechunk, which writes its log to standard output, where documents of ours go;
errors arrive as exceptions.
"""

import os

os.environ.setdefault("ICECHUNK_LOG", "off")
