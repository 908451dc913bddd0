"""Models: pure `nn.Module`s that know nothing of training.

Each is called with `num_classes`, `channels` and `image_size`, and with its own options from the catalog, all by name;
it takes images, float (N, channels, image_size, image_size), and gives logits, float (N, num_classes). The names of its
layers are what TensorBoard's graph and histograms show.
"""

from __future__ import annotations


def require_size(image_size: int, *, smallest: int) -> None:
    """Raises ValueError if the pooling layers would leave nothing of the image."""
    if image_size < smallest:
        raise ValueError(
            f"images of {image_size} x {image_size} pixels are too small: "
            f"this model pools them away below {smallest} x {smallest}"
        )
