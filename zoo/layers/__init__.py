"""What networks are made of: the rows of tables, the layers that they build, and the whole network.

`zoo.layers` has all of their names; which of the three files each is in is no part of the promise.
"""

from .modules import BatchNorm as BatchNorm
from .modules import Concat as Concat
from .modules import Conv2d as Conv2d
from .modules import ConvNormAct as ConvNormAct
from .modules import Gate as Gate
from .modules import Kernel as Kernel
from .modules import Layer as Layer
from .modules import LinearAct as LinearAct
from .modules import Pool as Pool
from .modules import Residual as Residual
from .modules import Row as Row
from .modules import Skippable as Skippable
from .modules import Stack as Stack
from .modules import Table as Table
from .modules import activated as activated
from .modules import last as last
from .modules import max_pool_of_zeros as max_pool_of_zeros
from .modules import pads_for as pads_for
from .modules import pair as pair
from .modules import walk as walk
from .network import Auxiliary as Auxiliary
from .network import Network as Network
from .network import Output as Output
from .network import classifier as classifier
from .network import expect_network as expect_network
from .network import features as features
from .network import model_stages as model_stages
from .network import stochastic_depth as stochastic_depth
from .observing import observed as observed
from .observing import observing as observing
from .observing import scope as scope
from .rows import LRN as LRN
from .rows import AvgPool as AvgPool
from .rows import Branches as Branches
from .rows import Conv as Conv
from .rows import Dense as Dense
from .rows import Dropout as Dropout
from .rows import FlattenAt as FlattenAt
from .rows import GlobalAvgPool as GlobalAvgPool
from .rows import MaxPool as MaxPool
from .rows import Separable as Separable
from .rows import Sequence as Sequence
from .rows import SqueezeExcite as SqueezeExcite
from .rows import batch_norm as batch_norm
from .rows import branches as branches
