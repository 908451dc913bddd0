"""Networks: pure `nn.Module`s that know nothing of training.

Each is called with `num_classes`, `channels` and `image_size`, and with its own options from the catalog, all by name;
it takes images, float (N, channels, image_size, image_size), and gives logits, float (N, num_classes). The names of its
layers are what TensorBoard's graph and histograms show.
"""
