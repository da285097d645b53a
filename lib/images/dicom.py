"""Reading DICOM files with pydicom, an optional package."""

import math
from pathlib import Path

import numpy as np

from lib.base.errors import DamagedImage, UserError, one_line


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
        raise DamagedImage(f"{path} cannot be read as DICOM: {one_line(error)}") from None


def dicom_fields(path: Path, keywords: tuple[str, ...]) -> dict[str, str]:
    """The elements of a DICOM header that are present, as text. Raises UserError if the file is not DICOM."""
    header = open_dicom(path, stop_before_pixels=True)
    texts = {keyword: str(header.get(keyword) or "").strip() for keyword in keywords}
    return {keyword: text for keyword, text in texts.items() if text}


def dicom_field(path: Path, keyword: str) -> str:
    """An element of a DICOM header as text, such as PatientID. Raises UserError if it is absent."""
    fields = dicom_fields(path, (keyword,))
    if not fields:
        raise UserError(f"{path} has no element '{keyword}' in its header (data.group)")
    return fields[keyword]


def dicom_size(dicom, path: Path) -> tuple[int, int]:
    """(height, width) of an open DICOM file. Raises UserError if the header lacks them."""
    try:
        return int(dicom.Rows), int(dicom.Columns)
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{path} is a DICOM file without rows and columns") from None


def dicom_rescale(dicom, path: Path) -> tuple[float, float]:
    """Slope and intercept from stored values to units (PS3.3, C.11.1.1.2), such as Hounsfield; 1 and 0 without any.

    Raises UserError for what is not finite, and for a slope of 0, by which all values would be the same.
    """
    texts = [dicom.get(keyword) for keyword in ("RescaleSlope", "RescaleIntercept")]
    try:
        slope, intercept = (
            default if text is None else float(text) for text, default in zip(texts, (1, 0), strict=True)
        )
    except (TypeError, ValueError):
        slope = intercept = math.nan
    if slope == 0 or not (math.isfinite(slope) and math.isfinite(intercept)):
        given = ", ".join(str(text) for text in texts if text is not None)
        raise DamagedImage(f"{path} has an impossible rescale slope or intercept: {given}")
    return slope, intercept


def dicom_pixels(dicom, path: Path) -> tuple[np.ndarray, int, bool]:
    """Stored values without rescale slope, the largest possible one, and whether low means white (MONOCHROME1).

    Raises UserError for pixels that cannot be decoded.
    """
    try:
        pixels = dicom.pixel_array
        largest = 2 ** int(dicom.BitsStored) - 1
        low_is_white = dicom.PhotometricInterpretation == "MONOCHROME1"
    except Exception as error:  # a missing field, an unknown compression, too few bytes
        raise DamagedImage(f"{path} cannot be decoded as DICOM: {one_line(error)}") from None
    return pixels, largest, low_is_white
