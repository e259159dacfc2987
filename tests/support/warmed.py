"""Imported last by the fork server, to fill caches that each forked command would otherwise fill again."""

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins

from reg_sweep.config.schema import DataConfig
from reg_sweep.images import offline_sample
from reg_sweep.training.augmentation import rotation_table

torch.set_num_threads(1)  # a fork would wait for ever for threads that it does not inherit
Plugins.instance()
OverridesParser.create().parse_overrides(["data=mnist_5k", "data.val_size=100", "+l1='choice(0.1, 2)'", "name=a"])
offline_sample()
rotation_table(28, 28, DataConfig().rotation)
