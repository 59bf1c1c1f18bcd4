"""Published weights: a file's bytes -> named arrays -> the strict conversion -> a network.

`files` reads, `layouts` says what each source calls a tensor and how it lays it out, `convert`
holds the one loop that matches both sides, `store` loads and saves.
"""
