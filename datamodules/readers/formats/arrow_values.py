"""Arrow values as Python values, one at a time, so that a value that cannot be had costs itself and not its file.

Texts are taken as bytes: Arrow believes any writer that says they are UTF-8. Times of nanoseconds, which pandas writes,
lose what is below a microsecond; a date beyond the years 1 to 9999 is an error.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow


def python_value(scalar: Any, lenient: bool = False) -> Any:
    """A scalar as Python has it, nested ones too.

    Args:
        scalar: `pyarrow.Scalar`.
        lenient: whether text that is no UTF-8 has U+FFFD and a date that Python cannot hold is None; errors else.

    Raises:
        UnicodeDecodeError: for a text that is no UTF-8.
        OverflowError, ValueError: for a date, time or duration that Python cannot hold.
    """
    try:
        return scalar.as_py()
    except (ValueError, OverflowError) as error:
        kind = scalar.type
        if pyarrow.types.is_struct(kind):
            return {field.name: python_value(scalar[place], lenient) for place, field in enumerate(kind)}
        if isinstance(scalar, pyarrow.ListScalar | pyarrow.LargeListScalar | pyarrow.FixedSizeListScalar):
            return [python_value(item, lenient) for item in scalar.values]
        if isinstance(scalar, pyarrow.DictionaryScalar):
            return python_value(scalar.value, lenient)
        if isinstance(error, UnicodeDecodeError):
            if lenient:
                return bytes(scalar.as_buffer()).decode("utf-8", "replace")
            raise
        try:
            return scalar.cast(_microseconds(kind), safe=False).as_py()
        except (ValueError, OverflowError):
            if lenient:
                return None
            raise


def _microseconds(kind: Any) -> Any:
    """The type of a time of microseconds for one of nanoseconds; any other type as it is."""
    if getattr(kind, "unit", None) != "ns":
        return kind
    if pyarrow.types.is_timestamp(kind):
        return pyarrow.timestamp("us", kind.tz)
    return pyarrow.duration("us") if pyarrow.types.is_duration(kind) else pyarrow.time64("us")


def text_of(scalar: Any) -> str | None:
    """Value of metadata as text: bytes that are no UTF-8 become escapes, dates are ISO 8601, lists are joined.

    None for a null, a structure, and a date that Python cannot hold.
    """
    if not scalar.is_valid:
        return None
    if isinstance(scalar, pyarrow.DictionaryScalar):
        return text_of(scalar.value)
    if isinstance(scalar, pyarrow.StringScalar | pyarrow.LargeStringScalar | pyarrow.StringViewScalar):
        return bytes(scalar.as_buffer()).decode("utf-8", "backslashreplace")
    try:
        return plain_text(python_value(scalar))
    except (ValueError, OverflowError):
        return None


def plain_text(value: Any) -> str | None:
    """A Python value of metadata as text, at most 2,000 characters; see `text_of`."""
    if value is None or isinstance(value, dict):
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, list):
        value = ", ".join(str(part) for part in value)
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return text.encode("utf-8", "backslashreplace").decode()[:2000] or None


def storage_type(kind: Any) -> Any:
    """The type that an extension type, as JSON's, is stored in; any other as it is."""
    return kind.storage_type if isinstance(kind, pyarrow.BaseExtensionType) else kind


def stored(column: Any) -> Any:
    """The stored array of an extension type; any other array as it is."""
    return column.storage if isinstance(column, pyarrow.ExtensionArray) else column


def is_text(kind: Any) -> bool:
    """Whether a type holds texts or the bytes of texts, also by a dictionary."""
    types = pyarrow.types
    if types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_null(kind)
    )


def text_bytes(column: Any) -> Iterator[Any]:
    """The bytes of each text of a column, as `pyarrow.Buffer`, or None; a column with a dictionary is not unpacked.

    Args:
        column: array of a type of which `is_text` is true.
    """
    values = column.dictionary if pyarrow.types.is_dictionary(column.type) else column
    if pyarrow.types.is_string(values.type) or pyarrow.types.is_large_string(values.type):
        # Seen as bytes, not cast: a dictionary may be larger than a batch, and comes with each.
        values = values.view(pyarrow.binary() if pyarrow.types.is_string(values.type) else pyarrow.large_binary())
    elif not (pyarrow.types.is_binary(values.type) or pyarrow.types.is_large_binary(values.type)):
        values = values.cast(pyarrow.large_binary())
    places = column.indices.to_pylist() if pyarrow.types.is_dictionary(column.type) else range(len(values))
    for place in places:
        value = None if place is None else values[place]
        yield value.as_buffer() if value is not None and value.is_valid else None
