"""Which assets may be used and are worth it: licences, attribution, filters, duplicates."""
