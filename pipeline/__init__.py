"""A batch pipeline for training image classifiers. `docs/architecture.md` says where everything is."""

__version__ = "0.1.0"
