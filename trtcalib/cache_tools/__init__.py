"""Tools around calibration caches: read tables of scales, compare, edit and export them."""
