"""Datasets as tensors: reading them, keeping them decoded, and making batches of them."""
