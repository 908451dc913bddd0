"""The training loop as tutorials write it: what `throughput.py` compares the pipeline with.

Follows "Training a Classifier" and "Visualizing Models, Data, and Training with TensorBoard" of the PyTorch tutorials
(docs.pytorch.org/tutorials/beginner/blitz/cifar10_tutorial, docs.pytorch.org/tutorials/intermediate/
tensorboard_tutorial), with loss and learning rate logged at each step.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torchvision
from torch import nn, optim
from torch.utils.tensorboard import SummaryWriter
from torchvision import transforms


def train(
    net: nn.Module, data: Path, *, batch_size: int, augment: bool, log_dir: Path, device: str = "cpu"
) -> Iterator[int]:
    """Train without end; gives the number of images after each step."""
    transform = [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
    if augment:
        transform = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *transform]
    trainset = torchvision.datasets.ImageFolder(str(data / "train"), transform=transforms.Compose(transform))
    trainloader = torch.utils.data.DataLoader(trainset, batch_size=batch_size, shuffle=True, num_workers=2)

    net.to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    writer = SummaryWriter(str(log_dir))

    step = 0
    while True:
        for data_on_cpu in trainloader:
            inputs, labels = data_on_cpu[0].to(device), data_on_cpu[1].to(device)
            optimizer.zero_grad()
            outputs = net(inputs)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()

            writer.add_scalar("training loss", loss.item(), step)
            writer.add_scalar("learning rate", optimizer.param_groups[0]["lr"], step)
            step += 1
            yield len(labels)
