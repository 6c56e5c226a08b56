"""UTF-8 buffers: texts as one array of bytes and their boundaries, as Arrow holds them, without a copy.

A loop over bytes instead of Python strings sees no characters; it decodes where it needs them, and most rules do not.
"""

import numpy as np
import pyarrow
from daft import Series


def utf8_buffers(texts: Series | pyarrow.Array | pyarrow.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The UTF-8 of a column of texts.

    Args:
        texts: strings; a null counts as an empty text.

    Returns:
        bytes uint8 [total], and where each text begins and the last one ends, int64 [texts + 1].
    """
    column = texts.to_arrow() if isinstance(texts, Series) else texts
    if isinstance(column, pyarrow.ChunkedArray):
        column = column.combine_chunks()
    column = column.cast(pyarrow.large_string()).fill_null("")
    _, offsets, content = column.buffers()
    places = np.frombuffer(offsets, dtype=np.int64)[column.offset : column.offset + len(column) + 1]
    whole = np.frombuffer(content, dtype=np.uint8) if content is not None else np.zeros(0, dtype=np.uint8)
    return whole[places[0] : places[-1]], places - places[0]
