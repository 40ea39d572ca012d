"""Scene-graph data sets in their official layouts, read and turned into chat data."""
