"""Published weights: a file's bytes -> named arrays -> a strict conversion -> a network.

`catalogue` lists files and `fetch` gets them; `readers/` turns their bytes into named arrays;
`layouts/` says how each source names our tensors and orders their axes; `convert` holds the one
loop that matches both sides. `store` puts it together in `load`, with `infer` for what a file does
not say. `saving` writes and describes our own files, `export` those for other libraries; `folder`,
`timm_config` and `hub` are networks as they lie on the Hugging Face Hub.
"""
