"""A limit on the work of reading one file, whatever the file contains.

The size of a file does not bound that work: a few bytes can refer to the same megabyte a million
times, or ask for a million empty objects. So readers charge every visit, even to bytes that they
have seen before, and every step of a loop that the file controls.
"""

ROOM = 64 << 20  # bytes that a reader may visit or unpack beyond twice the file's size
STEPS = 1_000_000  # of about 2 microseconds; the largest published files take a quarter
NAME = 4096  # bytes of a tensor's or a layer's name, at most
RANK = 32  # dimensions of a tensor, at most


class Budget:
    """Bytes and steps left for a file.

    Args:
      size: of the file, bytes.
    """

    def __init__(self, size: int):
        self.bytes = 2 * size + ROOM
        self.steps = STEPS

    def spend(self, size: int = 0, steps: int = 1) -> None:
        """Charge a number of bytes and steps.

        Raises:
          ValueError: more than is left.
        """
        self.bytes -= size
        self.steps -= steps
        if self.bytes < 0:
            raise ValueError("unpacks to far more than its size")
        if self.steps < 0:
            raise ValueError(f"takes more than {STEPS:,} steps to read, far more than weights do")
