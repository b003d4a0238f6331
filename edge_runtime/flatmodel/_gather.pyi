from typing import Any

import numpy as np
from numpy.typing import NDArray

def gather(out: NDArray[Any], values: NDArray[Any], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None: ...
