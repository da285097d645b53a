"""DICOM files, by pydicom, which is optional."""

from pathlib import Path

import numpy as np

from lib.base.errors import UserError, one_line


def open_dicom(path: Path, stop_before_pixels: bool = False):
    """A pydicom dataset. Raises UserError when pydicom is not installed or the file is not DICOM."""
    try:
        import pydicom
    except ModuleNotFoundError:
        raise UserError(f"{path} is a DICOM file, which needs one more package: pip install pydicom") from None
    try:
        return pydicom.dcmread(path, stop_before_pixels=stop_before_pixels)
    except FileNotFoundError:
        raise UserError(f"image {path} does not exist") from None
    except Exception as error:  # pydicom raises whatever its parser stumbles over
        raise UserError(f"{path} cannot be read as DICOM: {one_line(error)}") from None


def dicom_fields(path: Path, keywords: tuple[str, ...]) -> dict[str, str]:
    """Those elements of a DICOM header, as text, that are there. Raises UserError where the file is not DICOM."""
    header = open_dicom(path, stop_before_pixels=True)
    found = {keyword: str(header.get(keyword) or "").strip() for keyword in keywords}
    return {keyword: text for keyword, text in found.items() if text}


def dicom_field(path: Path, keyword: str) -> str:
    """An element of a DICOM file's header as text, such as PatientID. Raises UserError when there is none."""
    found = dicom_fields(path, (keyword,))
    if not found:
        raise UserError(f"{path} has no element '{keyword}' in its header (data.group)")
    return found[keyword]


def dicom_size(dicom, path: Path) -> tuple[int, int]:
    """(height, width) of an open DICOM file. Raises UserError where it does not say."""
    try:
        return int(dicom.Rows), int(dicom.Columns)
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{path} is a DICOM file without rows and columns") from None


def dicom_pixels(dicom, path: Path) -> tuple[np.ndarray, int]:
    """Stored values (no rescale slope), low shown dark also where low means white, and the largest that fits.

    Raises UserError for what cannot be decoded.
    """
    try:
        pixels = dicom.pixel_array
        largest = 2 ** int(dicom.BitsStored) - 1
        is_inverted = dicom.PhotometricInterpretation == "MONOCHROME1"
    except Exception as error:  # a missing field, an unknown compression, too few bytes
        raise UserError(f"{path} cannot be decoded as DICOM: {one_line(error)}") from None
    return largest - pixels if is_inverted else pixels, largest
