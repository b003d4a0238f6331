"""Pruning that knows of no user, followed by fine-tuning: what CAP'NN is put on top of in its Table II.

Two methods for networks that are a chain of layers: `thinet` (Luo, Wu and Lin, ICCV 2017) and `reconstruction` (He,
Zhang and Sun, ICCV 2017), both known to us from memory. Each says which input channels a convolution can do without,
and what its weights become; `prune` walks through a network and cuts, `chain` is the surgery. Channels that dense
layers read stay, as in ThiNet's own VGG-16.
"""
