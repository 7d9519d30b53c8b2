"""Names for the arrays that planning works with."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
