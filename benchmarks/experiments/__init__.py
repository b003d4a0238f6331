"""The papers' experiments, on real networks: each measures rows of figures and makes a section of one report."""
