"""What images a network can take."""

from __future__ import annotations


def require_size(image_size: int, *, smallest: int) -> None:
    """Raises ValueError if the pooling layers would leave nothing of the image."""
    if image_size < smallest:
        raise ValueError(
            f"images of {image_size} x {image_size} pixels are too small: "
            f"this model pools them away below {smallest} x {smallest}"
        )
