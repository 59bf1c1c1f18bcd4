"""safetensors, by its own library, once its header is known to be of a sane size.

https://github.com/huggingface/safetensors#format
"""

from pathlib import Path

import numpy as np

from .base import Arrays, tokens
from .budget import Budget

HEADER = 16 << 20  # bytes of a header, at most
DTYPES = {"F64", "F32", "F16", "BF16", "BOOL"} | {f"{s}{n}" for s in "IU" for n in (8, 16, 32, 64)}


def read(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The arrays and the metadata of a file.

    Raises:
      ValueError: damaged bytes, a header that lies, which the library notices, or a type of
        elements that NumPy lacks.
    """
    import ml_dtypes  # noqa: F401  # teaches NumPy the name "bfloat16", which safetensors uses
    from safetensors import SafetensorError, safe_open

    arrays: Arrays = {}
    with path.open("rb") as file:
        head = file.read(8)
        size = int.from_bytes(head, "little")
        if size > HEADER:
            raise ValueError(f"a header of {size} bytes, expected {HEADER} at most")
        # names, numbers and texts of the header; the library builds objects of them all
        Budget(path.stat().st_size).spend(steps=tokens(file.read(size)))
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118
                dtype = file.get_slice(name).get_dtype()
                if dtype not in DTYPES:
                    raise ValueError(f"{name[:80]!r} is {dtype}, expected F32 or alike")
                array = file.get_tensor(name)
                arrays[name] = array.astype(np.float32) if dtype == "BF16" else array
            return arrays, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(str(error)) from error
