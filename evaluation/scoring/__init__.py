"""Numbers for masks: the editions' measures, their aggregates, comparisons, lesions."""
