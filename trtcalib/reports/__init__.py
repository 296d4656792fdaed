"""Results of studies, calibrations and caches gathered into one page's worth of values."""
