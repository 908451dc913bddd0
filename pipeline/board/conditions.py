"""What a run's figures depend on, in words, from its frozen spec and its manifest.

Either may be damaged or edited by hand: what is not there is left out, and nothing here raises for it.
"""

from __future__ import annotations

from typing import Any

Row = tuple[str, str]


OF_ALL_DATASETS = (  # told by themselves, or not
    *("batch_size", "augment", "image_size", "val", "sampler", "readers", "test_augment", "last_batch"),
)
DEFAULTS_OF_MODELS = {
    "init": None,
    "freeze_epochs": 0,
    "backbone_lr": 1.0,
    "batch_norm_momentum": None,
    "quantize": None,
}
DEFAULTS_OF_OPTIMIZERS = {"bias_lr": 1.0, "bias_weight_decay": None, "norm_weight_decay": None}
DEFAULTS_OF_AUGMENTATIONS = {"padding_mode": "constant", "alternate": False}


def describe_conditions(spec: dict[str, Any], manifest: dict[str, Any]) -> list[Row]:
    """Returns what the figures of a run depend on. `seed` stands as it is: a grouped one could not be copied."""
    model, train, data = object_at(spec, "model"), object_at(spec, "train"), object_at(spec, "data")
    quantize = object_at(model, "quantize")
    attempts = attempts_of(manifest)
    computes = object_at(attempts[-1], "computes") if attempts else {}
    rows: list[tuple[str, object]] = [
        ("Model", without(model | {"quantize": None} if quantize else model, DEFAULTS_OF_MODELS)),
        ("Quantized weights", without(object_at(quantize, "weights"), {"bits": None})),
        ("Quantized activations", quantize.get("activations")),
        ("Not quantized", quantize.get("skip")),
        ("Dataset", {k: v for k, v in data.items() if k not in OF_ALL_DATASETS} or None),
        ("Share held out to choose the best epoch by", data.get("val")),
        *_dataset(object_at(manifest, "dataset")),
        ("Augmentation", _augmentation(data.get("augment"))),
        ("Views at test time", None if data.get("test_augment") == "none" else data.get("test_augment")),
        ("Mixup's alpha", train.get("mixup") or None),
        ("CutMix's alpha", train.get("cutmix") or None),
        ("Sampler", "balanced" if data.get("sampler") == "balanced" else None),
        ("Batch size", data.get("batch_size")),
        ("Last batch", "left out, as it is smaller" if data.get("last_batch") == "drop" else None),
        ("Batches in a step", train.get("accumulate")),
        ("Epochs", train.get("epochs")),
        ("Early stopping", train.get("early_stopping")),
        ("Optimizer", without(object_at(train, "optimizer"), DEFAULTS_OF_OPTIMIZERS)),
        ("Schedule", train.get("schedule")),
        ("Loss", train.get("loss")),
        ("Label smoothing", train.get("label_smoothing")),
        ("Moving average of the weights", train.get("ema")),
        ("Lookahead", train.get("lookahead")),
        ("Gradient clipped to norm", train.get("clip_grad_norm")),
        ("Device", _device(computes) or object_at(spec, "resources").get("device")),
        ("Precision", computes.get("precision") or train.get("precision")),
        ("Deterministic", train.get("deterministic")),
        ("Seed", str(train["seed"]) if "seed" in train else None),
        ("Job file's SHA-256", manifest.get("spec_sha256")),
        *((f"SHA-256 of modules/{name}", digest) for name, digest in object_at(manifest, "modules").items()),
    ]
    return [(label, as_words(value)) for label, value in rows if value not in (None, "", {})]


def without(section: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any] | None:
    """Returns a section less what is as it always is; None where nothing is left."""
    return {key: value for key, value in section.items() if key not in defaults or value != defaults[key]} or None


def _augmentation(sections: object) -> object:
    if not isinstance(sections, list):
        return sections
    return [without(one, DEFAULTS_OF_AUGMENTATIONS) if isinstance(one, dict) else one for one in sections]


def describe_versions(manifest: dict[str, Any]) -> list[Row]:
    """Returns what the latest attempt ran on."""
    entry = (attempts_of(manifest) or [{}])[-1]
    code, packages = object_at(entry, "code"), object_at(entry, "packages")
    changes = " and changes" if code.get("dirty") else ""
    commit = f", commit {code['commit']}{changes}" if code.get("commit") else ""
    names = [f"python {entry.get('python')}", *(f"{name} {version}" for name, version in packages.items())]
    return [("Versions", ", ".join(names)), ("Code", f"pipeline {code.get('version')}{commit}")]


def _dataset(dataset: dict[str, Any]) -> list[tuple[str, object]]:
    if not dataset:
        return []
    classes = dataset.get("classes")
    size = dataset.get("image_size")
    return [
        ("Training images", dataset.get("train")),
        ("Held-out images", dataset.get("test")),
        ("Classes", len(classes) if isinstance(classes, list) else None),
        ("Image size", f"{size} by {size} pixels" if size else None),
        ("Channels", dataset.get("channels")),
        ("Dataset fingerprint", dataset.get("sha256")),
    ]


def _device(computes: dict[str, Any]) -> str:
    name = computes.get("name")
    return f"{computes.get('device')} ({name})" if name else str(computes.get("device", ""))


def attempts_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the entries of the attempts."""
    entries = manifest.get("attempts")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def object_at(value: dict[str, Any], key: str) -> dict[str, Any]:
    """Returns the object under a key; an empty one where there is none."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def as_words(value: object) -> str:
    """Returns a value of a job file or of a manifest, for people."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(as_words(item) for item in value) or "none"
    if isinstance(value, dict):
        name = str(value.get("name", ""))
        options = ", ".join(f"{str(k).replace('_', ' ')} {as_words(v)}" for k, v in value.items() if k != "name")
        return (f"{name} ({options})" if options else name) if name else options
    return str(value)
