"""The same training in Lightning, as its documentation has one write it (`pip install lightning`)."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import lightning
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision import transforms

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


class Work(Protocol):
    batch_size: int
    precision: str
    data: Any
    scratch: Any
    device: str
    augment: bool


class Classifier(lightning.LightningModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        images, labels = batch
        loss = F.cross_entropy(self.net(images), labels)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.001, momentum=0.9)


class Told(lightning.Callback):
    def __init__(self, after_step: Callable[[int], None]) -> None:
        self.after_step = after_step

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, number: int) -> None:  # noqa: ARG002
        self.after_step(len(batch[1]))


def train(net: nn.Module, work: Work, after_step: Callable[[int], None]) -> None:
    """Train without end. after_step: is given the number of images of each step."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    transform = [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
    if work.augment:
        transform = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *transform]
    trainset = torchvision.datasets.ImageFolder(str(work.data / "train"), transform=transforms.Compose(transform))
    loader = torch.utils.data.DataLoader(
        trainset,
        batch_size=work.batch_size,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
        pin_memory=work.device == "cuda",
    )
    trainer = lightning.Trainer(
        accelerator="gpu" if work.device == "cuda" else "cpu",
        devices=1,
        precision=PRECISIONS[work.precision],
        max_epochs=-1,
        logger=lightning.pytorch.loggers.TensorBoardLogger(str(work.scratch)),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Told(after_step)],
    )
    trainer.fit(Classifier(net), loader)
