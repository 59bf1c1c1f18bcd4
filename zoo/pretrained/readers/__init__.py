"""Readers of weight files: bytes to NumPy arrays by the file's own names.

`files.read` picks the reader by the suffix. The others are one module for each format that
publishers use, and the formats that those are made of: HDF5, protocol buffers, LevelDB's tables,
pickles. No reader executes anything, and `budget` bounds the work and memory of all of them by the
size of the file.
"""
