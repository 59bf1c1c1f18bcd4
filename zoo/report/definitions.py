"""What each figure of a report means: the one place that says it, printed under every report."""

from ..errors import unknown

DEFINITIONS = {
    "parameters": "all numbers that training changes, head included, for 1000 classes",
    "BN statistics": "running means and variances of batch norm, which no gradient changes; "
    "not in the parameters",
    "head": "the parameters after the last feature map, which weights without a top lack",
    "auxiliary heads": "parameters of classifiers that only training runs; not in the parameters",
    "total": "parameters and BN statistics: what inference needs and a file holds",
    "MACs": "each one multiplication and addition of a convolution or matrix product, padding "
    "counted; one image",
    "FLOPs of a training step": "two for each multiplication and addition of the forward pass "
    "and of the gradients; one image",
    "activation memory, inference": "the most bytes of activations that live at once; one image, "
    "float32. Of n images, n times that",
    "activation memory, training": "bytes of activations that the forward pass keeps for the "
    "backward pass; one image, float32. Of n images, n times that",
    "file size": "4 bytes for each of the total: float32; 1 MB is 10^6 bytes",
    "receptive field": "side, in input pixels, of the square that one output position sees, "
    "squeeze-excite gates left out; after global pooling the whole image",
}


def notes(*names: str) -> tuple[str, ...]:
    """Lines to print under a report: the definitions of these figures, or of all of them.

    Raises:
      ZooError: an unknown figure; the message suggests the nearest.

    >>> notes("head")
    ('head: the parameters after the last feature map, which weights without a top lack',)
    """
    for name in names:
        if name not in DEFINITIONS:
            raise unknown("figure", name, DEFINITIONS)
    return tuple(f"{name}: {DEFINITIONS[name]}" for name in names or DEFINITIONS)
