"""Ghost batch norm and penalties in your own training loop: python your_own_loop.py"""

import torch
from torch import nn

from reg_sweep import GhostBatchNorm2d, penalize, penalized

model = nn.Sequential(nn.Conv2d(1, 8, 3), GhostBatchNorm2d(8, ghost_batch_size=16), nn.Flatten(), nn.LazyLinear(10))
images, labels = torch.rand(256, 1, 12, 12), torch.randint(10, (256,))
model(images)  # initializes the lazy layer
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
print(penalized(model))  # which parameters are weights, and why the others are not
penalty = penalize(model, optimizer, l1=1e-3, l2=5e-4, l1_update="proximal")
for x, y in zip(images.split(64), labels.split(64), strict=True):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()  # the penalties act here

zeros = sum(int((w == 0).sum()) for w in model.parameters())
print(f"penalty {penalty.value():.4f}, {zeros:,} weights are exactly zero")
