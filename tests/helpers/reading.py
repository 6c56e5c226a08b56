"""What the tests of readers share."""

from datamodules.readers import Reader
from datamodules.readers.document import Document


def read_all(reader: Reader) -> list[Document]:
    """Documents of all files, in the order of the names of the files."""
    files = sorted(reader.files(), key=lambda file: file.name)
    return [document for file in files for document in reader.read(file)]


def outcomes(reader: Reader) -> list[str]:
    """Texts, or reasons in angle brackets."""
    return [f"<{document.reason}>" if document.text is None else document.text for document in read_all(reader)]
