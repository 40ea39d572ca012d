"""Fewer frames of a video: by annotation (base-annot), by image features (maxinfo), by lost corners (psfr).

`thin(reader, "psfr")` reads a data set once and says which image_ids stay; the selection functions below it
(`base_annot.changes` and `overlap`, `maxinfo.select`, `psfr.keyframes`) need no reader.
"""

from data_prep.thin.thinning import METHODS, PROTOCOLS, Coverage, Method, Thinning, open_method, thin

__all__ = ["METHODS", "PROTOCOLS", "Coverage", "Method", "Thinning", "open_method", "thin"]
