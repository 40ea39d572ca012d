"""Scene-graph data sets in their official layouts, read and turned into chat data."""

import sgrl  # noqa: F401  old names of modules can be imported
