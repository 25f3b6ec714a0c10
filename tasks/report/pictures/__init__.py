"""Pictures: what plotly draws, and in words what is to be seen."""
