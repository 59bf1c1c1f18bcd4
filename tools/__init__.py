"""What writes the files that are generated: the catalogue, the peers' counts and `MODELS.md`.

Run from the root of a clone; nothing of this is installed.
"""
