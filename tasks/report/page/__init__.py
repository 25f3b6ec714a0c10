"""The page itself: what stands in which section, the templates, the style, and the file."""
