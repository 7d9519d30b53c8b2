"""Names for the arrays that calibrating and planning work with."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
"""Numbers."""


Rows = NDArray[np.bool_]
"""Whether something holds at every place; of rows, whether an evaluation is computed."""


Indices = NDArray[np.int64]
"""Places, and numbers of things."""
