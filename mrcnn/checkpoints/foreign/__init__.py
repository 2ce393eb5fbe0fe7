"""Read weight files of torchvision's and Detectron2's Mask R-CNN, and rename the weights to fit our layers.

    weights = foreign.read_foreign_weights("maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth")
    weights.kind, weights.num_classes, weights.class_names

Nothing in a file is executed, and PyTorch is not needed. The network must compute the same as that of the
other library. The settings for this depend on `ForeignWeights.kind`.
"""

from mrcnn.checkpoints.foreign.kinds import KINDS as KINDS
from mrcnn.checkpoints.foreign.kinds import Preset as Preset
from mrcnn.checkpoints.foreign.kinds import preset_for as preset_for
from mrcnn.checkpoints.foreign.naming import ForeignWeights as ForeignWeights
from mrcnn.checkpoints.foreign.naming import name_weights as name_weights
from mrcnn.checkpoints.foreign.naming import read_foreign_weights as read_foreign_weights
from mrcnn.checkpoints.foreign.naming import select_classes as select_classes
from mrcnn.checkpoints.foreign.naming import without_gaps as without_gaps
from mrcnn.checkpoints.foreign.reading import ReadFile as ReadFile
from mrcnn.checkpoints.foreign.reading import is_foreign_file as is_foreign_file
from mrcnn.checkpoints.foreign.reading import read_state as read_state
